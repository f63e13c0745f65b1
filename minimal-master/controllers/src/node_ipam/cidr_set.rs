//! A network cut into equal parts, each free or taken.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::IpNetwork;

/// Why a network can't be cut.
#[derive(Debug, PartialEq, Eq)]
pub struct CidrError {
    network: IpNetwork,
    prefix: u8,
}

impl std::fmt::Display for CidrError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (network, prefix) = (self.network, self.prefix);
        write!(
            f,
            "cluster CIDR {network} can't be cut into node CIDRs of /{prefix}"
        )
    }
}

impl std::error::Error for CidrError {}

/// See the module's documentation. Memory grows with what is taken, not with the network's size.
#[derive(Debug)]
pub struct CidrSet {
    network: IpNetwork,
    prefix: u8,
    taken: BTreeSet<u64>,
    /// Where the search starts: behind the last one handed out, so that a freed CIDR rests for a while.
    next: u64,
}

impl CidrSet {
    /// Cuts `network` into parts with this prefix length.
    pub fn new(network: IpNetwork, prefix: u8) -> Result<Self, CidrError> {
        let longest = if network.is_ipv4() { 32 } else { 128 };
        let fits = (network.prefix()..=longest).contains(&prefix) && prefix - network.prefix() < 63;
        if !fits {
            return Err(CidrError { network, prefix });
        }
        Ok(Self {
            network,
            prefix,
            taken: BTreeSet::new(),
            next: 0,
        })
    }

    /// A free part, which is taken from now on.
    pub fn allocate(&mut self) -> Option<IpNetwork> {
        let all = self.len();
        if self.taken.len() as u64 >= all {
            return None;
        }
        let mut at = self.next % all;
        while self.taken.contains(&at) {
            at = (at + 1) % all;
        }
        self.taken.insert(at);
        self.next = at + 1;
        self.part(at)
    }

    /// Takes a given part; false when it isn't one of ours or is taken.
    pub fn occupy(&mut self, cidr: IpNetwork) -> bool {
        self.index(cidr).is_some_and(|at| self.taken.insert(at))
    }

    /// Gives a part back.
    pub fn free(&mut self, cidr: IpNetwork) {
        if let Some(at) = self.index(cidr) {
            self.taken.remove(&at);
        }
    }

    fn len(&self) -> u64 {
        1 << (self.prefix - self.network.prefix())
    }

    fn part(&self, at: u64) -> Option<IpNetwork> {
        let ip = match self.network.network() {
            IpAddr::V4(base) => {
                let offset = u32::try_from(at << (32 - self.prefix)).ok()?;
                IpAddr::V4(Ipv4Addr::from_bits(base.to_bits() | offset))
            }
            IpAddr::V6(base) => {
                let offset = u128::from(at)
                    .checked_shl(u32::from(128 - self.prefix))
                    .unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(base.to_bits() | offset))
            }
        };
        IpNetwork::new(ip, self.prefix).ok()
    }

    fn index(&self, cidr: IpNetwork) -> Option<u64> {
        if cidr.prefix() != self.prefix || !contains(self.network, cidr.network()) {
            return None;
        }
        let at = match (cidr.network(), self.network.network()) {
            (IpAddr::V4(ip), IpAddr::V4(base)) => {
                u64::from(ip.to_bits() ^ base.to_bits()) >> (32 - self.prefix)
            }
            (IpAddr::V6(ip), IpAddr::V6(base)) => {
                let offset = ip.to_bits() ^ base.to_bits();
                u64::try_from(
                    offset
                        .checked_shr(u32::from(128 - self.prefix))
                        .unwrap_or(0),
                )
                .ok()?
            }
            _ => return None,
        };
        Some(at)
    }
}

fn contains(network: IpNetwork, ip: IpAddr) -> bool {
    network.is_ipv4() == ip.is_ipv4() && network.contains(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn parts_follow_each_other_and_a_freed_one_rests() {
        let mut set = CidrSet::new(net("10.0.0.0/22"), 24).unwrap();
        assert_eq!(set.allocate(), Some(net("10.0.0.0/24")));
        set.free(net("10.0.0.0/24"));
        assert_eq!(set.allocate(), Some(net("10.0.1.0/24")));
        assert_eq!(set.allocate(), Some(net("10.0.2.0/24")));
        assert_eq!(set.allocate(), Some(net("10.0.3.0/24")));
        assert_eq!(set.allocate(), Some(net("10.0.0.0/24")));
        assert_eq!(set.allocate(), None);
    }

    #[test]
    fn a_network_may_be_one_part_and_large_ones_cost_nothing() {
        let mut one = CidrSet::new(net("fd00::/64"), 64).unwrap();
        assert_eq!(one.allocate(), Some(net("fd00::/64")));
        assert_eq!(one.allocate(), None);
        let mut large = CidrSet::new(net("fd00::/16"), 64).unwrap();
        assert_eq!(large.allocate(), Some(net("fd00::/64")));
        assert_eq!(large.allocate(), Some(net("fd00:0:0:1::/64")));
    }

    #[test]
    fn foreign_and_misshapen_parts_are_refused() {
        let mut set = CidrSet::new(net("10.0.0.0/16"), 24).unwrap();
        assert!(set.occupy(net("10.0.5.0/24")));
        assert!(!set.occupy(net("10.0.5.0/24")));
        assert!(!set.occupy(net("10.1.0.0/24")));
        assert!(!set.occupy(net("10.0.0.0/25")));
        assert!(!set.occupy(net("fd00::/24")));
        assert!(CidrSet::new(net("10.0.0.0/24"), 16).is_err());
        assert!(CidrSet::new(net("10.0.0.0/24"), 33).is_err());
    }
}
