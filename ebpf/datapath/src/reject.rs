//! Answers that are built from the packet they answer: TCP resets and ICMP errors.

use sluice_common::{Be16, Ipv4, Ipv6, Plain, Tuple, proto};

use crate::address::Address;
use crate::checksum::fold;
use crate::headers::{
    ETHERNET_LEN, Ethernet, ICMP_TIME_EXCEEDED, ICMP_UNREACHABLE, ICMPV6_TIME_EXCEEDED,
    ICMPV6_UNREACHABLE, Icmp, Ipv4Header, Ipv6Header, Tcp,
    tcp_flags::{ACK, FIN, RST, SYN},
};
use crate::packet::Packet;
use crate::parse::Headers;

/// A packet that can grow at its head and change its end.
pub trait Resize: Packet {
    /// Whether packets at this hook can be turned into answers at all. Where not, who refuses a packet
    /// leaves it to the stack, which answers for its own addresses.
    const ANSWERS: bool;

    /// Adds bytes before the first one; offsets count from there afterwards.
    fn grow_head(&mut self, bytes: usize) -> Option<()>;
    /// Makes the packet this long, cutting its end.
    fn truncate(&mut self, len: usize) -> Option<()>;
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody listens at that port.
    PortUnreachable,
    /// The TTL or hop limit has run out.
    HopsExceeded,
}

/// TTL and hop limit of packets that are made here.
const TTL: u8 = 64;
/// What building answers needs to know of a family.
pub trait Answer: Address {
    /// Length of the network header that is written.
    const HEADER_LEN: usize;
    /// What an error quotes: the network header and the 8 bytes behind it, which hold the ports and
    /// which every host must be content with (RFC 792).
    type Quoted: Plain;
    /// Writes a network header at [`ETHERNET_LEN`] for `payload` bytes.
    fn write_header<P: Packet>(
        packet: &mut P,
        src: Self,
        dst: Self,
        protocol: u8,
        payload: u16,
    ) -> Option<()>;
    /// The ICMP type and code.
    fn icmp_code(refusal: Refusal) -> (u8, u8);
    /// The sum of the address's words.
    fn sum(self) -> u64;
    /// The sum of the quotation's words.
    fn words(quoted: Self::Quoted) -> u64;
}

impl Answer for Ipv4 {
    const HEADER_LEN: usize = size_of::<Ipv4Header>();
    type Quoted = [u32; 7];

    #[inline(always)]
    fn write_header<P: Packet>(
        packet: &mut P,
        src: Self,
        dst: Self,
        protocol: u8,
        payload: u16,
    ) -> Option<()> {
        let mut header = Ipv4Header {
            version_len: 0x45,
            tos: 0,
            total_len: Be16::new(payload + Self::HEADER_LEN as u16),
            id: Be16(0),
            fragment: Be16::new(0x4000),
            ttl: TTL,
            protocol,
            checksum: 0,
            src,
            dst,
        };
        let pair = |a: u8, b: u8| u16::from_ne_bytes([a, b]) as u64;
        let sum = pair(header.version_len, header.tos)
            + header.total_len.0 as u64
            + header.fragment.0 as u64
            + pair(header.ttl, header.protocol)
            + src.sum()
            + dst.sum();
        header.checksum = !fold(sum);
        packet.store(ETHERNET_LEN, header)
    }

    #[inline(always)]
    fn icmp_code(refusal: Refusal) -> (u8, u8) {
        match refusal {
            Refusal::PortUnreachable => (ICMP_UNREACHABLE, 3),
            Refusal::HopsExceeded => (ICMP_TIME_EXCEEDED, 0),
        }
    }

    #[inline(always)]
    fn sum(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn words(quoted: Self::Quoted) -> u64 {
        sum_words(&quoted)
    }
}

impl Answer for Ipv6 {
    const HEADER_LEN: usize = size_of::<Ipv6Header>();
    type Quoted = [u32; 12];

    #[inline(always)]
    fn write_header<P: Packet>(
        packet: &mut P,
        src: Self,
        dst: Self,
        protocol: u8,
        payload: u16,
    ) -> Option<()> {
        let header = Ipv6Header {
            version_flow: u32::from_ne_bytes([0x60, 0, 0, 0]),
            payload_len: Be16::new(payload),
            next_header: protocol,
            hop_limit: TTL,
            src,
            dst,
        };
        packet.store(ETHERNET_LEN, header)
    }

    #[inline(always)]
    fn icmp_code(refusal: Refusal) -> (u8, u8) {
        match refusal {
            Refusal::PortUnreachable => (ICMPV6_UNREACHABLE, 4),
            Refusal::HopsExceeded => (ICMPV6_TIME_EXCEEDED, 0),
        }
    }

    #[inline(always)]
    fn sum(self) -> u64 {
        sum_words(&self.0)
    }

