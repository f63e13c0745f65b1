//! How the planner names things.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::maps::Protocol;

/// `namespace/name` of an object, or `name` of one without a namespace. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// The name of an object; an empty namespace is left out.
    pub fn new(namespace: &str, name: &str) -> Self {
        if namespace.is_empty() {
            return Self(name.into());
        }
        Self(format!("{namespace}/{name}").into())
    }

    /// The part before the slash; empty for an object without a namespace.
    pub fn namespace(&self) -> &str {
        self.0
            .split_once('/')
            .map_or("", |(namespace, _)| namespace)
    }

    /// The part after the slash.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// `namespace/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Which frontends of a Service's port share one set of backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All of them: the usual case.
    All,
    /// Those reachable from outside, of a Service with `internalTrafficPolicy: Local`: traffic from
    /// inside the cluster to them goes to all endpoints, while its cluster IPs keep to the node's own.
    External,
}

/// One port of one Service in one family: what the datapath calls a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId {
    /// The Service.
    pub service: ObjectName,
    /// The port's name; empty for the only port of a Service.
    pub port: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The family.
    pub family: Family,
    /// Which frontends.
    pub scope: Scope,
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        write!(f, "/{}/{}", self.protocol, self.family)?;
        match self.scope {
            Scope::All => Ok(()),
            Scope::External => f.write_str("/external"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_two_parts() {
        let name = ObjectName::new("shop", "cart");
        assert_eq!(
            (name.namespace(), name.name(), name.as_str()),
            ("shop", "cart", "shop/cart")
        );
        let node = ObjectName::new("", "node1");
        assert_eq!((node.namespace(), node.name()), ("", "node1"));
    }
}
