//! The hooks of connect, sendmsg, recvmsg and getpeername.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use sluice_common::{Be16, Ipv4, Ipv6, SocketPeer, SocketPeers};
use sluice_datapath::socket::{self, Decision, Endpoint};

use crate::maps::SOCKETS;
use crate::tables::Kernel;

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;

/// The four-byte words of the hook's address are read and written one by one: the kernel checks each.
struct Address<'a> {
    context: &'a SockAddrContext,
}

impl Address<'_> {
    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.context.sock_addr
    }

    #[inline(always)]
    fn port(&self) -> Be16 {
        // SAFETY: a field of the context that the kernel gave; the port is in its lower half.
        Be16(unsafe { (*self.raw()).user_port } as u16)
    }

    #[inline(always)]
    fn v4(&self) -> Endpoint<Ipv4> {
        // SAFETY: a field of the context that the kernel gave.
        Endpoint {
            addr: Ipv4(unsafe { (*self.raw()).user_ip4 }),
            port: self.port(),
        }
    }

    #[inline(always)]
    fn v6(&self) -> Endpoint<Ipv6> {
        // SAFETY: fields of the context that the kernel gave.
        let words = unsafe {
            let ip = &raw const (*self.raw()).user_ip6;
            [0, 1, 2, 3].map(|i| ip.cast::<u32>().add(i).read_volatile())
        };
        Endpoint {
            addr: Ipv6(words),
            port: self.port(),
        }
    }

    #[inline(always)]
    fn set_v4(&self, to: Endpoint<Ipv6>) {
        // SAFETY: fields of the context that programs of this type may write.
        unsafe { (*self.raw()).user_ip4 = to.addr.low_v4().0 };
        self.set_port(to.port);
    }

    #[inline(always)]
    fn set_v6(&self, to: Endpoint<Ipv6>) {
        // SAFETY: as above.
        unsafe {
            let ip = &raw mut (*self.raw()).user_ip6;
            for i in 0..4 {
                ip.cast::<u32>().add(i).write_volatile(to.addr.0[i]);
            }
        }
        self.set_port(to.port);
    }

    #[inline(always)]
    fn set_port(&self, port: Be16) {
        // SAFETY: as above.
        unsafe { (*self.raw()).user_port = u32::from(port.0) };
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        // SAFETY: a field of the context that the kernel gave. Numbers above 255 are no protocol of
        // a Service.
        unsafe { (*self.raw()).protocol as u8 }
    }

    #[inline(always)]
    fn netns(&self) -> u64 {
        // SAFETY: the helper takes this program's context.
        unsafe { bpf_get_netns_cookie(self.raw().cast()) }
    }

    #[inline(always)]
    fn remembered(&self) -> Option<&mut SocketPeers> {
        // SAFETY: the storage lives as long as the socket, which the running system call holds.
        unsafe { SOCKETS.get_ptr_mut(self.context).as_mut() }
    }

    /// Without memory for it the connection still works; only its peer's name is the backend's.
    #[inline(always)]
    fn remember(&self, peer: SocketPeer) {
        // SAFETY: as above.
        if let Some(peers) = unsafe { SOCKETS.get_or_insert_ptr_mut(self.context, None).as_mut() } {
            socket::remember(peers, peer);
        }
    }

    /// `None`: the address stays; the system call fails where there is a verdict in place of it.
    #[inline(always)]
    fn carry_out(&self, decision: Decision) -> Result<Option<Endpoint<Ipv6>>, i32> {
        match decision {
            Decision::Pass => Ok(None),
            Decision::Known(peer) => Ok(Some(backend(&peer))),
            Decision::Remember(peer) => {
                self.remember(peer);
                Ok(Some(backend(&peer)))
            }
            Decision::Refuse => Err(ECONNREFUSED),
            Decision::Unreachable => Err(EHOSTUNREACH),
        }
    }

    #[inline(always)]
    fn decide_v4(&self, to: Endpoint<Ipv4>, keep: bool) -> Decision {
        let Some(kernel) = Kernel::new(self.raw().cast(), 0, false) else {
            return Decision::Pass;
        };
        let peers = if keep { self.remembered() } else { None };
        socket::direct(
            &kernel,
            to,
            self.protocol(),
            || self.netns(),
            peers.as_deref(),
        )
    }

    #[inline(always)]
    fn decide_v6(&self, to: Endpoint<Ipv6>, keep: bool) -> Decision {
        let Some(kernel) = Kernel::new(self.raw().cast(), 0, false) else {
            return Decision::Pass;
        };
        let peers = if keep { self.remembered() } else { None };
        socket::direct(
            &kernel,
            to,
            self.protocol(),
            || self.netns(),
            peers.as_deref(),
        )
    }

    /// For the hooks of IPv4 sockets; `keep`: a backend that the socket remembers stays.
    #[inline(always)]
    fn direct_v4(&self, keep: bool) -> i32 {
        match self.carry_out(self.decide_v4(self.v4(), keep)) {
            Ok(Some(to)) => self.set_v4(to),
            Ok(None) => {}
            Err(errno) => return fail(errno),
        }
        ALLOW
    }

    /// For the hooks of IPv6 sockets, which may name IPv4-mapped addresses.
    #[inline(always)]
    fn direct_v6(&self, keep: bool) -> i32 {
        let to = self.v6();
        let decision = match to.addr.to_mapped_v4() {
            Some(addr) => self.decide_v4(
                Endpoint {
                    addr,
                    port: to.port,
                },
                keep,
            ),
            None => self.decide_v6(to, keep),
        };
        match self.carry_out(decision) {
            Ok(Some(to)) => self.set_v6(to),
            Ok(None) => {}
            Err(errno) => return fail(errno),
        }
        ALLOW
    }

    #[inline(always)]
    fn name_v4(&self) -> i32 {
        let from = self.v4();
        let from = Endpoint {
            addr: Ipv6::mapped(from.addr),
            port: from.port,
        };
        if let Some(name) = self
            .remembered()
            .and_then(|peers| socket::known_as(peers, from))
        {
            self.set_v4(name);
        }
        ALLOW
    }

    #[inline(always)]
    fn name_v6(&self) -> i32 {
        let from = self.v6();
        if let Some(name) = self
            .remembered()
            .and_then(|peers| socket::known_as(peers, from))
        {
            self.set_v6(name);
        }
        ALLOW
    }
}

