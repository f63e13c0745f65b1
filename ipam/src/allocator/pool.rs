//! One pool: a CIDR, what is reserved in it, and the order in which its addresses are handed out.

use std::collections::VecDeque;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::blocks::Slot;

/// Pools are numbered by 16 bits on disk.
pub const MAX_POOLS: usize = 1 << 16;

/// Never-used addresses go first, until this many freed ones wait: small pools are gone through
/// whole before an address returns, large ones keep their memory bounded.
const RECYCLE_FROM: usize = 1 << 14;

/// How full a pool is. Counts saturate at 2^64 - 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUsage {
    /// The pool's CIDR.
    pub cidr: IpNetwork,
    /// Whether new addresses come from it. A pool that was taken away lives on until its last
    /// address is released.
    pub active: bool,
    /// Addresses that can be handed out at all: the CIDR without what is reserved.
    pub capacity: u64,
    /// Held by an owner.
    pub used: u64,
    /// Freed, and not yet rested for the cool-down.
    pub cooling: u64,
    /// Ready to be handed out.
    pub free: u64,
}

/// A freed address and when that was, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) slot: Slot,
    pub(super) at: u32,
}

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) cidr: IpNetwork,
    pub(super) active: bool,
    /// Every offset below is touched or reserved: where the search for a fresh one starts.
    pub(super) cursor: u64,
    pub(super) freed: VecDeque<Freed>,
    pub(super) used: u64,
    /// Sorted, disjoint, inclusive.
    reserved: Vec<(u64, u64)>,
}

impl Pool {
    pub(super) fn new(cidr: IpNetwork, reserved: &[IpNetwork]) -> Self {
        Self {
            cidr,
            active: true,
            cursor: 0,
            freed: VecDeque::new(),
            used: 0,
            reserved: reserved_ranges(&cidr, reserved),
        }
    }

    /// 0 for IPv4, 1 for IPv6.
    pub(super) fn family(&self) -> usize {
        usize::from(self.cidr.is_ipv6())
    }

    /// The largest offset; of an IPv6 pool larger than /64 the first 2^64 addresses are used.
    pub(super) fn last(&self) -> u64 {
        last_offset(&self.cidr)
    }

    pub(super) fn address(&self, offset: u64) -> IpAddr {
        match self.cidr.network() {
            IpAddr::V4(base) => IpAddr::V4((u32::from(base).wrapping_add(offset as u32)).into()),
            IpAddr::V6(base) => IpAddr::V6((u128::from(base) + u128::from(offset)).into()),
        }
    }

    pub(super) fn offset(&self, address: IpAddr) -> Option<u64> {
        offset_in(&self.cidr, address)
    }

    /// The first offset at or after `from` that is not reserved, `None` past the end.
    pub(super) fn skip_reserved(&self, from: u64) -> Option<u64> {
        let after = match self.reserved_range(from) {
            Some((_, end)) => end.checked_add(1)?,
            None => from,
        };
        // Ranges are merged, so the offset after one is not in another.
        (after <= self.last()).then_some(after)
    }

    pub(super) fn is_reserved(&self, offset: u64) -> bool {
        self.reserved_range(offset).is_some()
    }

    fn reserved_range(&self, offset: u64) -> Option<(u64, u64)> {
        let after = self.reserved.partition_point(|range| range.0 <= offset);
        let range = *self.reserved.get(after.checked_sub(1)?)?;
        (offset <= range.1).then_some(range)
    }

    /// Whether enough freed addresses wait that they go before fresh ones.
    pub(super) fn prefers_recycling(&self) -> bool {
        self.freed.len() >= RECYCLE_FROM
    }

    pub(super) fn usage(&self, now: u32, cool_down: u32) -> PoolUsage {
        let reserved: u128 = self
            .reserved
            .iter()
            .map(|r| u128::from(r.1 - r.0) + 1)
            .sum();
        let capacity = saturate(u128::from(self.last()) + 1 - reserved);
        let rested = self.freed.partition_point(|f| rested(f.at, now, cool_down));
        let cooling = (self.freed.len() - rested) as u64;
        PoolUsage {
            cidr: self.cidr,
            active: self.active,
            capacity,
            used: self.used,
            cooling,
            free: capacity.saturating_sub(self.used).saturating_sub(cooling),
        }
    }
}

/// Whether an address that was freed at `at` may be handed out.
pub(super) fn rested(at: u32, now: u32, cool_down: u32) -> bool {
    now.saturating_sub(at) >= cool_down
}