    #[inline(always)]
    fn words(quoted: Self::Quoted) -> u64 {
        sum_words(&quoted)
    }
}

#[inline(always)]
fn sum_words(words: &[u32]) -> u64 {
    words.iter().map(|word| *word as u64).sum()
}

/// Sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
#[inline(always)]
fn pseudo_sum<A: Answer>(src: A, dst: A, protocol: u8, len: u16) -> u64 {
    src.sum() + dst.sum() + (protocol as u16).to_be() as u64 + len.to_be() as u64
}

/// Turns a TCP segment into the reset that answers it (RFC 9293 section 3.10.7.1).
#[inline(always)]
pub fn reset<A: Answer, P: Resize>(
    packet: &mut P,
    headers: Headers,
    tuple: &Tuple<A>,
) -> Option<()> {
    const LEN: u16 = size_of::<Tcp>() as u16;
    let segment: Tcp = packet.load(headers.l4)?;
    if segment.flags & RST != 0 {
        return None;
    }
    let (seq, ack, flags) = reset_numbers(&segment, payload_len(headers, &segment));
    let (src, dst) = (tuple.dst, tuple.src);
    turn_around(packet)?;
    packet.truncate(ETHERNET_LEN + A::HEADER_LEN + LEN as usize)?;
    A::write_header(packet, src, dst, proto::TCP, LEN)?;
    let mut tcp = Tcp {
        src: segment.dst,
        dst: segment.src,
        seq,
        ack,
        offset: 5 << 4,
        flags,
        window: 0,
        checksum: 0,
        urgent: 0,
    };
    let sum = pseudo_sum(src, dst, proto::TCP, LEN)
        + tcp.src.0 as u64
        + tcp.dst.0 as u64
        + tcp.seq as u64
        + tcp.ack as u64
        + u16::from_ne_bytes([tcp.offset, tcp.flags]) as u64;
    tcp.checksum = !fold(sum);
    packet.store(ETHERNET_LEN + A::HEADER_LEN, tcp)
}

/// Sequence number, acknowledgement number and flags of the reset.
#[inline(always)]
const fn reset_numbers(segment: &Tcp, payload: u32) -> (u32, u32, u8) {
    if segment.flags & ACK != 0 {
        return (segment.ack, 0, RST);
    }
    let controls = (segment.flags & SYN != 0) as u32 + (segment.flags & FIN != 0) as u32;
    let end = u32::from_be(segment.seq)
        .wrapping_add(payload)
        .wrapping_add(controls);
    (0, end.to_be(), RST | ACK)
}

/// Bytes of data in the segment. Ethernet's padding of short frames does not count, but then a
/// segment without an acknowledgement carries no data in practice.
#[inline(always)]
const fn payload_len(headers: Headers, segment: &Tcp) -> u32 {
    let begin = headers.l4 as u32 + (segment.offset >> 4) as u32 * 4;
    headers.end.saturating_sub(begin)
}

/// Sends the frame back to who sent it.
#[inline(always)]
fn turn_around<P: Packet>(packet: &mut P) -> Option<()> {
    let ethernet: Ethernet = packet.load(0)?;
    packet.store(
        0,
        Ethernet {
            dst: ethernet.src,
            src: ethernet.dst,
            ..ethernet
        },
    )
}

/// Turns a packet into the ICMP error from `src` that is about it.
///
/// The new headers go before the packet: their last bytes take the place of its Ethernet header, and
/// its network header with 8 bytes more stay as the quotation.
#[inline(always)]
pub fn icmp<A: Answer, P: Resize>(
    packet: &mut P,
    tuple: &Tuple<A>,
    src: A,
    refusal: Refusal,
) -> Option<()> {
    const ICMP_LEN: usize = size_of::<Icmp>();
    let quoted = size_of::<A::Quoted>();
    let ethernet: Ethernet = packet.load(0)?;
    packet.truncate(ETHERNET_LEN + quoted)?;
    packet.grow_head(A::HEADER_LEN + ICMP_LEN)?;
    packet.store(
        0,
        Ethernet {
            dst: ethernet.src,
            src: ethernet.dst,
            ..ethernet
        },
    )?;
    let (dst, payload) = (tuple.src, (ICMP_LEN + quoted) as u16);
    A::write_header(packet, src, dst, A::ICMP, payload)?;
    let l4 = ETHERNET_LEN + A::HEADER_LEN;
    let (kind, code) = A::icmp_code(refusal);
    let mut sum = u16::from_ne_bytes([kind, code]) as u64;
    sum += A::words(packet.load(l4 + ICMP_LEN)?);
    if A::IPV6 {
        sum += pseudo_sum(src, dst, A::ICMP, payload);
    }
    packet.store(
        l4,
        Icmp {
            kind,
            code,
            checksum: !fold(sum),
            id: Be16(0),
            sequence: Be16(0),
        },
    )
}
