//! Packet logic with no kernel in it, generic over maps and packet access.
//!
//! The programs in `ebpf/programs` are thin shells over this crate: they bring a [`packet::Packet`]
//! (XDP's or the `sk_buff`'s) and the [`tables`] (BPF maps), and carry out the verdict. On the host
//! the same functions run over byte slices and hash maps, so that they are unit-tested,
//! property-tested and fuzzed without a kernel.
//!
//! - [`socket`]: connections of this node's sockets, translated before the first packet exists.
//! - [`uplink`]: what comes in from outside ([`uplink::ingress`]) and what leaves
//!   ([`uplink::egress`]).
//! - [`flow`], [`service`], [`nat`], [`parse`], [`checksum`]: the parts they are made of.
//!
//! Written for the verifier as much as for the reader: loops have constant bounds, offsets small
//! ranges, and the hot path (a known flow) is one table lookup.
#![no_std]

pub mod address;
pub mod checksum;
pub mod flow;
pub mod headers;
pub mod nat;
pub mod packet;
pub mod parse;
pub mod reject;
pub mod service;
pub mod socket;
pub mod tables;
pub mod uplink;
pub mod work;
