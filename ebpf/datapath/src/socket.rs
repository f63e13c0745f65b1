//! Sockets: a connection to a service is made to a backend from the start.
//!
//! The address that an application names is replaced before the kernel sees it, and put back where
//! the application asks who its peer is. No packet is ever translated. What a socket was told is kept
//! in storage that belongs to the socket itself, so it needs no table, no time-out and no cleaning up.

use sluice_common::{
    Be16, DropReason, Frontend, FrontendKey, Ipv6, SOCKET_PEERS, SocketPeer, SocketPeers,
    backend_flags, frontend_flags,
};

use crate::address::Address;
use crate::service::{self, Chosen, is_eligible};
use crate::tables::Frontends;

/// An address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<A> {
    /// Address.
    pub addr: A,
    /// Port.
    pub port: Be16,
}

/// What becomes of a connect or sendmsg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not a service: goes where it was meant to.
    Pass,
    /// Goes to this peer's backend; the socket must remember it.
    Remember(SocketPeer),
    /// Goes to this peer's backend, which the socket remembers already.
    Known(SocketPeer),
    /// Fails with ECONNREFUSED: nobody serves there.
    Refuse,
    /// Fails with EHOSTUNREACH: the policy keeps the service's endpoints from this node.
    Unreachable,
}

/// Where a socket that connects, or sends from an unconnected socket, goes. `netns` gives the cookie of
/// its network namespace. `peers` is what it remembers: a socket that keeps sending to a service
/// keeps its backend as long as the service does, as a flow would.
#[inline(always)]
pub fn direct<A: Address, T: Frontends<A>>(
    tables: &T,
    to: Endpoint<A>,
    protocol: u8,
    netns: impl Fn() -> u64,
    peers: Option<&SocketPeers>,
) -> Decision {
    let Some(frontend) = lookup(tables, to, protocol, &netns) else {
        return Decision::Pass;
    };
    if let Some(peer) = peers.and_then(|peers| remembered(tables, frontend, to, peers)) {
        return Decision::Known(peer);
    }
    match service::choose_internal(tables, frontend, netns) {
        Ok(Chosen { id, backend }) => {
            tables.count_connection(frontend.service_id, id);
            Decision::Remember(SocketPeer {
                frontend: to.addr.to_v6(),
                backend: backend.addr,
                frontend_port: to.port,
                backend_port: backend.port,
                backend_id: id,
            })
        }
        Err(reason) => refuse(tables, frontend, reason),
    }
}

#[inline(always)]
fn lookup<'t, A: Address, T: Frontends<A>>(
    tables: &'t T,
    to: Endpoint<A>,
    protocol: u8,
    netns: &impl Fn() -> u64,
) -> Option<&'t Frontend> {
    let frontend = match tables.frontend(&FrontendKey::new(to.addr, to.port, protocol)) {
        Some(frontend) => frontend,
        None => tables.frontend(&FrontendKey::address(to.addr))?,
    };
    let host_only = frontend.flags & frontend_flags::HOST_ONLY != 0;
    (!host_only || netns() == tables.config().netns_cookie).then_some(frontend)
}

#[inline(always)]
fn remembered<A: Address, T: Frontends<A>>(
    tables: &T,
    frontend: &Frontend,
    to: Endpoint<A>,
    peers: &SocketPeers,
) -> Option<SocketPeer> {
    let peer = find(peers, |peer| {
        peer.frontend_port == to.port && peer.frontend == to.addr.to_v6()
    })?;
    let backend = tables.backend(peer.backend_id)?;
    let same = backend.addr == peer.backend && backend.port == peer.backend_port;
    (same && is_eligible(backend, frontend.service_id, backend_flags::INTERNAL)).then_some(peer)
}

#[inline(always)]
fn refuse<A, T: Frontends<A>>(tables: &T, frontend: &Frontend, reason: DropReason) -> Decision {
    tables.count_drop(reason, 0);
    tables.count_refused(frontend.service_id);
    match reason {
        DropReason::NoLocalEndpoints => Decision::Unreachable,
        _ => Decision::Refuse,
    }
}

/// The address that the application knows the sender at `from` by, if the socket was pointed there.
#[inline(always)]
pub fn known_as(peers: &SocketPeers, from: Endpoint<Ipv6>) -> Option<Endpoint<Ipv6>> {
    let peer = find(peers, |peer| {
        peer.backend_port == from.port && peer.backend == from.addr
    })?;
    Some(Endpoint {
        addr: peer.frontend,
        port: peer.frontend_port,
    })
}

#[inline(always)]
fn find(peers: &SocketPeers, wanted: impl Fn(&SocketPeer) -> bool) -> Option<SocketPeer> {
    peers
        .peers
        .iter()
        .find(|peer| peer.backend_id != 0 && wanted(peer))
        .copied()
}

/// Remembers a translation: in place of an older one for the same frontend, else of the oldest.
#[inline(always)]
pub fn remember(peers: &mut SocketPeers, new: SocketPeer) {
    for peer in &mut peers.peers {
        if peer.frontend_port == new.frontend_port && peer.frontend == new.frontend {
            *peer = new;
            return;
        }
    }
    let at = peers.next as usize % SOCKET_PEERS;
    peers.peers[at] = new;
    peers.next = peers.next.wrapping_add(1);
}
