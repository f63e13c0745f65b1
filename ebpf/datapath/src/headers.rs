//! The headers that packets are made of, as they lie on the wire.

use sluice_common::{Be16, Ipv4, Ipv6, Plain};

/// Length of an Ethernet header, which is where the network header begins.
pub const ETHERNET_LEN: usize = 14;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: Be16 = Be16::new(0x0800);
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: Be16 = Be16::new(0x86dd);

macro_rules! header {
    ($(#[$doc:meta])* $name:ident($len:literal) { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $ty,)+ }

        const _: () = assert!(size_of::<$name>() == $len && $len == 0 $(+ size_of::<$ty>())+);
        // SAFETY: repr(C) of integers; the assertion shows that there is no padding.
        unsafe impl Plain for $name {}
    };
}

header! {
    /// Ethernet II.
    Ethernet(14) {
        /// Destination, in words of memory order.
        dst: [u16; 3],
        /// Source, in words of memory order.
        src: [u16; 3],
        /// What follows.
        ethertype: Be16,
    }
}

header! {
    /// The part of an Ethernet header that routing changes.
    LinkAddresses(12) {
        /// Destination, in words of memory order.
        dst: [u16; 3],
        /// Source, in words of memory order.
        src: [u16; 3],
    }
}

header! {
    /// IPv4 without options (RFC 791).
    Ipv4Header(20) {
        /// Version (4) and header length in words.
        version_len: u8,
        /// Type of service.
        tos: u8,
        /// Length of the datagram.
        total_len: Be16,
        /// Identification, the same in all fragments.
        id: Be16,
        /// Flags and offset in units of 8 bytes.
        fragment: Be16,
        /// Time to live.
        ttl: u8,
        /// What follows.
        protocol: u8,
        /// Header checksum, in memory order.
        checksum: u16,
        /// Source.
        src: Ipv4,
        /// Destination.
        dst: Ipv4,
    }
}

header! {
    /// IPv6 (RFC 8200).
    Ipv6Header(40) {
        /// Version (6), traffic class and flow label, in memory order.
        version_flow: u32,
        /// Length of what follows.
        payload_len: Be16,
        /// What follows.
        next_header: u8,
        /// Hop limit.
        hop_limit: u8,
        /// Source.
        src: Ipv6,
        /// Destination.
        dst: Ipv6,
    }
}

header! {
    /// The ports that TCP, UDP and SCTP all begin with.
    Ports(4) {
        /// Source port.
        src: Be16,
        /// Destination port.
        dst: Be16,
    }
}

header! {
    /// UDP (RFC 768).
    Udp(8) {
        /// Source port.
        src: Be16,
        /// Destination port.
        dst: Be16,
        /// Length of header and data.
        len: Be16,
        /// Checksum, in memory order; 0 for none.
        checksum: u16,
    }
}

header! {
    /// TCP without options (RFC 9293).
    Tcp(20) {
        /// Source port.
        src: Be16,
        /// Destination port.
        dst: Be16,
        /// Sequence number, in memory order.
        seq: u32,
        /// Acknowledgement number, in memory order.
        ack: u32,
        /// Header length in words, in the upper four bits.
        offset: u8,
        /// [`tcp_flags`].
        flags: u8,
        /// Window, in memory order.
        window: u16,
        /// Checksum, in memory order.
        checksum: u16,
        /// Urgent pointer, in memory order.
        urgent: u16,
    }
}

/// Bits of [`Tcp::flags`].
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection at once.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

header! {
    /// ICMP and ICMPv6: what all messages begin with, and the word that follows.
    Icmp(8) {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Checksum, in memory order.
        checksum: u16,
        /// Identifier of an echo; the upper half of the word otherwise.
        id: Be16,
        /// Sequence number of an echo; the next hop's MTU in IPv4's "fragmentation needed".
        sequence: Be16,
    }
}

header! {
    /// What every IPv6 extension header begins with (RFC 8200 section 4).
    Extension(2) {
        /// What follows.
        next_header: u8,
        /// Length in units of 8 bytes beyond the first 8 (4 bytes beyond the first 8 for AH).
        len: u8,
    }
}

header! {
    /// The IPv6 fragment header (RFC 8200 section 4.5).
    Fragment(8) {
        /// What follows.
        next_header: u8,
        /// Zero.
        reserved: u8,
        /// Offset in units of 8 bytes in the upper 13 bits, "more" in the lowest.
        offset_more: Be16,
        /// Identification, in memory order.
        id: u32,
    }
}

/// ICMP echo request (RFC 792).
pub const ICMP_ECHO_REQUEST: u8 = 8;
/// ICMP echo reply (RFC 792).
pub const ICMP_ECHO_REPLY: u8 = 0;
/// ICMP destination unreachable.
pub const ICMP_UNREACHABLE: u8 = 3;
/// ICMP time exceeded.
pub const ICMP_TIME_EXCEEDED: u8 = 11;
/// ICMP parameter problem.
pub const ICMP_PARAMETER_PROBLEM: u8 = 12;
/// ICMPv6 messages below this type are errors (RFC 4443 section 2.1).
pub const ICMPV6_FIRST_INFORMATIONAL: u8 = 128;
/// ICMPv6 destination unreachable.
pub const ICMPV6_UNREACHABLE: u8 = 1;
/// ICMPv6 time exceeded.
pub const ICMPV6_TIME_EXCEEDED: u8 = 3;
/// ICMPv6 echo request.
pub const ICMPV6_ECHO_REQUEST: u8 = 128;
/// ICMPv6 echo reply.
pub const ICMPV6_ECHO_REPLY: u8 = 129;
