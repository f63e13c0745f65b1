//! No single write exposes half a service: the invariants are checked after every one of them.

use std::collections::BTreeMap;
use std::time::Instant;

use ipnetwork::IpNetwork;
use serde_json::json;

use super::{plans, small};
use crate::maps::fake::FakeMaps;
use crate::maps::{
    Backend, Capacity, Config, Frontend, FrontendKey, GRACE, MapError, Pool, Range, Tables,
};
use crate::reconciler::Reconciler;
use crate::testing::{Event, happen, planner, service, slice};

/// Looks at the tables as a packet would after every write: each frontend's ranges lead to backends
/// that are in use, belong to its service and are eligible.
struct Watched {
    inner: FakeMaps,
    log: Vec<&'static str>,
    /// Frontends cannot be written.
    stuck: bool,
}

impl Watched {
    fn check(&mut self, operation: &'static str) {
        self.log.push(operation);
        let backends: BTreeMap<u32, Backend> = self.inner.backends().unwrap().into_iter().collect();
        for (key, value) in self.inner.frontends().unwrap() {
            for (pool, range, bit) in [
                (Pool::Slots, value.internal, 2),
                (Pool::Maglev, value.external, 4),
            ] {
                for id in self.inner.read_range(pool, range).unwrap() {
                    let backend = backends
                        .get(&id)
                        .unwrap_or_else(|| panic!("{key} leads to nothing after {operation}"));
                    assert_eq!(
                        backend.service_id, value.service_id,
                        "{key} after {operation}"
                    );
                    assert_ne!(
                        backend.flags & bit,
                        0,
                        "{key} leads to one not eligible after {operation}"
                    );
                }
            }
        }
        assert_eq!(self.inner.violations(), Vec::<String>::new());
    }
}

macro_rules! watched {
    ($($name:ident($($arg:ident: $ty:ty),*);)+) => {$(
        fn $name(&mut self, $($arg: $ty),*) -> Result<(), MapError> {
            self.inner.$name($($arg),*)?;
            self.check(stringify!($name));
            Ok(())
        }
    )+};
}

impl Tables for Watched {
    watched! {
        delete_frontend(key: &FrontendKey);
        put_backend(id: u32, value: &Backend);
        write_range(pool: Pool, offset: u32, ids: &[u32]);
        put_cidr(network: IpNetwork, flags: u32);
        delete_cidr(network: IpNetwork);
        put_source_range(service_id: u32, network: IpNetwork);
        delete_source_range(service_id: u32, network: IpNetwork);
        put_config(config: &Config);
        reset_service_counter(service_id: u32);
        reset_backend_counter(backend_id: u32);
        put_name(service_id: u32, name: &str);
        delete_name(service_id: u32);
    }
    fn put_frontend(&mut self, key: &FrontendKey, value: &Frontend) -> Result<(), MapError> {
        if self.stuck {
            return Err(MapError::Injected {
                operation: "put_frontend",
            });
        }
        self.inner.put_frontend(key, value)?;
        self.check("put_frontend");
        Ok(())
    }
    fn capacity(&self) -> Capacity {
        self.inner.capacity()
    }
    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        self.inner.frontends()
    }
    fn backends(&self) -> Result<Vec<(u32, Backend)>, MapError> {
        self.inner.backends()
    }
    fn read_range(&self, pool: Pool, range: Range) -> Result<Vec<u32>, MapError> {
        self.inner.read_range(pool, range)
    }
    fn cidrs(&self) -> Result<Vec<(IpNetwork, u32)>, MapError> {
        self.inner.cidrs()
    }
    fn source_ranges(&self) -> Result<Vec<(u32, IpNetwork)>, MapError> {
        self.inner.source_ranges()
    }
    fn names(&self) -> Result<Vec<(u32, String)>, MapError> {
        self.inner.names()
    }
    fn config(&self) -> Result<Config, MapError> {
        self.inner.config()
    }
}

fn watched() -> Reconciler<Watched> {
    let inner = FakeMaps::new(small());
    Reconciler::restore(Watched {
        inner,
        log: Vec::new(),
        stuck: false,
    })
    .unwrap()
}

fn web(addrs: &[&str]) -> [Event; 2] {
    let endpoints: Vec<_> = addrs
        .iter()
        .map(|addr| json!({"addresses": [addr], "nodeName": "node1"}))
        .collect();
    let spec = json!({
        "clusterIP": "10.96.0.1",
        "ports": [{"name": "http", "port": 80, "nodePort": 30_080}],
    });
    [
        Event::Set(service("web", &spec)),
        Event::Set(slice("web-1", "web", &json!(endpoints))),
    ]
}

#[test]
fn a_service_grows_shrinks_and_goes_without_a_bad_moment() {
    let (mut planner, mut reconciler) = (planner(), watched());
    let mut now = Instant::now();
    for addrs in [
        &["10.244.0.1"][..],
        &["10.244.0.1", "10.244.0.2"],
        &["10.244.0.3"],
        &[],
        &["10.244.0.2"],
    ] {
        web(addrs)
            .iter()
            .for_each(|event| happen(&mut planner, event));
        let report = reconciler.apply(&plans(&mut planner), now);
        assert!(report.failures.is_empty());
        now = super::later(now);
    }
    let [service, _] = web(&[]);
    let Event::Set(service) = service else {
        unreachable!()
    };
    happen(&mut planner, &Event::Delete(service));
    reconciler.apply(&plans(&mut planner), now);
    assert!(reconciler.tables().inner.frontends().unwrap().is_empty());
}

