//! The Nodes: this one's pod CIDRs become the allocator's pools, the others' become routes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Source;
use super::install::Conflist;
use super::service::Service;
use crate::links::routes::{Table, Way};

/// What routing needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Topology {
    /// This node's addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// All routes of ours, but those to single pods.
    pub(super) routes: Table,
}

/// What we read of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    cidrs: Vec<IpNetwork>,
    /// The first InternalIP of each family.
    addresses: Vec<IpAddr>,
    network_available: bool,
}

impl Facts {
    fn read(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let listed = spec
            .and_then(|spec| spec.pod_cidrs.clone())
            .unwrap_or_default();
        let single = spec.and_then(|spec| spec.pod_cidr.clone());
        let texts = if listed.is_empty() {
            single.into_iter().collect()
        } else {
            listed
        };
        let status = node.status.as_ref();
        let conditions = status
            .and_then(|status| status.conditions.as_ref())
            .into_iter()
            .flatten();
        Self {
            cidrs: texts
                .iter()
                .filter_map(|text| parse_cidr(node, text))
                .collect(),
            addresses: internal_addresses(node),
            network_available: conditions.into_iter().any(|condition| {
                condition.type_ == "NetworkUnavailable" && condition.status == "False"
            }),
        }
    }
}

fn parse_cidr(node: &Node, text: &str) -> Option<IpNetwork> {
    let parsed = text.parse::<IpNetwork>();
    let warn = |error: &ipnetwork::IpNetworkError| {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        tracing::warn!(node = name, field = "spec.podCIDRs", value = text, %error, "ignored");
    };
    let cidr = parsed.inspect_err(warn).ok()?;
    IpNetwork::new(cidr.network(), cidr.prefix()).ok()
}

fn internal_addresses(node: &Node) -> Vec<IpAddr> {
    let all = node
        .status
        .as_ref()
        .and_then(|status| status.addresses.as_ref());
    let internal = all
        .into_iter()
        .flatten()
        .filter(|address| address.type_ == "InternalIP");
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in internal.filter_map(|address| address.address.parse::<IpAddr>().ok()) {
        if addresses
            .iter()
            .all(|other| other.is_ipv4() != address.is_ipv4())
        {
            addresses.push(address);
        }
    }
    addresses
}

/// The routes that follow from all Nodes.
fn topology(nodes: &BTreeMap<String, Facts>, own: &str) -> Topology {
    let mut topology = Topology::default();
    for (name, facts) in nodes {
        for cidr in &facts.cidrs {
            let gateway = facts
                .addresses
                .iter()
                .find(|address| address.is_ipv4() == cidr.is_ipv4());
            let way = match gateway {
                _ if name == own => Way::Unreachable,
                Some(gateway) => Way::Through(*gateway),
                None => continue,
            };
            topology.routes.insert(*cidr, way);
        }
    }
    if let Some(facts) = nodes.get(own) {
        topology.addresses.clone_from(&facts.addresses);
    }
    topology
}

pub(super) async fn run(
    source: Source,
    service: Arc<Service>,
    conflist: Conflist,
    sender: watch::Sender<Option<Topology>>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let follower = Follower {
        service,
        conflist,
        sender,
    };
    follower.resume()?;
    match source {
        Source::Fixed(cidrs) => {
            let facts = Facts {
                cidrs,
                ..Facts::default()
            };
            follower.adopt(&facts).await?;
            follower.publish(&BTreeMap::from([(String::new(), facts)]), "");
            cancel.cancelled().await;
            Ok(())
        }
        Source::Kubernetes { client, node } => {
            let watching = follow(&follower, Api::all(client), &node);
            tokio::select! {
                ended = watching => ended,
                () = cancel.cancelled() => Ok(()),
            }
        }
    }
}

struct Follower {
    service: Arc<Service>,
    conflist: Conflist,
    sender: watch::Sender<Option<Topology>>,
}

impl Follower {
    /// A successor serves at once with the pools that are on disk, whether or not the API server answers.
    fn resume(&self) -> anyhow::Result<()> {
        match self
            .service
            .allocator
            .usage()
            .iter()
            .any(|pool| pool.active)
        {
            true => self.announce(),
            false => Ok(()),
        }
    }

    fn announce(&self) -> anyhow::Result<()> {
        self.conflist
            .write()
            .context("cannot write the CNI configuration")
    }

    /// Makes the node's CIDRs the pools. A Node that lost its CIDRs keeps those it had.
    async fn adopt(&self, facts: &Facts) -> anyhow::Result<()> {
        if facts.cidrs.is_empty() {
            return Ok(());
        }
        let (service, cidrs) = (self.service.clone(), facts.cidrs.clone());
        let set = tokio::task::spawn_blocking(move || service.allocator.set_pools(&cidrs));
        set.await?.context("cannot set the address pools")?;
        self.announce()
    }

    fn publish(&self, nodes: &BTreeMap<String, Facts>, own: &str) {
        let topology = Some(topology(nodes, own));
        self.sender.send_if_modified(|current| {
            let changed = *current != topology;
            *current = topology;
            changed
        });
    }
}

