//! Working memory.

use sluice_common::{Flow, FrontendKey, Tuple};

/// What a packet's run keeps at hand.
///
/// The kernel's stack for programs has 512 bytes, which two IPv6 flows with their keys nearly fill. So
/// these live in a per-CPU map; the shells bring them, and tests make them.
#[derive(Clone, Copy, Debug)]
pub struct Work<A> {
    /// The packet's tuple, as it came.
    pub tuple: Tuple<A>,
    /// The flow it belongs to.
    pub flow: Flow<A>,
    /// The key of the flow's other entry.
    pub(crate) twin_key: Tuple<A>,
    /// The flow's other entry.
    pub(crate) twin: Flow<A>,
    /// The key under which the frontend was looked up.
    pub(crate) frontend_key: FrontendKey<A>,
    /// The key of a former flow whose source port is taken.
    pub(crate) former: Tuple<A>,
    /// Where the search for a source port goes on: kept from one packet to the next, so that the ports
    /// tried first are those whose last use is longest ago.
    pub(crate) next_port: u32,
}
