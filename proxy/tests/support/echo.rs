//! Servers that say who they are and whom they see, and clients that ask.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::machine::Machine;

/// How long an answer may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The servers' port.
pub const PORT: u16 = 8080;

/// Starts a TCP and a UDP server on `machine` at every address of both families. Each answers
/// every message with `NAME PEER`, where the peer is whom the server sees. They end with the process.
pub fn serve(machine: &Machine, name: &'static str) {
    machine.run(|| {
        for ip in ["0.0.0.0", "::"] {
            let ip: IpAddr = ip.parse().expect("an address");
            let tcp = listener(SocketAddr::new(ip, PORT));
            let udp = UdpSocket::from(bind(SocketAddr::new(ip, PORT), libc::SOCK_DGRAM));
            std::thread::spawn(move || serve_tcp(&tcp, name));
            std::thread::spawn(move || serve_udp(&udp, name));
        }
    });
}

/// A socket of one family only, bound to `addr`.
fn bind(addr: SocketAddr, kind: libc::c_int) -> std::os::fd::OwnedFd {
    use nix::sys::socket::{
        self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
    };
    let family = if addr.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let kind = if kind == libc::SOCK_STREAM {
        SockType::Stream
    } else {
        SockType::Datagram
    };
    let fd = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    setsockopt(&fd, sockopt::ReuseAddr, &true).expect("SO_REUSEADDR");
    if addr.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true).expect("IPV6_V6ONLY");
    }
    use std::os::fd::AsRawFd;
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(addr)).expect("bind");
    fd
}

fn listener(addr: SocketAddr) -> TcpListener {
    let fd = bind(addr, libc::SOCK_STREAM);
    nix::sys::socket::listen(&fd, nix::sys::socket::Backlog::new(64).expect("backlog"))
        .expect("listen");
    TcpListener::from(fd)
}

fn serve_tcp(listener: &TcpListener, name: &'static str) {
    while let Ok((mut stream, peer)) = listener.accept() {
        std::thread::spawn(move || {
            let mut message = [0; 64];
            while stream.read(&mut message).is_ok_and(|n| n > 0) {
                let answer = format!("{name} {peer}");
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
    }
}

fn serve_udp(socket: &UdpSocket, name: &'static str) {
    let mut message = [0; 64];
    while let Ok((_, peer)) = socket.recv_from(&mut message) {
        let _ = socket.send_to(format!("{name} {peer}").as_bytes(), peer);
    }
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who it is.
    pub server: String,
    /// Whom it saw.
    pub seen: SocketAddr,
}

fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (server, seen) = text
        .split_once(' ')
        .unwrap_or_else(|| panic!("answer {text:?}"));
    Answer {
        server: server.to_owned(),
        seen: seen.parse().unwrap_or_else(|e| panic!("{seen}: {e}")),
    }
}

/// Receives again when a signal came between: a receive with a time-out is never restarted by the kernel
/// (signal(7)).
pub fn uninterrupted<T>(mut receive: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match receive() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A TCP connection that stays open.
pub struct Conversation(pub TcpStream);

impl Conversation {
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    pub fn ask(&mut self) -> io::Result<Answer> {
        self.0.write_all(b"who?")?;
        let mut answer = [0; 128];
        let n = uninterrupted(|| self.0.read(&mut answer))?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(parse(&answer[..n]))
    }
}

/// Asks once over TCP.
pub fn ask_tcp(to: SocketAddr) -> io::Result<Answer> {
    Conversation::open(to)?.ask()
}

/// Asks once over UDP, from an unconnected socket; gives the answer and who it came from.
pub fn ask_udp(to: SocketAddr) -> io::Result<(Answer, SocketAddr)> {
    ask_udp_from(&udp_socket(to)?, to)
}

/// A UDP socket of the family of `to`.
pub fn udp_socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }
        .parse()
        .expect("an address");
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Asks once from this socket.
pub fn ask_udp_from(socket: &UdpSocket, to: SocketAddr) -> io::Result<(Answer, SocketAddr)> {
    socket.send_to(b"who?", to)?;
    let mut answer = [0; 128];
    let (n, from) = uninterrupted(|| socket.recv_from(&mut answer))?;
    Ok((parse(&answer[..n]), from))
}

/// Sends an ICMP echo request and waits for the reply to it.
pub fn ping(to: IpAddr) -> io::Result<()> {
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP, 8, 0),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128, 129),
    };
    // SAFETY: takes and returns integers.
    let fd = unsafe { libc::socket(domain, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's. A UdpSocket is only a way to send and receive here.
    let socket = unsafe { <UdpSocket as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    socket.set_read_timeout(Some(PATIENCE))?;
    let (id, sequence) = (*b"sl", *b"ui");
    let mut message = [request, 0, 0, 0, id[0], id[1], sequence[0], sequence[1]];
    // The kernel computes ICMPv6's checksum, whose pseudo-header it alone knows.
    let sum: u32 = message
        .chunks(2)
        .map(|c| u32::from(u16::from_be_bytes([c[0], c[1]])))
        .sum();
    message[2..4].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    socket.send_to(&message, SocketAddr::new(to, 0))?;
    loop {
        let mut packet = [0; 256];
        let (n, _) = uninterrupted(|| socket.recv_from(&mut packet))?;
        // Raw IPv4 sockets give the network header too.
        let icmp = if to.is_ipv4() {
            &packet[20..n]
        } else {
            &packet[..n]
        };
        if icmp[0] == reply && icmp[4..8] == [id[0], id[1], sequence[0], sequence[1]] {
            return Ok(());
        }
    }
}
