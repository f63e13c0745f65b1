//! The node's Lease in `kube-node-lease`: the heartbeat that node controllers watch.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Namespace of all nodes' Leases.
const NAMESPACE: &str = "kube-node-lease";
/// Pause after a failed try.
const RETRY: Duration = Duration::from_millis(500);

/// Limit of one try: a request over a connection that a cut network has killed would wait for minutes.
const LIMIT: Duration = Duration::from_secs(5);

/// How a Lease is kept.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Name of the node.
    pub node: String,
    /// Seconds after which it has run out.
    pub seconds: i32,
    /// Time between renewals.
    pub interval: Duration,
}

/// Renews the Lease until `stop`. `reconnected` counts how often the API server was reached again after it was not.
pub async fn renew(
    client: kube::Client,
    settings: LeaseSettings,
    reconnected: watch::Sender<u64>,
    stop: CancellationToken,
) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let nodes: Api<Node> = Api::all(client);
    let forever = async {
        let (mut known, mut lost) = (None, false);
        loop {
            // As long as it works, one request a heartbeat: the answer holds the next resourceVersion.
            let beat = beat(&leases, &nodes, &settings, known.take());
            let result = tokio::time::timeout(LIMIT, beat).await;
            let pause = match result {
                Ok(Ok(lease)) => {
                    known = Some(lease);
                    if std::mem::take(&mut lost) {
                        reconnected.send_modify(|count| *count += 1);
                    }
                    settings.interval
                }
                Ok(Err(error)) => {
                    lost |= !matches!(error, kube::Error::Api(_));
                    tracing::warn!(%error, "the node's lease was not renewed; trying again");
                    RETRY
                }
                Err(_) => {
                    lost = true;
                    tracing::warn!("the API server does not answer; trying again");
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
    settings: &LeaseSettings,
    known: Option<Lease>,
) -> Result<Lease, kube::Error> {
    let (name, seconds) = (settings.node.as_str(), settings.seconds);
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
