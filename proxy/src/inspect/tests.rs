//! What the commands show of maps that the reconciler has written.

use std::net::IpAddr;
use std::time::Instant;

use ipnetwork::IpNetwork;
use serde_json::json;
use sluice_common::{Be16, Flow, FlowState, Tuple, proto};

use super::{backends, drops, flows, services};
use crate::maps::fake::FakeMaps;
use crate::maps::{
    AffinityEntry, Backend, Capacity, Config, Counter, DropReason, FlowEntry, Frontend,
    FrontendKey, MapError, Observe, Pool, Range, ServiceCounter, Tables,
};
use crate::reconciler::Reconciler;
use crate::testing::{Event, happen, planner, service, slice};

/// Tables with counters and flows.
struct Seen(FakeMaps);

impl Observe for Seen {
    fn drops(&self) -> Result<Vec<(DropReason, Counter)>, MapError> {
        let counter = Counter {
            packets: 3,
            bytes: 180,
        };
        Ok(vec![
            (DropReason::NoEndpoints, counter),
            (DropReason::Malformed, Counter::default()),
        ])
    }
    fn service_counter(&self, _: u32) -> Result<ServiceCounter, MapError> {
        Ok(ServiceCounter {
            connections: 7,
            packets: 70,
            bytes: 7000,
            refused: 1,
        })
    }
    fn backend_counter(&self, id: u32) -> Result<ServiceCounter, MapError> {
        Ok(ServiceCounter {
            connections: u64::from(id),
            ..ServiceCounter::default()
        })
    }
    fn flows(&self) -> Result<Vec<FlowEntry>, MapError> {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let key = Tuple {
            src: ip("198.18.0.100"),
            dst: ip("198.18.0.11"),
            sport: Be16::new(4000),
            dport: Be16::new(30_080),
            protocol: proto::TCP.into(),
        };
        let flow = Flow {
            src: key.src,
            dst: ip("10.244.0.1"),
            sport: key.sport,
            dport: Be16::new(8080),
            flags: 0,
            state: FlowState::Established as u16,
            last_seen: 100,
            lifetime: 0,
            created: 50,
            backend_id: 1,
            service_id: 1,
        };
        Ok(vec![FlowEntry { key, flow }])
    }
    fn affinities(&self) -> Result<Vec<AffinityEntry>, MapError> {
        Ok(Vec::new())
    }
    fn delete_flow(&self, _: &Tuple<IpAddr>) -> Result<(), MapError> {
        Ok(())
    }
}

/// Only reads are needed; writes go to the tables inside.
impl Tables for Seen {
    fn capacity(&self) -> Capacity {
        self.0.capacity()
    }
    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        self.0.frontends()
    }
    fn put_frontend(&mut self, key: &FrontendKey, value: &Frontend) -> Result<(), MapError> {
        self.0.put_frontend(key, value)
    }
    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), MapError> {
        self.0.delete_frontend(key)
    }
    fn backends(&self) -> Result<Vec<(u32, Backend)>, MapError> {
        self.0.backends()
    }
    fn put_backend(&mut self, id: u32, value: &Backend) -> Result<(), MapError> {
        self.0.put_backend(id, value)
    }
    fn read_range(&self, pool: Pool, range: Range) -> Result<Vec<u32>, MapError> {
        self.0.read_range(pool, range)
    }
    fn write_range(&mut self, pool: Pool, offset: u32, ids: &[u32]) -> Result<(), MapError> {
        self.0.write_range(pool, offset, ids)
    }
    fn cidrs(&self) -> Result<Vec<(IpNetwork, u32)>, MapError> {
        self.0.cidrs()
    }
    fn put_cidr(&mut self, network: IpNetwork, flags: u32) -> Result<(), MapError> {
        self.0.put_cidr(network, flags)
    }
    fn delete_cidr(&mut self, network: IpNetwork) -> Result<(), MapError> {
        self.0.delete_cidr(network)
    }
    fn source_ranges(&self) -> Result<Vec<(u32, IpNetwork)>, MapError> {
        self.0.source_ranges()
    }
    fn put_source_range(&mut self, id: u32, network: IpNetwork) -> Result<(), MapError> {
        self.0.put_source_range(id, network)
    }
    fn delete_source_range(&mut self, id: u32, network: IpNetwork) -> Result<(), MapError> {
        self.0.delete_source_range(id, network)
    }
    fn config(&self) -> Result<Config, MapError> {
        self.0.config()
    }
    fn put_config(&mut self, config: &Config) -> Result<(), MapError> {
        self.0.put_config(config)
    }
    fn reset_service_counter(&mut self, id: u32) -> Result<(), MapError> {
        self.0.reset_service_counter(id)
    }
    fn reset_backend_counter(&mut self, id: u32) -> Result<(), MapError> {
        self.0.reset_backend_counter(id)
    }
    fn names(&self) -> Result<Vec<(u32, String)>, MapError> {
        self.0.names()
    }
    fn put_name(&mut self, id: u32, name: &str) -> Result<(), MapError> {
        self.0.put_name(id, name)
    }
    fn delete_name(&mut self, id: u32) -> Result<(), MapError> {
        self.0.delete_name(id)
    }
}