/// All Nodes as the watch tells of them. Nothing is published before the first list is complete: a route
/// must not go because its Node was not yet heard of.
async fn follow(follower: &Follower, api: Api<Node>, own: &str) -> anyhow::Result<()> {
    let mut stream =
        std::pin::pin!(watcher(api.clone(), watcher::Config::default()).default_backoff());
    let mut nodes = BTreeMap::new();
    let mut listed = BTreeMap::new();
    let mut settled = false;
    loop {
        match stream.try_next().await {
            Ok(Some(watcher::Event::Init)) => listed.clear(),
            Ok(Some(watcher::Event::InitApply(node))) => insert(&mut listed, &node),
            Ok(Some(watcher::Event::InitDone)) => {
                nodes = std::mem::take(&mut listed);
                settled = refresh(follower, &api, &nodes, own).await;
            }
            Ok(Some(watcher::Event::Apply(node))) if changes(&nodes, &node) || !settled => {
                insert(&mut nodes, &node);
                settled = refresh(follower, &api, &nodes, own).await;
            }
            Ok(Some(watcher::Event::Apply(_))) => {}
            Ok(Some(watcher::Event::Delete(node))) => {
                nodes.remove(name(&node));
                settled = refresh(follower, &api, &nodes, own).await;
            }
            Ok(None) => anyhow::bail!("the watch of Nodes ended"),
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(error, "cannot watch the Nodes, will try again");
            }
        }
    }
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

fn insert(nodes: &mut BTreeMap<String, Facts>, node: &Node) {
    nodes.insert(name(node).to_owned(), Facts::read(node));
}

/// Most events are heartbeats.
fn changes(nodes: &BTreeMap<String, Facts>, node: &Node) -> bool {
    nodes.get(name(node)) != Some(&Facts::read(node))
}

/// Acts on the Nodes as they are now; false where something is left to do, which the next event of any
/// Node tries again.
async fn refresh(
    follower: &Follower,
    api: &Api<Node>,
    nodes: &BTreeMap<String, Facts>,
    own: &str,
) -> bool {
    follower.publish(nodes, own);
    let Some(facts) = nodes.get(own).filter(|facts| !facts.cidrs.is_empty()) else {
        tracing::info!(
            node = own,
            "waiting for this Node to be registered and to get its spec.podCIDRs"
        );
        return true;
    };
    if let Err(error) = follower.adopt(facts).await {
        tracing::error!(
            error = format!("{error:#}"),
            "cannot adopt the node's pod CIDRs"
        );
        return false;
    }
    facts.network_available || report_available(api, own).await
}

/// The condition that keeps pods away from nodes without a network, as cloud route controllers and other
/// network plugins set it.
async fn report_available(api: &Api<Node>, own: &str) -> bool {
    let now = k8s_openapi::jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let condition = json!({
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "SluiceIsUp",
        "message": "sluice assigns addresses and routes on this node",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    });
    let patch = json!({ "status": { "conditions": [condition] } });
    let patched = api
        .patch_status(own, &PatchParams::default(), &Patch::Strategic(patch))
        .await;
    patched
        .inspect_err(
            |error| tracing::warn!(node = own, %error, "cannot set NetworkUnavailable=False"),
        )
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: serde_json::Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    fn sample(name: &str, cidrs: &[&str], addresses: &[&str]) -> Node {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|a| json!({ "type": "InternalIP", "address": a }))
            .collect();
        node(json!({
            "metadata": { "name": name },
            "spec": { "podCIDRs": cidrs },
            "status": { "addresses": addresses },
        }))
    }

    fn of(nodes: &[Node], own: &str) -> Vec<String> {
        let mut all = BTreeMap::new();
        nodes.iter().for_each(|node| insert(&mut all, node));
        let routes = topology(&all, own).routes;
        routes
            .iter()
            .map(|(destination, way)| format!("{destination} {way}"))
            .collect()
    }

    #[test]
    fn each_cidr_goes_through_its_nodes_address_of_the_same_family() {
        let nodes = [
            sample(
                "a",
                &["10.244.0.0/24", "fd00::/64"],
                &["192.0.2.1", "2001:db8::1"],
            ),
            sample(
                "b",
                &["10.244.1.0/24", "fd00:0:0:1::/64"],
                &["192.0.2.2", "2001:db8::2", "192.0.2.9"],
            ),
            sample("c", &["10.244.2.7/24", "fd00:0:0:2::/64"], &["192.0.2.3"]),
            sample("d", &[], &["192.0.2.4"]),
        ];
        let expected = [
            "10.244.0.0/24 unreachable",
            "10.244.1.0/24 via 192.0.2.2",
            "10.244.2.0/24 via 192.0.2.3",
            "fd00::/64 unreachable",
            "fd00:0:0:1::/64 via 2001:db8::2",
        ];
        assert_eq!(of(&nodes, "a"), expected);
    }

    #[test]
    fn the_single_cidr_is_used_where_the_list_is_missing_and_nonsense_is_ignored() {
        let single =
            node(json!({ "metadata": { "name": "a" }, "spec": { "podCIDR": "10.0.0.0/24" } }));
        assert_eq!(Facts::read(&single).cidrs, ["10.0.0.0/24".parse().unwrap()]);
        let nonsense = sample("b", &["10.0.0/24", "fd00::/64"], &["host.example"]);
        assert_eq!(Facts::read(&nonsense).cidrs, ["fd00::/64".parse().unwrap()]);
        assert!(Facts::read(&nonsense).addresses.is_empty());
    }

    #[test]
    fn heartbeats_change_nothing() {
        let quiet = sample("a", &["10.0.0.0/24"], &["192.0.2.1"]);
        let mut nodes = BTreeMap::new();
        insert(&mut nodes, &quiet);
        let mut beat = quiet.clone();
        beat.metadata.resource_version = Some("2".into());
        assert!(!changes(&nodes, &beat));
        assert!(changes(
            &nodes,
            &sample("a", &["10.0.0.0/24"], &["192.0.2.8"])
        ));
    }
}