#[test]
fn backends_come_first_then_ranges_then_frontends() {
    let (mut planner, mut reconciler) = (planner(), watched());
    web(&["10.244.0.1", "10.244.0.2"])
        .iter()
        .for_each(|event| happen(&mut planner, event));
    reconciler.apply(&plans(&mut planner), Instant::now());
    let mut log: Vec<_> = reconciler.tables().log.clone();
    log.retain(|operation| !operation.starts_with("reset") && *operation != "put_name");
    log.dedup();
    assert_eq!(log, ["put_backend", "write_range", "put_frontend"]);
}

#[test]
fn a_key_that_changes_hands_is_never_gone() {
    let claimant = |name: &str, ip: &str, created: &str| {
        let spec = json!({"clusterIP": ip, "externalIPs": ["192.0.2.1"], "ports": [{"port": 80}]});
        let mut service = service(name, &spec);
        service["metadata"]["creationTimestamp"] = json!(created);
        service
    };
    let old = claimant("old", "10.96.0.1", "2026-01-01T00:00:00Z");
    let new = claimant("new", "10.96.0.2", "2026-01-02T00:00:00Z");
    let (mut planner, mut reconciler) = (planner(), watched());
    let now = Instant::now();
    happen(&mut planner, &Event::Set(old.clone()));
    happen(&mut planner, &Event::Set(new));
    reconciler.apply(&plans(&mut planner), now);
    let key = FrontendKey::new("192.0.2.1".parse().unwrap(), 80, crate::maps::Protocol::Tcp);
    let before = reconciler.tables().inner.frontend_map()[&key];
    reconciler.tables_mut().log.clear();
    happen(&mut planner, &Event::Delete(old));
    reconciler.apply(&plans(&mut planner), now);
    assert_ne!(
        reconciler.tables().inner.frontend_map()[&key].service_id,
        before.service_id
    );
    let log = &reconciler.tables().log;
    let put = log
        .iter()
        .position(|operation| *operation == "put_frontend");
    let deleted = log
        .iter()
        .position(|operation| *operation == "delete_frontend");
    assert!(put < deleted, "{log:?}");
}

fn places(reconciler: &Reconciler<Watched>) -> Vec<String> {
    let backends = reconciler.tables().inner.backends().unwrap();
    let mut places: Vec<_> = backends
        .iter()
        .map(|(_, backend)| backend.addr.to_ip().to_string())
        .collect();
    places.sort_unstable();
    places
}

#[test]
fn what_a_program_may_still_read_rests_before_it_is_used_again() {
    let (mut planner, mut reconciler) = (planner(), watched());
    let start = Instant::now();
    for (addr, at) in [
        ("10.244.0.1", start),
        ("10.244.0.2", start),
        ("10.244.0.3", start + GRACE / 2),
    ] {
        web(&[addr])
            .iter()
            .for_each(|event| happen(&mut planner, event));
        reconciler.apply(&plans(&mut planner), at);
    }
    assert_eq!(
        places(&reconciler),
        ["10.244.0.1", "10.244.0.2", "10.244.0.3"]
    );
    let slots = Range { offset: 0, len: 3 };
    let ids = reconciler
        .tables()
        .inner
        .read_range(Pool::Slots, slots)
        .unwrap();
    assert_eq!(ids, [1, 2, 3], "no range was written over");
    reconciler.apply(&[], start + GRACE);
    assert_eq!(places(&reconciler), ["10.244.0.2", "10.244.0.3"]);
    reconciler.apply(&[], start + 2 * GRACE);
    assert_eq!(places(&reconciler), ["10.244.0.3"]);
}

#[test]
fn a_backend_stays_for_as_long_as_a_frontend_that_cannot_be_written_leads_to_it() {
    let (mut planner, mut reconciler) = (planner(), watched());
    let mut now = Instant::now();
    web(&["10.244.0.1"])
        .iter()
        .for_each(|event| happen(&mut planner, event));
    reconciler.apply(&plans(&mut planner), now);
    reconciler.tables_mut().stuck = true;
    web(&["10.244.0.2"])
        .iter()
        .for_each(|event| happen(&mut planner, event));
    let mut changed = plans(&mut planner);
    for _ in 0..5 {
        let report = reconciler.apply(&changed, now);
        assert_eq!(report.failures.len(), 1);
        now = super::later(now);
        changed = reconciler
            .due(now)
            .iter()
            .map(|name| planner.plan(name))
            .collect();
    }
    assert_eq!(places(&reconciler), ["10.244.0.1", "10.244.0.2"]);
    reconciler.tables_mut().stuck = false;
    reconciler.apply(&changed, now);
    reconciler.apply(&[], super::later(now));
    assert_eq!(places(&reconciler), ["10.244.0.2"]);
}
