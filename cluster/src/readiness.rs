//! Waiting for nodes and pods, with a display of how far they are and, in the end, of what keeps them.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::layout::{Layout, Machine, NODES};
use crate::parts::NODE_PARTS;
use crate::progress::Step;
use crate::{logs, spawn};

const TIMEOUT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);

/// Waits until every node is ready.
pub async fn nodes(layout: &Layout, client: &Client) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let step = Step::begin("nodes ready");
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let nodes = api.list(&ListParams::default()).await?.items;
        let ready = nodes.iter().filter(|node| node_is_ready(node)).count();
        step.message(format!("{ready} of {NODES}"));
        if ready == usize::from(NODES) {
            step.done(&format!("{ready} of {NODES}"));
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{}", explain_nodes(layout, &nodes));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Waits until every pod of the cluster is ready.
pub async fn pods(layout: &Layout, client: &Client) -> Result<()> {
    let api: Api<Pod> = Api::all(client.clone());
    let wanted = wanted_pods(client).await?;
    let step = Step::begin("pods ready");
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let pods = api.list(&ListParams::default()).await?.items;
        let ready = pods.iter().filter(|pod| pod_is_ready(pod)).count();
        let all = pods.len().max(wanted);
        step.message(format!("{ready} of {all}"));
        if ready == all {
            step.done(&format!("{ready} of {all}"));
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{}", explain_pods(layout, client, &pods).await);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Pods that the Deployments ask for; they may not exist yet.
async fn wanted_pods(client: &Client) -> Result<usize> {
    use k8s_openapi::api::apps::v1::Deployment;
    let api: Api<Deployment> = Api::all(client.clone());
    let replicas = |deployment: &Deployment| {
        deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1)
    };
    let deployments = api.list(&ListParams::default()).await?.items;
    let total: i32 = deployments.iter().map(replicas).sum();
    Ok(usize::try_from(total).unwrap_or(0))
}

/// Whether the node's condition says so.
pub fn node_is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the pod's condition says so.
pub fn pod_is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn explain_nodes(layout: &Layout, nodes: &[Node]) -> String {
    let mut lines = vec![format!(
        "the nodes are not ready after {} s",
        TIMEOUT.as_secs()
    )];
    for machine in Machine::nodes() {
        let name = machine.name();
        match nodes.iter().find(|node| node.name_any() == name) {
            Some(node) if node_is_ready(node) => continue,
            Some(node) => lines.push(format!("{name}: {}", unready_reason(node))),
            None => lines.push(format!("{name}: has not registered")),
        }
        lines.push(suspects(layout, machine));
    }
    lines.join("\n")
}

fn unready_reason(node: &Node) -> String {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready");
    let message = ready.and_then(|condition| condition.message.clone());
    message.unwrap_or_else(|| "has no Ready condition".into())
}

/// The dead process's log, or the kubelet's when all are alive.
fn suspects(layout: &Layout, machine: Machine) -> String {
    let dead = |part: &&str| spawn::pid_file(layout, machine, part).running().is_none();
    let part = NODE_PARTS.into_iter().find(|part| dead(part));
    let note = part.map_or_else(String::new, |part| format!("{part} has ended; "));
    format!(
        "{note}{}",
        logs::tail(&spawn::log(layout, machine, part.unwrap_or("kubelet")), 8)
    )
}

async fn explain_pods(layout: &Layout, client: &Client, pods: &[Pod]) -> String {
    let mut lines = vec![format!(
        "the pods are not ready after {} s",
        TIMEOUT.as_secs()
    )];
    let waiting = pods.iter().filter(|pod| !pod_is_ready(pod));
    for pod in waiting.take(5) {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let name = pod.name_any();
        lines.push(format!(
            "{name} on {}: {}",
            node.unwrap_or("no node"),
            waiting_reason(pod)
        ));
        lines.extend(events_of(client, pod).await);
    }
    lines.extend(Machine::nodes().map(|machine| suspects(layout, machine)));
    lines.join("\n")
}

fn waiting_reason(pod: &Pod) -> String {
    let Some(status) = &pod.status else {
        return "has no status".into();
    };
    let containers = status.container_statuses.iter().flatten();
    let mut states = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let waiting = states.next().map(|state| {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{} {}", part(&state.reason), part(&state.message))
    });
    waiting.or_else(|| status.phase.clone()).unwrap_or_default()
}

async fn events_of(client: &Client, pod: &Pod) -> Vec<String> {
    let api: Api<Event> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let selector = format!("involvedObject.name={}", pod.name_any());
    let listed = api.list(&ListParams::default().fields(&selector)).await;
    let events = listed.map(|list| list.items).unwrap_or_default();
    let text = |event: &Event| {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("    {}: {}", part(&event.reason), part(&event.message))
    };
    events.iter().rev().take(3).map(text).collect()
}
