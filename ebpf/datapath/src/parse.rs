//! From bytes to a tuple.

use sluice_common::{Be16, Ipv4, Ipv6, Tuple, proto};

use crate::address::Address;
use crate::headers::{
    ETHERNET_LEN, Extension, Fragment, ICMP_PARAMETER_PROBLEM, ICMP_TIME_EXCEEDED,
    ICMP_UNREACHABLE, ICMPV6_FIRST_INFORMATIONAL, Icmp, Ipv4Header, Ipv6Header, Tcp, Udp,
};
use crate::packet::Packet;
use crate::reject::Answer;

/// Where a packet's parts are. Small, because it lives in registers: offsets that came from a map would
/// be any number to the verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Offset of the transport header; the network header is at [`ETHERNET_LEN`].
    pub l4: usize,
    /// Where the datagram ends, by its network header.
    pub end: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP's flags; 0 for others.
    pub tcp_flags: u8,
}

/// What a packet is to the datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// TCP, UDP, or an ICMP echo.
    Flow(Headers),
    /// An ICMP error; the packet it quotes begins 8 bytes behind its header.
    IcmpError(Headers),
    /// A fragment other than the first: it has no ports.
    Fragment,
    /// Nothing that is ever translated.
    Other,
    /// Cut short, or contradicting itself.
    Malformed,
}

/// IPv6 extension headers that are walked; more than any honest packet has.
const MAX_EXTENSIONS: usize = 6;
/// Extension headers of IPv6 (RFC 8200 section 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// The more-fragments bit and the offset of IPv4's fragment field.
const V4_OFFSET: u16 = 0x1fff;
/// The offset of the IPv6 fragment header's field.
const V6_OFFSET: u16 = 0xfff8;

/// An address family whose packets can be parsed.
pub trait Network: Answer {
    /// Parses the network header at `l3` and the transport header behind it; fills in `tuple` where
    /// the packet has one.
    fn parse<P: Packet>(packet: &P, l3: usize, tuple: &mut Tuple<Self>) -> Parsed;
}

/// Parses a frame whose Ethernet header names the family of `A`.
#[inline(always)]
pub fn frame<A: Network, P: Packet>(packet: &P, tuple: &mut Tuple<A>) -> Parsed {
    A::parse(packet, ETHERNET_LEN, tuple)
}

impl Network for Ipv4 {
    #[inline(always)]
    fn parse<P: Packet>(packet: &P, l3: usize, tuple: &mut Tuple<Self>) -> Parsed {
        let Some(header) = packet.load::<Ipv4Header>(l3) else {
            return Parsed::Malformed;
        };
        let len = usize::from(header.version_len & 0x0f) * 4;
        if header.version_len >> 4 != 4 || len < size_of::<Ipv4Header>() {
            return Parsed::Malformed;
        }
        if header.fragment.get() & V4_OFFSET != 0 {
            return Parsed::Fragment;
        }
        (tuple.src, tuple.dst) = (header.src, header.dst);
        let end = l3 as u32 + u32::from(header.total_len.get());
        let headers = Headers {
            l4: l3 + len,
            end,
            ttl: header.ttl,
            tcp_flags: 0,
        };
        transport(packet, tuple, header.protocol, headers)
    }
}

impl Network for Ipv6 {
    #[inline(always)]
    fn parse<P: Packet>(packet: &P, l3: usize, tuple: &mut Tuple<Self>) -> Parsed {
        let Some(header) = packet.load::<Ipv6Header>(l3) else {
            return Parsed::Malformed;
        };
        if header.version_flow.to_ne_bytes()[0] >> 4 != 6 {
            return Parsed::Malformed;
        }
        (tuple.src, tuple.dst) = (header.src, header.dst);
        match skip_extensions(packet, header.next_header, l3 + size_of::<Ipv6Header>()) {
            Ok((protocol, l4)) => {
                let end =
                    (l3 + size_of::<Ipv6Header>()) as u32 + u32::from(header.payload_len.get());
                let headers = Headers {
                    l4,
                    end,
                    ttl: header.hop_limit,
                    tcp_flags: 0,
                };
                transport(packet, tuple, protocol, headers)
            }
            Err(other) => other,
        }
    }
}

/// Walks extension headers from `offset`; gives the transport protocol and its offset.
#[inline(always)]
fn skip_extensions<P: Packet>(
    packet: &P,
    first: u8,
    mut offset: usize,
) -> Result<(u8, usize), Parsed> {
    let mut protocol = first;
    for _ in 0..MAX_EXTENSIONS {
        let len = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | AUTHENTICATION => {
                let Some(header) = packet.load::<Extension>(offset) else {
                    return Err(Parsed::Malformed);
                };
                let unit = if protocol == AUTHENTICATION { 4 } else { 8 };
                protocol = header.next_header;
                8 + usize::from(header.len) * unit
            }
            FRAGMENT => {
                let Some(header) = packet.load::<Fragment>(offset) else {
                    return Err(Parsed::Malformed);
                };
                if header.offset_more.get() & V6_OFFSET != 0 {
                    return Err(Parsed::Fragment);
                }
                protocol = header.next_header;
                size_of::<Fragment>()
            }
            _ => return Ok((protocol, offset)),
        };
        offset += len;
    }
    Err(Parsed::Other)
}

#[inline(always)]
fn transport<A: Address, P: Packet>(
    packet: &P,
    tuple: &mut Tuple<A>,
    protocol: u8,
    headers: Headers,
) -> Parsed {
    tuple.protocol = protocol as u32;
    let l4 = headers.l4;
    match protocol {
        proto::TCP => match packet.load::<Tcp>(l4) {
            Some(tcp) => with_ports(
                tuple,
                tcp.src,
                tcp.dst,
                Headers {
                    tcp_flags: tcp.flags,
                    ..headers
                },
            ),
            None => Parsed::Malformed,
        },
        proto::UDP => match packet.load::<Udp>(l4) {
            Some(udp) => with_ports(tuple, udp.src, udp.dst, headers),
            None => Parsed::Malformed,
        },
        _ if protocol == A::ICMP => match packet.load::<Icmp>(l4) {
            Some(icmp) => icmp_message(tuple, &icmp, headers),
            None => Parsed::Malformed,
        },
        _ => Parsed::Other,
    }
}

#[inline(always)]
fn with_ports<A>(tuple: &mut Tuple<A>, sport: Be16, dport: Be16, headers: Headers) -> Parsed {
    tuple.sport = sport;
    tuple.dport = dport;
    Parsed::Flow(headers)
}

#[inline(always)]
fn icmp_message<A: Address>(tuple: &mut Tuple<A>, icmp: &Icmp, headers: Headers) -> Parsed {
    if icmp.kind == A::ECHO_REQUEST {
        return with_ports(tuple, icmp.id, Be16(0), headers);
    }
    if icmp.kind == A::ECHO_REPLY {
        return with_ports(tuple, Be16(0), icmp.id, headers);
    }
    if is_error::<A>(icmp.kind) {
        Parsed::IcmpError(headers)
    } else {
        Parsed::Other
    }
}

/// Whether an ICMP type is an error that quotes the packet it is about.
#[inline(always)]
const fn is_error<A: Address>(kind: u8) -> bool {
    if A::IPV6 {
        kind < ICMPV6_FIRST_INFORMATIONAL
    } else {
        matches!(
            kind,
            ICMP_UNREACHABLE | ICMP_TIME_EXCEEDED | ICMP_PARAMETER_PROBLEM
        )
    }
}
