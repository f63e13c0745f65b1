//! The addresses of this network namespace, and word of when they change.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tracing::warn;

/// Multicast groups of rtnetlink (linux/rtnetlink.h): IPv4 and IPv6 addresses come and go.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;

/// Every interface that is up with each of its addresses.
///
/// # Errors
/// When the system does not tell.
pub fn addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut found = Vec::new();
    for entry in getifaddrs()? {
        let Some(addr) = entry.address else { continue };
        let up = entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP);
        let v4 = addr.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = addr.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        found.extend(
            v4.or(v6)
                .filter(|_| up)
                .map(|ip| (entry.interface_name.clone(), ip)),
        );
    }
    Ok(found)
}

/// Sends all addresses anew whenever one changes, until the receiver is gone.
///
/// # Errors
/// When the kernel gives no netlink socket.
pub fn watch() -> io::Result<mpsc::Receiver<Vec<(String, IpAddr)>>> {
    let fd = subscribe()?;
    // SAFETY: the AsyncFd owns the descriptor, so it stays open for as long as it is registered.
    let fd = unsafe { AsyncFd::register(fd) }?;
    let (to, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while changed(&fd).await.is_ok() {
            let sent = match addresses() {
                Ok(found) => to.send(found).await,
                Err(error) => {
                    warn!(%error, "cannot read this machine's addresses");
                    Ok(())
                }
            };
            if sent.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn subscribe() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkRoute,
    )?;
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&fd),
        &NetlinkAddr::new(0, ADDRESS_GROUPS),
    )?;
    Ok(fd)
}

/// Waits for messages and throws them away: what they say is read anew, so a lost one does no harm.
async fn changed(fd: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut guard = fd.readable().await?;
    let mut buffer = [0; 8192];
    loop {
        match recv(
            std::os::fd::AsRawFd::as_raw_fd(fd.get_ref()),
            &mut buffer,
            MsgFlags::empty(),
        ) {
            Ok(_) | Err(nix::errno::Errno::ENOBUFS) => {}
            Err(nix::errno::Errno::EAGAIN) => {
                guard.clear_ready();
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
}
