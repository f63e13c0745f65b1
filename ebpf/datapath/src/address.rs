//! What differs between IPv4 and IPv6.

use sluice_common::{Be16, Ipv4, Ipv6, Plain, proto};

use crate::checksum::Diff;
use crate::headers::{
    ETHERNET_LEN, ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, ICMPV6_ECHO_REPLY, ICMPV6_ECHO_REQUEST,
    Ipv4Header, Ipv6Header,
};
use crate::packet::Packet;

/// An address of either family, and how its packets carry it.
pub trait Address: Plain + PartialEq + Eq {
    /// Whether this is IPv6.
    const IPV6: bool;
    /// The family's ICMP.
    const ICMP: u8;
    /// The type of its echo request.
    const ECHO_REQUEST: u8;
    /// The type of its echo reply.
    const ECHO_REPLY: u8;

    /// As an IPv6 address; IPv4 as IPv4-mapped.
    fn to_v6(self) -> Ipv6;
    /// From such an address, known to be of this family.
    fn from_v6(addr: Ipv6) -> Self;
    /// The node's own address.
    fn of_node(config: &sluice_common::Config) -> Self;
    /// Whether this is the all-zero address.
    fn is_unspecified(self) -> bool;
    /// Zero if the two are the same address. No branch, unlike a comparison of several words: the
    /// verifier follows every one.
    fn differs(self, other: Self) -> u32;
    /// What replacing `self` by `new` does to a checksum.
    fn diff(self, new: Self) -> Diff;
    /// Mixed into `seed`, for balancing.
    fn hash(self, seed: u64) -> u64;

    /// Writes the addresses of the network header at `l3`, whose addresses were `old`, and keeps
    /// its checksum right where it has one. `change` is what the two replacements amount to.
    fn store_addresses<P: Packet>(
        packet: &mut P,
        l3: usize,
        new: (Self, Self),
        change: Diff,
    ) -> Option<()>;

    /// Takes one off the TTL or hop limit of the network header at `l3`, as a router does; the
    /// caller has checked that it is at least 2.
    fn decrement_ttl<P: Packet>(packet: &mut P, l3: usize) -> Option<()>;
}

/// One round of mixing, after MurmurHash3's finaliser.
#[inline(always)]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

const V4_TTL: usize = 8;
const V4_CHECKSUM: usize = 10;
const V4_SOURCE: usize = 12;
const V6_HOP_LIMIT: usize = 7;
const V6_SOURCE: usize = 8;

impl Address for Ipv4 {
    const IPV6: bool = false;
    const ICMP: u8 = proto::ICMP;
    const ECHO_REQUEST: u8 = ICMP_ECHO_REQUEST;
    const ECHO_REPLY: u8 = ICMP_ECHO_REPLY;

    #[inline(always)]
    fn to_v6(self) -> Ipv6 {
        Ipv6::mapped(self)
    }

    #[inline(always)]
    fn from_v6(addr: Ipv6) -> Self {
        addr.low_v4()
    }

    #[inline(always)]
    fn of_node(config: &sluice_common::Config) -> Self {
        config.node_v4
    }

    #[inline(always)]
    fn is_unspecified(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    fn differs(self, other: Self) -> u32 {
        self.0 ^ other.0
    }

    #[inline(always)]
    fn diff(self, new: Self) -> Diff {
        Diff::NONE.word(self.0, new.0)
    }

    #[inline(always)]
    fn hash(self, seed: u64) -> u64 {
        mix(seed ^ self.0 as u64)
    }

    #[inline(always)]
    fn store_addresses<P: Packet>(
        packet: &mut P,
        l3: usize,
        new: (Self, Self),
        change: Diff,
    ) -> Option<()> {
        let checksum: u16 = packet.load(l3 + V4_CHECKSUM)?;
        packet.store(l3 + V4_CHECKSUM, change.apply(checksum))?;
        packet.store(l3 + V4_SOURCE, new.0)?;
        packet.store(l3 + V4_SOURCE + 4, new.1)
    }

    #[inline(always)]
    fn decrement_ttl<P: Packet>(packet: &mut P, l3: usize) -> Option<()> {
        let header: Ipv4Header = packet.load(l3)?;
        let word = |ttl| u16::from_ne_bytes([ttl, header.protocol]);
        let ttl = header.ttl.wrapping_sub(1);
        let checksum = Diff::NONE
            .half(word(header.ttl), word(ttl))
            .apply(header.checksum);
        packet.store(l3 + V4_TTL, ttl)?;
        packet.store(l3 + V4_CHECKSUM, checksum)
    }
}

impl Address for Ipv6 {
    const IPV6: bool = true;
    const ICMP: u8 = proto::ICMPV6;
    const ECHO_REQUEST: u8 = ICMPV6_ECHO_REQUEST;
    const ECHO_REPLY: u8 = ICMPV6_ECHO_REPLY;

    #[inline(always)]
    fn to_v6(self) -> Ipv6 {
        self
    }

    #[inline(always)]
    fn from_v6(addr: Ipv6) -> Self {
        addr
    }

    #[inline(always)]
    fn of_node(config: &sluice_common::Config) -> Self {
        config.node_v6
    }

    #[inline(always)]
    fn is_unspecified(self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    #[inline(always)]
    fn differs(self, other: Self) -> u32 {
        let word = |i: usize| self.0[i] ^ other.0[i];
        word(0) | word(1) | word(2) | word(3)
    }

    #[inline(always)]
    fn diff(self, new: Self) -> Diff {
        Diff::NONE
            .word(self.0[0], new.0[0])
            .word(self.0[1], new.0[1])
            .word(self.0[2], new.0[2])
            .word(self.0[3], new.0[3])
    }

    #[inline(always)]
    fn hash(self, seed: u64) -> u64 {
        let pair = |high: u32, low: u32| ((high as u64) << 32) | low as u64;
        mix(mix(seed ^ pair(self.0[0], self.0[1])) ^ pair(self.0[2], self.0[3]))
    }

    #[inline(always)]
    fn store_addresses<P: Packet>(
        packet: &mut P,
        l3: usize,
        new: (Self, Self),
        _change: Diff,
    ) -> Option<()> {
        packet.store(l3 + V6_SOURCE, new.0)?;
        packet.store(l3 + V6_SOURCE + 16, new.1)
    }

    #[inline(always)]
    fn decrement_ttl<P: Packet>(packet: &mut P, l3: usize) -> Option<()> {
        let header: Ipv6Header = packet.load(l3)?;
        packet.store(l3 + V6_HOP_LIMIT, header.hop_limit.wrapping_sub(1))
    }
}

/// The family of the packet's network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 at [`ETHERNET_LEN`].
    V4,
    /// IPv6 at [`ETHERNET_LEN`].
    V6,
}

/// The family that the Ethernet header names; `None`: neither, or no whole header.
#[inline(always)]
pub fn family<P: Packet>(packet: &P) -> Option<Family> {
    let ethertype: Be16 = packet.load(ETHERNET_LEN - 2)?;
    if ethertype == crate::headers::ETHERTYPE_IPV4 {
        return Some(Family::V4);
    }
    (ethertype == crate::headers::ETHERTYPE_IPV6).then_some(Family::V6)
}
