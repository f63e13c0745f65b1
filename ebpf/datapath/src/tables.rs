//! How packet logic reaches the maps and the world.

use sluice_common::{
    AffinityKey, AffinityValue, Backend, Cidr, Config, DropReason, Flow, Frontend, FrontendKey,
    Ticks, Tuple,
};

/// Time, chance, the node's configuration and the counters.
pub trait World {
    /// Now.
    fn now(&self) -> Ticks;
    /// An evenly distributed random number.
    fn random(&self) -> u32;
    /// The node's configuration.
    fn config(&self) -> &Config;
    /// Counts a drop or a refusal.
    fn count_drop(&self, reason: DropReason, bytes: u32);
    /// Counts a flow or connection that begins.
    fn count_connection(&self, service_id: u32, backend_id: u32);
    /// Counts a translated packet.
    fn count_packet(&self, service_id: u32, backend_id: u32, bytes: u32);
    /// Counts a refusal or drop of a service.
    fn count_refused(&self, service_id: u32);

    /// Takes a step until it says that it was the last one, at most `times` times.
    ///
    /// A loop in the program would do the same, but the verifier would follow each of its rounds on
    /// every path that leads there; with the kernel's own loop it follows one.
    fn repeat<S: Step<Self>>(&self, times: u32, step: &mut S)
    where
        Self: Sized;
}

/// The body of a loop.
pub trait Step<T> {
    /// Does one round; `true`: it was the last.
    fn step(&mut self, tables: &T) -> bool;
}

/// The tables that do not depend on the address family.
pub trait Services: World {
    /// The backend of this id, if there is one.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// An entry of the array for internal traffic.
    fn slot(&self, index: u32) -> Option<u32>;
    /// An entry of the array for external traffic.
    fn maglev(&self, index: u32) -> Option<u32>;
    /// A client's session affinity.
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityValue>;
    /// Writes a client's session affinity.
    fn put_affinity(&self, key: &AffinityKey, value: &AffinityValue);
}

/// The frontends of one address family.
pub trait Frontends<A>: Services {
    /// The frontend at `key`.
    fn frontend(&self, key: &FrontendKey<A>) -> Option<&Frontend>;
}

/// The tables of one address family that packets need.
pub trait Tables<A>: Frontends<A> {
    /// Runs `f` over the flow at `key`, in place.
    fn with_flow<R>(&self, key: &Tuple<A>, f: impl FnOnce(&mut Flow<A>) -> R) -> Option<R>;
    /// Adds a flow unless the key is taken.
    fn insert_flow(&self, key: &Tuple<A>, flow: &Flow<A>) -> Inserted;
    /// Adds or replaces a flow; `false` when there was no room.
    fn put_flow(&self, key: &Tuple<A>, flow: &Flow<A>) -> bool;
    /// Removes a flow.
    fn delete_flow(&self, key: &Tuple<A>);
    /// The flags of the longest prefix that holds `addr`.
    fn cidr(&self, addr: A) -> Cidr;
    /// Whether the service may be reached from `client`.
    fn allowed_source(&self, service_id: u32, client: A) -> bool;
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there now.
    New,
    /// Another one was there before, and still is.
    Exists,
    /// The table took no more.
    Full,
}
