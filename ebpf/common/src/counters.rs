//! What the programs count, per CPU.

use crate::plain::plain;

/// An element of `drops`, at the index of its [`DropReason`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Packets (or system calls, for socket hooks).
    pub packets: u64,
    /// Bytes on the wire; 0 for socket hooks.
    pub bytes: u64,
}

/// An element of `service_counters` and `backend_counters`, at the index of the id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceCounter {
    /// New flows, or connections made by sockets.
    pub connections: u64,
    /// Translated packets; sockets translate none.
    pub packets: u64,
    /// Bytes of translated packets.
    pub bytes: u64,
    /// Refused or dropped.
    pub refused: u64,
}

plain! {
    Counter = 16,
    ServiceCounter = 32,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal;)+) => {
        /// Why a packet (or a system call) did not go on as it was asked to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum DropReason { $($(#[doc = $doc])+ $name = $number,)+ }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// A short name for tables and metrics' labels.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }
        }
    };
}

reasons! {
    /// The service has no endpoint: refused with RST, ICMP unreachable or ECONNREFUSED.
    NoEndpoints = 0, "no-endpoints";
    /// The policy is Local and all endpoints are elsewhere: dropped silently.
    NoLocalEndpoints = 1, "no-local-endpoints";
    /// A port of a service's address that no service has: refused.
    NoSuchPort = 2, "no-such-port";
    /// A slot names no backend: the agent and the maps disagree.
    StaleBackend = 3, "stale-backend";
    /// The client is in none of the service's source ranges.
    SourceRange = 4, "source-range";
    /// No source port was free for the translation.
    NoSourcePort = 5, "no-source-port";
    /// The flow table took no new entry.
    FlowTableFull = 6, "flow-table-full";
    /// The node has no address of the family to translate to.
    NoNodeAddress = 7, "no-node-address";
    /// A header is cut short or contradicts itself.
    Malformed = 8, "malformed";
    /// A packet's TTL or hop limit has run out.
    TtlExceeded = 9, "ttl-exceeded";
    /// The kernel's routing table has no way to the destination.
    NoRoute = 10, "no-route";
    /// The packet could not be rewritten.
    RewriteFailed = 11, "rewrite-failed";
    /// A later fragment whose first one was not seen.
    UnknownFragment = 12, "unknown-fragment";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_without_gaps() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }
}
