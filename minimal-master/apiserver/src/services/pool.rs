//! Pools of addresses and ports, and who holds what.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use rand::Rng;

use super::Resource;

/// A Service's uid.
pub(super) type Owner = String;

/// Only so many addresses of a larger range are used (upstream's limit for IPv6 ranges is of this order).
const MOST_ADDRESSES: u128 = 1 << 20;

/// Why something can't be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Taken,
    OutOfRange(String),
    NoFamily,
    AddressesFull,
    PortsFull,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Taken => f.write_str("already allocated"),
            Problem::OutOfRange(range) => write!(f, "not in the valid range {range}"),
            Problem::NoFamily => {
                f.write_str("the address family is not configured on this cluster")
            }
            Problem::AddressesFull => f.write_str("failed to allocate a serviceIP: range is full"),
            Problem::PortsFull => f.write_str("failed to allocate a nodePort: range is full"),
        }
    }
}

pub(super) struct Pools {
    ranges: Vec<IpNetwork>,
    ports: RangeInclusive<u16>,
    held: HashMap<Resource, Owner>,
}

impl Pools {
    pub(super) fn new(ranges: &[IpNetwork], ports: RangeInclusive<u16>) -> Self {
        Self {
            ranges: ranges.to_vec(),
            ports,
            held: HashMap::new(),
        }
    }

    /// Whether each family of the cluster is IPv6; the primary one first.
    pub(super) fn families(&self) -> Vec<bool> {
        self.ranges.iter().map(IpNetwork::is_ipv6).collect()
    }

    /// Takes one; false when the owner holds it already.
    pub(super) fn take(&mut self, resource: Resource, owner: &Owner) -> Result<bool, Problem> {
        if let Some(holder) = self.held.get(&resource) {
            return if holder == owner {
                Ok(false)
            } else {
                Err(Problem::Taken)
            };
        }
        self.check_range(resource)?;
        self.held.insert(resource, owner.clone());
        Ok(true)
    }

    fn check_range(&self, resource: Resource) -> Result<(), Problem> {
        match resource {
            Resource::Address(address) => {
                let range = self.range(address.is_ipv6())?;
                let usable = offset(range, address).is_some_and(|at| usable(range).contains(&at));
                if usable {
                    Ok(())
                } else {
                    Err(Problem::OutOfRange(range.to_string()))
                }
            }
            Resource::NodePort(port) if self.ports.contains(&port) => Ok(()),
            Resource::NodePort(_) => {
                let (low, high) = (self.ports.start(), self.ports.end());
                Err(Problem::OutOfRange(format!("{low}-{high}")))
            }
        }
    }

    fn range(&self, v6: bool) -> Result<IpNetwork, Problem> {
        self.ranges
            .iter()
            .find(|range| range.is_ipv6() == v6)
            .copied()
            .ok_or(Problem::NoFamily)
    }

    pub(super) fn draw_address(&mut self, v6: bool, owner: &Owner) -> Result<IpAddr, Problem> {
        let range = self.range(v6)?;
        let all = usable(range);
        let band = static_band(all.end() - all.start() + 1, 16, 16, 256);
        let free = |at: u128| {
            let address = address(range, at);
            !self.held.contains_key(&Resource::Address(address))
        };
        let drawn = draw(&all, band, free).ok_or(Problem::AddressesFull)?;
        let address = address(range, drawn);
        self.held.insert(Resource::Address(address), owner.clone());
        Ok(address)
    }

    pub(super) fn draw_port(&mut self, owner: &Owner) -> Result<u16, Problem> {
        let all = u128::from(*self.ports.start())..=u128::from(*self.ports.end());
        let band = static_band(all.end() - all.start() + 1, 32, 16, 128);
        let free = |at: u128| !self.held.contains_key(&Resource::NodePort(at as u16));
        let port = draw(&all, band, free).ok_or(Problem::PortsFull)? as u16;
        self.held.insert(Resource::NodePort(port), owner.clone());
        Ok(port)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> impl Iterator<Item = (&Resource, &Owner)> {
        self.held.iter()
    }

    /// Frees one, if the owner holds it.
    pub(super) fn give_back(&mut self, resource: Resource, owner: &Owner) {
        if self.held.get(&resource) == Some(owner) {
            self.held.remove(&resource);
        }
    }
}

/// Numbers at a range's beginning that are drawn last, because people choose them by hand (KEP-3070, KEP-3668).
fn static_band(size: u128, share: u128, least: u128, most: u128) -> u128 {
    if size <= least {
        0
    } else {
        (size / share).clamp(least, most)
    }
}

/// A random free number above the band, else the lowest free one in it.
fn draw(all: &RangeInclusive<u128>, band: u128, free: impl Fn(u128) -> bool) -> Option<u128> {
    let (low, high) = (all.start() + band, *all.end());
    if low <= high {
        let start = rand::rng().random_range(low..=high);
        let found = (start..=high).chain(low..start).find(|at| free(*at));
        if found.is_some() {
            return found;
        }
    }
    (*all.start()..low.min(high + 1)).find(|at| free(*at))
}

/// Offsets that may be handed out: not the network's own address, nor IPv4's broadcast address.
fn usable(range: IpNetwork) -> RangeInclusive<u128> {
    let bits = if range.is_ipv6() { 128 } else { 32 } - u32::from(range.prefix());
    let size = if bits >= 20 {
        MOST_ADDRESSES
    } else {
        1 << bits
    };
    let last = size - 1 - u128::from(!range.is_ipv6() && bits < 20);
    1..=last.max(1)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn offset(range: IpNetwork, address: IpAddr) -> Option<u128> {
    bits(address).checked_sub(bits(range.network()))
}

fn address(range: IpNetwork, offset: u128) -> IpAddr {
    let bits = bits(range.network()) + offset;
    match range.is_ipv6() {
        true => Ipv6Addr::from(bits).into(),
        false => Ipv4Addr::from(bits as u32).into(),
    }
}

/// The first address of a range, which the `kubernetes` Service holds.
pub(crate) fn first_address(range: IpNetwork) -> IpAddr {
    address(range, 1)
}
