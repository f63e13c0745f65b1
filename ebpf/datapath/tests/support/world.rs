//! Tables in memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;

use sluice_common::{
    AffinityKey, AffinityValue, Backend, Cidr, Config, DropReason, Flow, Frontend, FrontendKey,
    Ipv4, Ipv6, Ticks, Timeouts, Tuple,
};
use sluice_datapath::tables::{Frontends, Inserted, Services, Step, Tables, World};
use sluice_datapath::uplink::{Route, Router};

/// The tables of one family.
pub struct FamilyTables<A> {
    pub frontends: HashMap<FrontendKey<A>, Frontend>,
    pub flows: RefCell<HashMap<Tuple<A>, Flow<A>>>,
    /// Exact addresses only.
    pub cidrs: HashMap<A, Cidr>,
}

impl<A> Default for FamilyTables<A> {
    fn default() -> Self {
        Self {
            frontends: HashMap::new(),
            flows: RefCell::default(),
            cidrs: HashMap::new(),
        }
    }
}

/// A node, as the datapath sees it.
pub struct Node {
    pub v4: FamilyTables<Ipv4>,
    pub v6: FamilyTables<Ipv6>,
    pub backends: HashMap<u32, Backend>,
    pub slots: Vec<u32>,
    pub maglev: Vec<u32>,
    pub affinity: RefCell<HashMap<AffinityKey, AffinityValue>>,
    pub config: Config,
    pub now: Cell<Ticks>,
    pub random: Cell<u64>,
    pub route: Route,
    pub drops: RefCell<Vec<DropReason>>,
    pub connections: Cell<u32>,
    /// Flows that each table takes.
    pub room: usize,
}

impl Node {
    pub fn new() -> Self {
        let timeouts = Timeouts {
            tcp_new: 10,
            tcp_established: 1000,
            tcp_closing: 5,
            other_new: 10,
            other_established: 100,
        };
        let v6: std::net::Ipv6Addr = "fd00::1".parse().expect("an address");
        let config = Config {
            netns_cookie: 1,
            flags: sluice_common::config_flags::MASQUERADE,
            node_v4: std::net::Ipv4Addr::new(198, 18, 0, 11).into(),
            node_v6: v6.into(),
            snat_port_min: 61000,
            snat_port_max: 61999,
            timeouts,
        };
        Self {
            v4: FamilyTables::default(),
            v6: FamilyTables::default(),
            backends: HashMap::new(),
            slots: Vec::new(),
            maglev: Vec::new(),
            affinity: RefCell::default(),
            config,
            now: Cell::new(1_000_000),
            random: Cell::new(7),
            route: Route::Via {
                ifindex: 2,
                src: [1, 2, 3],
                dst: [4, 5, 6],
            },
            drops: RefCell::default(),
            connections: Cell::new(0),
            room: usize::MAX,
        }
    }
}

impl World for Node {
    fn now(&self) -> Ticks {
        self.now.get()
    }
    fn random(&self) -> u32 {
        let next = self
            .random
            .get()
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.random.set(next);
        (next >> 32) as u32
    }
    fn config(&self) -> &Config {
        &self.config
    }
    fn count_drop(&self, reason: DropReason, _bytes: u32) {
        self.drops.borrow_mut().push(reason);
    }
    fn count_connection(&self, _service_id: u32, _backend_id: u32) {
        self.connections.set(self.connections.get() + 1);
    }
    fn count_packet(&self, _service_id: u32, _backend_id: u32, _bytes: u32) {}
    fn count_refused(&self, _service_id: u32) {}
    fn repeat<S: Step<Self>>(&self, times: u32, step: &mut S) {
        for _ in 0..times {
            if step.step(self) {
                return;
            }
        }
    }
}

impl Services for Node {
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(&id)
    }
    fn slot(&self, index: u32) -> Option<u32> {
        self.slots.get(index as usize).copied()
    }
    fn maglev(&self, index: u32) -> Option<u32> {
        self.maglev.get(index as usize).copied()
    }
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityValue> {
        self.affinity.borrow().get(key).copied()
    }
    fn put_affinity(&self, key: &AffinityKey, value: &AffinityValue) {
        self.affinity.borrow_mut().insert(*key, *value);
    }
}

/// Picks the tables of a family.
pub trait Side: Sized + Eq + Hash + Copy + 'static {
    fn of(node: &Node) -> &FamilyTables<Self>;
    fn of_mut(node: &mut Node) -> &mut FamilyTables<Self>;
}

impl Side for Ipv4 {
    fn of(node: &Node) -> &FamilyTables<Self> {
        &node.v4
    }
    fn of_mut(node: &mut Node) -> &mut FamilyTables<Self> {
        &mut node.v4
    }
}

impl Side for Ipv6 {
    fn of(node: &Node) -> &FamilyTables<Self> {
        &node.v6
    }
    fn of_mut(node: &mut Node) -> &mut FamilyTables<Self> {
        &mut node.v6
    }
}

impl<A: Side> Frontends<A> for Node {
    fn frontend(&self, key: &FrontendKey<A>) -> Option<&Frontend> {
        A::of(self).frontends.get(key)
    }
}

impl<A: Side> Tables<A> for Node {
    fn with_flow<R>(&self, key: &Tuple<A>, f: impl FnOnce(&mut Flow<A>) -> R) -> Option<R> {
        A::of(self).flows.borrow_mut().get_mut(key).map(f)
    }
    fn insert_flow(&self, key: &Tuple<A>, flow: &Flow<A>) -> Inserted {
        let mut flows = A::of(self).flows.borrow_mut();
        if flows.contains_key(key) {
            return Inserted::Exists;
        }
        if flows.len() >= self.room {
            return Inserted::Full;
        }
        flows.insert(*key, *flow);
        Inserted::New
    }
    fn put_flow(&self, key: &Tuple<A>, flow: &Flow<A>) -> bool {
        let mut flows = A::of(self).flows.borrow_mut();
        if flows.len() >= self.room && !flows.contains_key(key) {
            return false;
        }
        flows.insert(*key, *flow);
        true
    }
    fn delete_flow(&self, key: &Tuple<A>) {
        A::of(self).flows.borrow_mut().remove(key);
    }
    fn cidr(&self, addr: A) -> Cidr {
        A::of(self).cidrs.get(&addr).copied().unwrap_or(0)
    }
    fn allowed_source(&self, _service_id: u32, _client: A) -> bool {
        false
    }
}

impl<A> Router<A> for Node {
    fn route(&self, _src: A, _dst: A) -> Route {
        self.route
    }
}
