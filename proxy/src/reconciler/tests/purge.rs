//! UDP flows leave with their backend; others stay.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Instant;

use serde_json::json;
use sluice_common::{Be16, Flow, Tuple, flow_flags, proto};

use super::{empty, plans};
use crate::maps::{
    AffinityEntry, Counter, DropReason, FlowEntry, MapError, Observe, ServiceCounter,
};
use crate::reconciler::{GoneBackend, purge};
use crate::testing::{Event, happen, planner, service, slice};

struct Flows(RefCell<Vec<FlowEntry>>);

impl Observe for Flows {
    fn drops(&self) -> Result<Vec<(DropReason, Counter)>, MapError> {
        Ok(Vec::new())
    }
    fn service_counter(&self, _: u32) -> Result<ServiceCounter, MapError> {
        Ok(ServiceCounter::default())
    }
    fn backend_counter(&self, _: u32) -> Result<ServiceCounter, MapError> {
        Ok(ServiceCounter::default())
    }
    fn flows(&self) -> Result<Vec<FlowEntry>, MapError> {
        Ok(self.0.borrow().clone())
    }
    fn affinities(&self) -> Result<Vec<AffinityEntry>, MapError> {
        Ok(Vec::new())
    }
    fn delete_flow(&self, key: &Tuple<IpAddr>) -> Result<(), MapError> {
        self.0.borrow_mut().retain(|entry| entry.key != *key);
        Ok(())
    }
}

const CLIENT: &str = "198.18.0.100";
const NODE: &str = "198.18.0.11";

/// A flow's two entries: client to node port, and backend to client.
fn flow(protocol: u8, client_port: u16, backend_id: u32, backend: &str) -> [FlowEntry; 2] {
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let tuple = |src, sport, dst, dport| Tuple {
        src: ip(src),
        dst: ip(dst),
        sport: Be16::new(sport),
        dport: Be16::new(dport),
        protocol: protocol.into(),
    };
    let entry = |key: Tuple<IpAddr>, to: Tuple<IpAddr>, flags| FlowEntry {
        key,
        flow: Flow {
            src: to.src,
            dst: to.dst,
            sport: to.sport,
            dport: to.dport,
            flags,
            state: 0,
            last_seen: 0,
            lifetime: 0,
            created: 0,
            backend_id,
            service_id: 1,
        },
    };
    let (arrives, leaves) = (
        tuple(CLIENT, client_port, NODE, 30_053),
        tuple(CLIENT, client_port, backend, 53),
    );
    [
        entry(arrives, leaves, 0),
        entry(leaves.reversed(), arrives.reversed(), flow_flags::REVERSE),
    ]
}

#[test]
fn both_directions_of_a_gone_backends_udp_flows_go_and_nothing_else() {
    let table = [
        flow(proto::UDP, 1000, 7, "10.244.0.7"),
        flow(proto::UDP, 1001, 8, "10.244.0.8"),
        flow(proto::TCP, 1002, 7, "10.244.0.7"),
        // The id has been given to another backend since.
        flow(proto::UDP, 1003, 7, "10.244.0.77"),
    ];
    let flows = Flows(RefCell::new(table.concat()));
    let gone = GoneBackend {
        id: 7,
        addr: "10.244.0.7".parse().unwrap(),
        port: 53,
    };
    assert_eq!(purge(&flows, &[gone]).unwrap(), 2);
    let mut left: Vec<_> = flows.0.borrow().iter().map(|entry| entry.key).collect();
    let mut expected: Vec<_> = table[1..].concat().iter().map(|entry| entry.key).collect();
    left.sort_unstable();
    expected.sort_unstable();
    assert_eq!(left, expected);
}

#[test]
fn a_udp_backend_that_leaves_is_reported_and_a_tcp_one_is_not() {
    for (protocol, expected) in [("UDP", 1), ("TCP", 0)] {
        let (mut planner, mut reconciler) = (planner(), empty());
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 53, "protocol": protocol}]});
        happen(&mut planner, &Event::Set(service("dns", &spec)));
        for endpoints in [
            json!([{"addresses": ["10.244.0.7"]}]),
            json!([{"addresses": ["10.244.0.8"]}]),
        ] {
            let mut slice = slice("dns-1", "dns", &endpoints);
            slice["ports"][0]["protocol"] = json!(protocol);
            happen(&mut planner, &Event::Set(slice));
            let report = reconciler.apply(&plans(&mut planner), Instant::now());
            let first = endpoints[0]["addresses"][0] == "10.244.0.7";
            let gone: Vec<_> = report
                .gone
                .iter()
                .map(|backend| backend.addr.to_string())
                .collect();
            assert_eq!(
                gone.len(),
                if first { 0 } else { expected },
                "{protocol}: {gone:?}"
            );
        }
    }
}
