//! Rewriting a packet from one tuple to another.

use sluice_common::{Be16, Flow, Tuple, proto};

use crate::address::Address;
use crate::checksum::Diff;
use crate::headers::{ETHERNET_LEN, Ports};
use crate::packet::{ChecksumChange, Packet};
use crate::parse::Headers;

const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;
const ICMP_ID: usize = 4;

/// Makes a packet of tuple `old` one of the tuple that `new` says, checksums included. `None` when it
/// ends too early, which parsing has ruled out.
#[inline(always)]
pub fn rewrite<A: Address, P: Packet>(
    packet: &mut P,
    headers: Headers,
    old: &Tuple<A>,
    new: &Flow<A>,
) -> Option<()> {
    let addresses = old.src.diff(new.src).and(old.dst.diff(new.dst));
    let ports = Diff::NONE
        .half(old.sport.0, new.sport.0)
        .half(old.dport.0, new.dport.0);
    let change = ChecksumChange {
        pseudo: addresses,
        header: ports,
        zero_is_none: false,
        ipv6: A::IPV6,
    };
    A::store_addresses(packet, ETHERNET_LEN, (new.src, new.dst), addresses)?;
    match old.protocol as u8 {
        proto::TCP => {
            store_ports(packet, headers.l4, new)?;
            packet.fix_checksum(headers.l4 + TCP_CHECKSUM, change)
        }
        proto::UDP => {
            store_ports(packet, headers.l4, new)?;
            let change = ChecksumChange {
                zero_is_none: true,
                ..change
            };
            packet.fix_checksum(headers.l4 + UDP_CHECKSUM, change)
        }
        _ => rewrite_echo(packet, headers.l4, new, change),
    }
}

#[inline(always)]
fn store_ports<A: Address, P: Packet>(packet: &mut P, l4: usize, new: &Flow<A>) -> Option<()> {
    packet.store(
        l4,
        Ports {
            src: new.sport,
            dst: new.dport,
        },
    )
}

/// An echo's identifier is the one port that is not 0. ICMPv4's checksum has no pseudo-header.
#[inline(always)]
fn rewrite_echo<A: Address, P: Packet>(
    packet: &mut P,
    l4: usize,
    new: &Flow<A>,
    change: ChecksumChange,
) -> Option<()> {
    packet.store(l4 + ICMP_ID, Be16(new.sport.0 | new.dport.0))?;
    let pseudo = if A::IPV6 { change.pseudo } else { Diff::NONE };
    packet.fix_checksum(l4 + ICMP_CHECKSUM, ChecksumChange { pseudo, ..change })
}
