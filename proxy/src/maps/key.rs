//! Frontend keys in the host's types.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use sluice_common::{self as abi, Be16, Ipv4, Ipv6};

/// A transport protocol that Services can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// All of them: the key of a whole address, see [`abi::frontend_flags::ADDRESS`].
    Any = 0,
    /// TCP.
    Tcp = abi::proto::TCP,
    /// UDP.
    Udp = abi::proto::UDP,
    /// SCTP.
    Sctp = abi::proto::SCTP,
}

impl Protocol {
    /// The protocol with this IANA number (0: any).
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Any),
            abi::proto::TCP => Some(Self::Tcp),
            abi::proto::UDP => Some(Self::Udp),
            abi::proto::SCTP => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Any => "any",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// Where clients send. Orders by address, port, protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// Address; its family selects the map.
    pub addr: IpAddr,
    /// Port; 0 with [`Protocol::Any`] for the address as a whole.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl FrontendKey {
    /// The key of `protocol` at `addr`:`port`.
    pub const fn new(addr: IpAddr, port: u16, protocol: Protocol) -> Self {
        Self {
            addr,
            port,
            protocol,
        }
    }

    /// The key of the address as a whole.
    pub const fn address(addr: IpAddr) -> Self {
        Self::new(addr, 0, Protocol::Any)
    }

    pub(super) fn from_v4(key: abi::FrontendKey<Ipv4>) -> Option<Self> {
        let addr = IpAddr::V4(key.addr.into());
        Some(Self::new(
            addr,
            key.port.get(),
            Protocol::from_number(key.protocol)?,
        ))
    }

    pub(super) fn from_v6(key: abi::FrontendKey<Ipv6>) -> Option<Self> {
        let addr = IpAddr::V6(key.addr.into());
        Some(Self::new(
            addr,
            key.port.get(),
            Protocol::from_number(key.protocol)?,
        ))
    }

    pub(super) fn abi<A>(&self, addr: A) -> abi::FrontendKey<A> {
        abi::FrontendKey::new(addr, Be16::new(self.port), self.protocol as u8)
    }
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            SocketAddr::new(self.addr, self.port),
            self.protocol
        )
    }
}