fn saturate(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn last_offset(cidr: &IpNetwork) -> u64 {
    let host_bits = match cidr {
        IpNetwork::V4(_) => 32 - u32::from(cidr.prefix()),
        IpNetwork::V6(_) => 128 - u32::from(cidr.prefix()),
    };
    u64::MAX.checked_shr(64 - host_bits.min(64)).unwrap_or(0)
}

fn offset_in(cidr: &IpNetwork, address: IpAddr) -> Option<u64> {
    if !cidr.contains(address) {
        return None;
    }
    match (cidr.network(), address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            Some((u32::from(address) - u32::from(base)).into())
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            u64::try_from(u128::from(address) - u128::from(base)).ok()
        }
        _ => None,
    }
}

/// What an operator reserved in the pool, and what the protocols do: IPv4's network and broadcast
/// address (RFC 1122; not in a /31 or /32, RFC 3021), IPv6's subnet-router anycast address
/// (RFC 4291, 2.6.1; not in a /127 or /128, RFC 6164).
fn reserved_ranges(cidr: &IpNetwork, extra: &[IpNetwork]) -> Vec<(u64, u64)> {
    let last = last_offset(cidr);
    let mut ranges: Vec<(u64, u64)> = extra.iter().filter_map(|r| overlap(cidr, r)).collect();
    if last > 1 {
        ranges.push((0, 0));
        if cidr.is_ipv4() {
            ranges.push((last, last));
        }
    }
    ranges.sort_unstable();
    ranges.dedup_by(|next, range| {
        let joins = next.0 <= range.1.saturating_add(1);
        if joins {
            range.1 = range.1.max(next.1);
        }
        joins
    });
    ranges
}

/// CIDRs overlap only by containing one another.
fn overlap(cidr: &IpNetwork, part: &IpNetwork) -> Option<(u64, u64)> {
    match offset_in(cidr, part.network()) {
        Some(start) if part.prefix() >= cidr.prefix() => Some((start, start + last_offset(part))),
        _ => part
            .contains(cidr.network())
            .then(|| (0, last_offset(cidr))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cidr: &str, reserved: &[&str]) -> Pool {
        let reserved: Vec<IpNetwork> = reserved.iter().map(|r| r.parse().unwrap()).collect();
        Pool::new(cidr.parse().unwrap(), &reserved)
    }

    #[test]
    fn sizes_follow_the_prefix() {
        let last = |cidr: &str| pool(cidr, &[]).last();
        assert_eq!(last("10.0.0.0/24"), 255);
        assert_eq!(last("10.0.0.1/32"), 0);
        assert_eq!(last("0.0.0.0/0"), u64::from(u32::MAX));
        assert_eq!(last("fd00::/64"), u64::MAX);
        assert_eq!(last("fd00::/48"), u64::MAX);
        assert_eq!(last("fd00::1/128"), 0);
    }

    #[test]
    fn protocol_addresses_are_never_handed_out() {
        let v4 = pool("10.0.0.0/30", &[]);
        assert!(v4.is_reserved(0) && v4.is_reserved(3));
        assert!(!v4.is_reserved(1) && !v4.is_reserved(2));
        let v6 = pool("fd00::/126", &[]);
        assert!(v6.is_reserved(0) && !v6.is_reserved(3));
        assert!(!pool("10.0.0.0/31", &[]).is_reserved(0));
        assert!(!pool("fd00::/127", &[]).is_reserved(0));
    }

    #[test]
    fn reserved_ranges_merge_and_are_skipped_whole() {
        let pool = pool(
            "10.0.0.0/24",
            &["10.0.0.0/28", "10.0.0.16/28", "10.0.0.40/32", "10.9.0.0/16"],
        );
        assert_eq!(pool.skip_reserved(0), Some(32));
        assert_eq!(pool.skip_reserved(33), Some(33));
        assert_eq!(pool.skip_reserved(40), Some(41));
        assert_eq!(pool.skip_reserved(255), None);
        assert_eq!(pool.usage(0, 0).capacity, 256 - 32 - 1 - 1);
    }

    #[test]
    fn a_reservation_that_covers_the_pool_leaves_nothing() {
        let pool = pool("10.0.0.0/24", &["10.0.0.0/16"]);
        assert_eq!(pool.skip_reserved(0), None);
        assert_eq!(pool.usage(0, 0).free, 0);
    }
}
