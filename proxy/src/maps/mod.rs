//! The dataplane's tables as the agent sees them.
//!
//! The reconciler writes through [`Tables`] and knows no kernel: [`fake::FakeMaps`] keeps the same
//! tables in memory and watches the laws of ordering, [`faulty::Faulty`] makes any of them fail now
//! and then, and [`kernel::KernelMaps`] is the real, pinned thing. What only looks (metrics, the
//! `list` commands) reads through [`Observe`].
//!
//! The order that never exposes a half-written service: backends, then a fresh range, then the
//! frontend's value (one atomic update), and what it used before is reused only after
//! [`GRACE`].

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use sluice_common as abi;

pub use abi::{Backend, Config, Counter, DropReason, Frontend, Range, ServiceCounter};

mod error;
pub mod fake;
pub mod faulty;
mod ids;
pub mod kernel;
mod key;
mod mapped;
mod prefix;
mod quarantine;
mod ranges;
pub(crate) mod sys;

pub use error::MapError;
pub use ids::IdAllocator;
pub use key::{FrontendKey, Protocol};
pub use quarantine::Quarantine;
pub use ranges::RangeAllocator;

/// How long after a frontend's update a program may still read what the old value pointed at.
/// Programs end within microseconds; this is generous.
pub const GRACE: Duration = Duration::from_secs(1);

/// A number of entries per table. Tables of both families have this size each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Frontends, per family.
    pub frontends: u32,
    /// Services (ids below this number).
    pub services: u32,
    /// Backends (ids below this number).
    pub backends: u32,
    /// Backends whose traffic is counted one by one (ids below this number; the lowest are used
    /// first). Counters are per CPU, so each costs 32 bytes a CPU.
    pub counted_backends: u32,
    /// Entries of the shared array that internal ranges lie in.
    pub slots: u32,
    /// Entries of the shared array that external ranges lie in.
    pub maglev: u32,
    /// Flow entries, per family; a translated flow has two.
    pub flows: u32,
    /// Clients of services with session affinity.
    pub affinity: u32,
    /// Prefixes for masquerade, per family.
    pub cidrs: u32,
    /// Source ranges, per family.
    pub source_ranges: u32,
}

impl Default for Capacity {
    /// What a node with 4 GiB gets.
    fn default() -> Self {
        Self::for_memory(4 << 30)
    }
}

impl Capacity {
    /// Sizes for a node with `bytes` of memory: at 4 GiB some 110 MB in all, at 8 GiB and above twice
    /// that, which holds 250,000 endpoints and half a million flow entries per family. Frontends,
    /// prefixes and names take memory for what is in use; the other tables theirs at once.
    pub fn for_memory(bytes: u64) -> Self {
        let of_4gib = (bytes as f64 / (4u64 << 30) as f64).clamp(0.125, 2.0);
        let scale = |n: u32| ((f64::from(n) * of_4gib) as u32).next_power_of_two();
        Self {
            frontends: scale(1 << 17).max(1 << 16),
            services: 1 << 16,
            backends: scale(1 << 18).max(1 << 17),
            counted_backends: scale(1 << 16).max(1 << 14),
            slots: scale(1 << 20).max(1 << 18),
            maglev: scale(1 << 21),
            flows: scale(1 << 18),
            affinity: scale(1 << 16),
            cidrs: 1 << 12,
            source_ranges: 1 << 16,
        }
    }
}

/// The two shared arrays that ranges lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pool {
    /// [`abi::Frontend::internal`] ranges.
    Slots,
    /// [`abi::Frontend::external`] ranges.
    Maglev,
}

/// What the reconciler writes. Every operation takes effect whole or not at all; an error means that
/// nothing was changed. Reads are what the kernel holds, so that a restarted agent finds everything.
pub trait Tables {
    /// The sizes that the tables really have.
    fn capacity(&self) -> Capacity;

