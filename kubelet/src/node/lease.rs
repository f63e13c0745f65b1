//! The node's Lease in `kube-node-lease`: the heartbeat that node controllers watch.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio_util::sync::CancellationToken;

/// Namespace of all nodes' Leases.
const NAMESPACE: &str = "kube-node-lease";
/// Pause after a failed try.
const RETRY: Duration = Duration::from_millis(500);

/// Renews the Lease of `node` every `interval` until `stop`.
pub async fn renew(
    client: kube::Client,
    node: &str,
    seconds: i32,
    interval: Duration,
    stop: CancellationToken,
) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let nodes: Api<Node> = Api::all(client);
    let forever = async {
        let mut known = None;
        loop {
            // As long as it works, one request a heartbeat: the answer holds the next resourceVersion.
            let pause = match beat(&leases, &nodes, node, seconds, known.take()).await {
                Ok(lease) => {
                    known = Some(lease);
                    interval
                }
                Err(error) => {
                    tracing::warn!(%error, "the node's lease was not renewed; trying again");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    stop.run_until_cancelled(forever).await;
}

async fn beat(
    leases: &Api<Lease>,
    nodes: &Api<Node>,
    name: &str,
    seconds: i32,
    known: Option<Lease>,
) -> Result<Lease, kube::Error> {
    let existing = match known {
        Some(lease) => Some(lease),
        None => leases.get_opt(name).await?,
    };
    let Some(mut lease) = existing else {
        let owner = nodes.get_opt(name).await?.and_then(owner);
        let metadata = ObjectMeta {
            name: Some(name.into()),
            owner_references: owner,
            ..Default::default()
        };
        let lease = Lease {
            metadata,
            spec: Some(spec(name, seconds)),
        };
        return leases.create(&PostParams::default(), &lease).await;
    };
    if lease.metadata.owner_references.is_none() {
        lease.metadata.owner_references = nodes.get_opt(name).await?.and_then(owner);
    }
    lease.spec = Some(spec(name, seconds));
    leases.replace(name, &PostParams::default(), &lease).await
}

fn spec(name: &str, seconds: i32) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(name.into()),
        lease_duration_seconds: Some(seconds),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..Default::default()
    }
}

/// The Lease goes with its Node.
fn owner(node: Node) -> Option<Vec<OwnerReference>> {
    let (name, uid) = (node.metadata.name?, node.metadata.uid?);
    Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name,
        uid,
        ..Default::default()
    }])
}
