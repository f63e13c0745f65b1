//! Addresses and ports as they stand on the wire.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A port (or any 16-bit field) in network order: the in-memory bytes are the wire's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Be16(pub u16);

impl Be16 {
    /// From a number in the machine's order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// The number in the machine's order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// An IPv4 address; the word's in-memory bytes are the wire's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Ipv4(pub u32);

impl From<Ipv4Addr> for Ipv4 {
    #[inline(always)]
    fn from(addr: Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(addr.octets()))
    }
}

impl From<Ipv4> for Ipv4Addr {
    #[inline(always)]
    fn from(addr: Ipv4) -> Self {
        Self::from(addr.0.to_ne_bytes())
    }
}

/// An IPv6 address; the words' in-memory bytes are the wire's bytes. IPv4 is held as
/// IPv4-mapped (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2) where one type serves both families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Ipv6(pub [u32; 4]);

impl Ipv6 {
    const MAPPED: u32 = 0xffff_u32.to_be();

    /// The IPv4-mapped form of `addr`.
    #[inline(always)]
    pub const fn mapped(addr: Ipv4) -> Self {
        Self([0, 0, Self::MAPPED, addr.0])
    }

    /// The IPv4 address inside, when this is IPv4-mapped.
    #[inline(always)]
    pub const fn to_mapped_v4(self) -> Option<Ipv4> {
        if self.is_mapped_v4() {
            Some(self.low_v4())
        } else {
            None
        }
    }

    /// Whether this is an IPv4-mapped address.
    #[inline(always)]
    pub const fn is_mapped_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == Self::MAPPED
    }

    /// The last 32 bits: the IPv4 address of an address known to be IPv4-mapped.
    #[inline(always)]
    pub const fn low_v4(self) -> Ipv4 {
        Ipv4(self.0[3])
    }

    /// As an address of the family it stands for.
    pub fn to_ip(self) -> IpAddr {
        match self.to_mapped_v4() {
            Some(v4) => IpAddr::V4(v4.into()),
            None => IpAddr::V6(self.into()),
        }
    }
}

impl From<Ipv6Addr> for Ipv6 {
    #[inline(always)]
    fn from(addr: Ipv6Addr) -> Self {
        let o = addr.octets();
        let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Ipv6> for Ipv6Addr {
    fn from(addr: Ipv6) -> Self {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(addr.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Self::from(octets)
    }
}

impl From<IpAddr> for Ipv6 {
    /// IPv4 becomes IPv4-mapped.
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => Self::mapped(v4.into()),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_holds_the_bytes_of_the_wire() {
        assert_eq!(Be16::new(0x1f90).0.to_ne_bytes(), [0x1f, 0x90]);
        assert_eq!(
            Ipv4::from(Ipv4Addr::new(10, 0, 0, 1)).0.to_ne_bytes(),
            [10, 0, 0, 1]
        );
    }

    #[test]
    fn addresses_survive_the_round_trip_in_both_families() {
        for text in ["10.96.0.1", "fd00:10:96::1", "::1", "0.0.0.0"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Ipv6::from(ip).to_ip(), ip);
        }
    }
}