fn seen() -> Seen {
    let mut planner = planner();
    let spec = json!({
        "clusterIP": "10.96.0.1",
        "externalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP",
        "ports": [{"name": "http", "port": 80, "nodePort": 30_080}],
    });
    let endpoints = json!([
        {"addresses": ["10.244.0.1"], "nodeName": "node1"},
        {"addresses": ["10.244.0.2"], "nodeName": "node2"},
    ]);
    happen(&mut planner, &Event::Set(service("web", &spec)));
    happen(&mut planner, &Event::Set(slice("web-1", "web", &endpoints)));
    let mut reconciler = Reconciler::restore(FakeMaps::new(Capacity::default())).unwrap();
    let plans: Vec<_> = planner
        .drain()
        .into_iter()
        .map(|change| change.plan)
        .collect();
    reconciler.apply(&plans, Instant::now());
    Seen(reconciler.tables().clone())
}

#[test]
fn services_show_their_frontends_backends_and_counters() {
    let rows = services::list(&seen()).unwrap();
    let frontends: Vec<_> = rows
        .iter()
        .map(|row| (row.frontend.to_string(), row.kind))
        .collect();
    assert_eq!(
        frontends,
        [
            ("10.96.0.1:80".to_owned(), "ClusterIP"),
            ("127.0.0.1:30080".to_owned(), "NodePort"),
            ("198.18.0.11:30080".to_owned(), "NodePort"),
        ]
    );
    let node_port = &rows[2];
    assert_eq!(node_port.service, "default/web:http/TCP/IPv4");
    assert_eq!((node_port.internal.len(), node_port.external.len()), (2, 1));
    assert_eq!(
        (node_port.affinity_seconds, node_port.connections),
        (10_800, 7)
    );
    assert_eq!(node_port.options, ["external-local"]);
    let table = services::render(&rows);
    let lines: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .collect();
    assert_eq!(
        lines[0][..5],
        ["SERVICE", "FRONTEND", "KIND", "BACKENDS", "OUTSIDE"]
    );
    assert_eq!(
        lines[1][1..6],
        ["10.96.0.1:80/TCP", "ClusterIP", "2", "-", "10800s"]
    );
    assert_eq!(
        lines[3][1..5],
        ["198.18.0.11:30080/TCP", "NodePort", "2", "1"]
    );
}

#[test]
fn backends_show_where_they_are_and_whom_they_serve() {
    let rows = backends::list(&seen(), None).unwrap();
    let takes: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.address.to_string(),
                row.local,
                row.internal,
                row.external,
            )
        })
        .collect();
    assert_eq!(
        takes,
        [
            ("10.244.0.1:8080".to_owned(), true, true, true),
            ("10.244.0.2:8080".to_owned(), false, true, false)
        ]
    );
    assert!(
        backends::render(&rows)
            .lines()
            .nth(2)
            .unwrap()
            .contains("other   inside")
    );
    assert_eq!(
        backends::list(&seen(), Some("default/web")).unwrap().len(),
        2
    );
    assert!(backends::list(&seen(), Some("other")).unwrap().is_empty());
}

#[test]
fn flows_show_both_tuples_and_their_age() {
    let rows = flows::list(&seen(), 200).unwrap();
    let table = flows::render(&rows);
    let cells: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        cells,
        [
            "TCP",
            "198.18.0.100:4000",
            "198.18.0.11:30080",
            "198.18.0.100:4000",
            "10.244.0.1:8080",
            "forward",
            "established",
            "20s",
            "13s",
            "default/web:http/TCP/IPv4",
        ]
    );
}

#[test]
fn drops_are_counted_by_reason_and_print_as_json() {
    let rows = drops::list(&seen()).unwrap();
    let json = serde_json::to_value(&rows).unwrap();
    assert_eq!(
        json[0],
        json!({"reason": "no-endpoints", "packets": 3, "bytes": 180})
    );
    assert!(drops::render(&rows).contains("no-endpoints   3         180"));
}
