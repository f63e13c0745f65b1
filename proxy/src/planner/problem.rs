//! What is wrong with an object, in words that name the object and the field.

use std::fmt;

use super::ObjectName;
use crate::maps::FrontendKey;

/// A field that could not be used. The rest of its object, and all other objects, are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The object's kind.
    pub kind: &'static str,
    /// The object.
    pub object: ObjectName,
    /// The field's path, as `kubectl explain` writes it; empty: the object as a whole.
    pub field: String,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.object)?;
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.fault)
    }
}

/// What can be wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Fault {
    /// No IP address.
    #[error("{0:?} is not an IP address")]
    NotAnAddress(String),
    /// An address that nobody can be reached at.
    #[error(
        "{0} cannot be a service's or endpoint's address (it is unspecified, loopback or multicast)"
    )]
    Unusable(String),
    /// Not a network in CIDR notation.
    #[error("{0:?} is not a network in CIDR notation")]
    NotANetwork(String),
    /// An address of the other family.
    #[error("{value} is not an {expected} address")]
    WrongFamily {
        /// The address.
        value: String,
        /// The family that belongs there.
        expected: &'static str,
    },
    /// An `addressType` that cannot be routed to.
    #[error("{0:?} is not supported; expected IPv4 or IPv6")]
    AddressType(String),
    /// Not a port.
    #[error("{0} is not a port; expected 1 to 65535")]
    NotAPort(i64),
    /// A protocol that Services cannot have.
    #[error("{0:?} is not supported; expected TCP, UDP or SCTP")]
    Protocol(String),
    /// Two ports of one object with the same name or number.
    #[error("{0} is there twice; the first one counts")]
    Duplicate(String),
    /// A time that makes no sense.
    #[error("{0} is not a timeout; expected 1 to 86400 seconds")]
    Timeout(i64),
    /// Two Services want the same address and port.
    #[error("{key} belongs to Service {owner}")]
    Claimed {
        /// The address and port.
        key: FrontendKey,
        /// Who has it.
        owner: ObjectName,
    },
    /// The object does not have the shape of its kind.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

impl Fault {
    /// A short name for metrics' labels.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotAnAddress(_) => "not-an-address",
            Self::Unusable(_) => "unusable-address",
            Self::NotANetwork(_) => "not-a-network",
            Self::WrongFamily { .. } => "wrong-family",
            Self::AddressType(_) => "address-type",
            Self::NotAPort(_) => "not-a-port",
            Self::Protocol(_) => "protocol",
            Self::Duplicate(_) => "duplicate",
            Self::Timeout(_) => "timeout",
            Self::Claimed { .. } => "claimed",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// Collects the problems of one object while it is read.
pub(super) struct Problems {
    kind: &'static str,
    object: ObjectName,
    found: Vec<Problem>,
}

impl Problems {
    pub(super) const fn new(kind: &'static str, object: ObjectName) -> Self {
        Self {
            kind,
            object,
            found: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, field: impl Into<String>, fault: Fault) {
        self.found.push(Problem {
            kind: self.kind,
            object: self.object.clone(),
            field: field.into(),
            fault,
        });
    }

    /// The value, or `None` with the fault noted.
    pub(super) fn take<T>(
        &mut self,
        field: impl Into<String>,
        read: Result<T, Fault>,
    ) -> Option<T> {
        read.map_err(|fault| self.add(field, fault)).ok()
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.found
    }
}

/// Readers of single values, shared by Services and EndpointSlices.
pub(super) mod read {
    use std::net::IpAddr;

    use super::Fault;
    use crate::maps::Protocol;
    use crate::planner::Family;

    /// An address that traffic can go to. Kubernetes refuses the rest at validation too.
    pub fn address(text: &str) -> Result<IpAddr, Fault> {
        let addr: IpAddr = text
            .trim()
            .parse()
            .map_err(|_| Fault::NotAnAddress(text.to_owned()))?;
        let broadcast = matches!(addr, IpAddr::V4(v4) if v4.is_broadcast());
        let mapped = matches!(addr, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        if addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() || broadcast || mapped
        {
            return Err(Fault::Unusable(text.to_owned()));
        }
        Ok(addr)
    }

    /// An address of a family.
    pub fn address_of(text: &str, family: Family) -> Result<IpAddr, Fault> {
        let addr = address(text)?;
        if Family::of(addr) == family {
            return Ok(addr);
        }
        let expected = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        Err(Fault::WrongFamily {
            value: text.to_owned(),
            expected,
        })
    }

    /// A port.
    pub fn port(number: i32) -> Result<u16, Fault> {
        u16::try_from(number)
            .ok()
            .filter(|port| *port != 0)
            .ok_or(Fault::NotAPort(number.into()))
    }

    /// A protocol; none is TCP.
    pub fn protocol(text: Option<&str>) -> Result<Protocol, Fault> {
        match text {
            None | Some("" | "TCP") => Ok(Protocol::Tcp),
            Some("UDP") => Ok(Protocol::Udp),
            Some("SCTP") => Ok(Protocol::Sctp),
            Some(other) => Err(Fault::Protocol(other.to_owned())),
        }
    }
}
