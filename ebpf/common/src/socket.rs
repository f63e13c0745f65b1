//! What a socket that was pointed at a backend remembers.

use crate::plain::plain;
use crate::{Be16, Ipv6};

/// How many frontends one socket remembers; the oldest is forgotten first. Connected sockets need
/// one; a resolver's unconnected socket talks to a handful of name servers.
pub const SOCKET_PEERS: usize = 4;

/// One translation: the application's peer and the real one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SocketPeer {
    /// The address that the application named; IPv4 is IPv4-mapped.
    pub frontend: Ipv6,
    /// The address that packets go to; IPv4 is IPv4-mapped.
    pub backend: Ipv6,
    /// The port that the application named.
    pub frontend_port: Be16,
    /// The port that packets go to.
    pub backend_port: Be16,
    /// The backend; 0: this entry is empty.
    pub backend_id: u32,
}

/// The value of `sockets`, a socket-local storage map: lives and dies with its socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SocketPeers {
    /// Translations in no order.
    pub peers: [SocketPeer; SOCKET_PEERS],
    /// Where the next one goes (modulo [`SOCKET_PEERS`]).
    pub next: u32,
    /// Zero.
    pub pad: u32,
}

plain! {
    SocketPeer = 40,
    SocketPeers = 168,
}
