//! How many pods per second the pure core decides: `cargo run --release -p sluice-scheduler --example throughput`.

use std::{sync::Arc, time::Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use sluice_scheduler::{
    engine::{Decision, Engine},
    node::NodeSpec,
    pod::PodInfo,
};

fn main() {
    for nodes in [3, 100, 1000, 5000] {
        measure(nodes, 10_000);
    }
}

fn measure(nodes: usize, pods: usize) {
    let now = tokio::time::Instant::now();
    let mut engine = Engine::new(1);
    for i in 0..nodes {
        let name = format!("node-{i}");
        engine.node(&name, node(i), now);
    }
    for i in 0..pods {
        engine.pending(pod(i), now);
    }
    let start = Instant::now();
    let mut bound = 0;
    while let Some(decision) = engine.step(now) {
        bound += usize::from(matches!(decision, Decision::Bind { .. }));
    }
    let rate = pods as f64 / start.elapsed().as_secs_f64();
    println!("{nodes:>5} nodes, {pods} pods: {bound} bound, {rate:.0} pods/s");
}

fn node(i: usize) -> NodeSpec {
    let node: Node = serde_json::from_value(json!({
        "metadata": {"labels": {"topology.kubernetes.io/zone": format!("zone-{}", i % 3)}},
        "status": {"allocatable": {"cpu": "5000", "memory": "10Ti", "pods": "5000"}},
    }))
    .expect("a valid node");
    NodeSpec::new(&node).expect("valid quantities")
}

fn pod(i: usize) -> Arc<PodInfo> {
    let owner = format!("owner-{}", i % 100);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": i.to_string(), "uid": i.to_string(), "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true},
        ]},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]},
    }))
    .expect("a valid pod");
    Arc::new(PodInfo::new(&pod).expect("valid quantities"))
}