#[inline(always)]
fn backend(peer: &SocketPeer) -> Endpoint<Ipv6> {
    Endpoint {
        addr: peer.backend,
        port: peer.backend_port,
    }
}

#[inline(always)]
fn fail(errno: i32) -> i32 {
    // SAFETY: the helper takes an integer.
    unsafe { bpf_set_retval(-errno) };
    DENY
}

/// An IPv4 socket connects.
#[cgroup_sock_addr(connect4)]
pub fn sock_connect4(context: SockAddrContext) -> i32 {
    Address { context: &context }.direct_v4(false)
}

/// An IPv6 socket connects.
#[cgroup_sock_addr(connect6)]
pub fn sock_connect6(context: SockAddrContext) -> i32 {
    Address { context: &context }.direct_v6(false)
}

/// An unconnected UDP socket sends to an IPv4 address.
#[cgroup_sock_addr(sendmsg4)]
pub fn sock_sendmsg4(context: SockAddrContext) -> i32 {
    Address { context: &context }.direct_v4(true)
}

/// An unconnected UDP socket sends to an IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
pub fn sock_sendmsg6(context: SockAddrContext) -> i32 {
    Address { context: &context }.direct_v6(true)
}

/// A UDP socket asks who sent a datagram over IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn sock_recvmsg4(context: SockAddrContext) -> i32 {
    Address { context: &context }.name_v4()
}

/// A UDP socket asks who sent a datagram over IPv6.
#[cgroup_sock_addr(recvmsg6)]
pub fn sock_recvmsg6(context: SockAddrContext) -> i32 {
    Address { context: &context }.name_v6()
}

/// An IPv4 socket asks for its peer.
#[cgroup_sock_addr(getpeername4)]
pub fn sock_getpeername4(context: SockAddrContext) -> i32 {
    Address { context: &context }.name_v4()
}

/// An IPv6 socket asks for its peer.
#[cgroup_sock_addr(getpeername6)]
pub fn sock_getpeername6(context: SockAddrContext) -> i32 {
    Address { context: &context }.name_v6()
}