    /// All frontends of both families, in no order.
    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError>;
    /// Adds or replaces a frontend, atomically.
    fn put_frontend(&mut self, key: &FrontendKey, value: &Frontend) -> Result<(), MapError>;
    /// Removes a frontend; one that is not there is no error.
    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), MapError>;

    /// All backends in use (not all zero), by ascending id.
    fn backends(&self) -> Result<Vec<(u32, Backend)>, MapError>;
    /// Writes the backend `id` (from 1). [`Backend::default`] frees it.
    fn put_backend(&mut self, id: u32, value: &Backend) -> Result<(), MapError>;

    /// The backend ids in a range.
    fn read_range(&self, pool: Pool, range: Range) -> Result<Vec<u32>, MapError>;
    /// Writes backend ids from `offset` on.
    fn write_range(&mut self, pool: Pool, offset: u32, ids: &[u32]) -> Result<(), MapError>;

    /// All prefixes that matter for masquerade, with their [`abi::cidr_flags`], in no order.
    fn cidrs(&self) -> Result<Vec<(IpNetwork, u32)>, MapError>;
    /// Adds or replaces a prefix. The longest matching prefix alone decides, so a prefix inside
    /// another one carries all flags that hold for it.
    fn put_cidr(&mut self, network: IpNetwork, flags: u32) -> Result<(), MapError>;
    /// Removes a prefix; one that is not there is no error.
    fn delete_cidr(&mut self, network: IpNetwork) -> Result<(), MapError>;

    /// All networks from which services with [`abi::frontend_flags::SOURCE_RANGES`] may be reached.
    fn source_ranges(&self) -> Result<Vec<(u32, IpNetwork)>, MapError>;
    /// Adds a network for a service.
    fn put_source_range(&mut self, service_id: u32, network: IpNetwork) -> Result<(), MapError>;
    /// Removes a network of a service; one that is not there is no error.
    fn delete_source_range(&mut self, service_id: u32, network: IpNetwork) -> Result<(), MapError>;

    /// The node's configuration.
    fn config(&self) -> Result<Config, MapError>;
    /// Replaces the node's configuration. Programs may see a mix of old and new for an instant.
    fn put_config(&mut self, config: &Config) -> Result<(), MapError>;

    /// Sets a service's counters to zero, before its id is used for another one.
    fn reset_service_counter(&mut self, service_id: u32) -> Result<(), MapError>;
    /// Sets a backend's counters to zero, before its id is used for another one.
    fn reset_backend_counter(&mut self, backend_id: u32) -> Result<(), MapError>;

    /// The names of the services by id, for display.
    fn names(&self) -> Result<Vec<(u32, String)>, MapError>;
    /// Names a service, as `namespace/name:port`.
    fn put_name(&mut self, service_id: u32, name: &str) -> Result<(), MapError>;
    /// Forgets a service's name; one that is not there is no error.
    fn delete_name(&mut self, service_id: u32) -> Result<(), MapError>;
}

/// A flow as the datapath holds it; one of the two entries of a translated flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEntry {
    /// The packet's addresses and ports as it arrives.
    pub key: abi::Tuple<IpAddr>,
    /// The translation and its state.
    pub flow: abi::Flow<IpAddr>,
}

/// One client's session affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityEntry {
    /// Who keeps its backend, of which service.
    pub key: abi::AffinityKey,
    /// Which backend, and since when unused.
    pub value: abi::AffinityValue,
}

/// What metrics and the `list` commands read. Values move while they are read.
pub trait Observe {
    /// Drops and refusals by reason, summed over the CPUs.
    fn drops(&self) -> Result<Vec<(DropReason, Counter)>, MapError>;
    /// A service's counters, summed over the CPUs.
    fn service_counter(&self, service_id: u32) -> Result<ServiceCounter, MapError>;
    /// A backend's counters, summed over the CPUs; zero for one that is not counted by itself.
    fn backend_counter(&self, backend_id: u32) -> Result<ServiceCounter, MapError>;
    /// All flow entries of both families.
    fn flows(&self) -> Result<Vec<FlowEntry>, MapError>;
    /// All session affinities.
    fn affinities(&self) -> Result<Vec<AffinityEntry>, MapError>;
    /// Ends a flow: removes this entry.
    fn delete_flow(&self, key: &abi::Tuple<IpAddr>) -> Result<(), MapError>;
}
