//! The conditions of a pod that the kubelet owns; those of others (PodScheduled, readiness gates, ...) are kept.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{Timestamp, Unit};

use super::spec::{self, Role};
use super::status::Input;

/// Sandbox and network are there (KEP-3085).
const READY_TO_START: &str = "PodReadyToStartContainers";
const INITIALIZED: &str = "Initialized";
const READY: &str = "Ready";
const CONTAINERS_READY: &str = "ContainersReady";
const OWNED: [&str; 4] = [READY_TO_START, INITIALIZED, READY, CONTAINERS_READY];

/// A verdict and, when it is negative, why.
type Verdict = Result<(), (&'static str, String)>;

/// All conditions of the pod whose `status` is complete but for them.
pub fn generate(input: &Input<'_>, status: &PodStatus, initialized: bool) -> Vec<PodCondition> {
    let phase = status.phase.as_deref().unwrap_or_default();
    let containers = containers_ready(input, status, phase);
    let ready = containers.clone().and_then(|()| gates(input.pod));
    let sandbox = match input.observed.current_sandbox() {
        Some(sandbox) if !sandbox.ips.is_empty() || spec::host_network(input.pod) => Ok(()),
        _ => Err(("", String::new())),
    };
    let verdicts = [
        (READY_TO_START, sandbox),
        (
            INITIALIZED,
            initialized_verdict(input.pod, status, initialized),
        ),
        (READY, ready),
        (CONTAINERS_READY, containers),
    ];
    let known = |kind: &str| find(input.pod, kind);
    let own = verdicts
        .into_iter()
        .map(|(kind, verdict)| condition(kind, verdict, known(kind), input));
    let others = input
        .pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let others = others
        .filter(|condition| !OWNED.contains(&condition.type_.as_str()))
        .cloned();
    own.chain(scheduled(input)).chain(others).collect()
}

/// A pod that was bound by hand (`spec.nodeName`) has no PodScheduled yet; upstream's kubelet adds it.
fn scheduled(input: &Input<'_>) -> Option<PodCondition> {
    find(input.pod, "PodScheduled")
        .is_none()
        .then(|| condition("PodScheduled", Ok(()), None, input))
}

fn find<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn condition(
    kind: &str,
    verdict: Verdict,
    known: Option<&PodCondition>,
    input: &Input<'_>,
) -> PodCondition {
    let status = if verdict.is_ok() { "True" } else { "False" };
    let unchanged = known
        .filter(|known| known.status == status)
        .and_then(|known| known.last_transition_time.clone());
    let (reason, message) = verdict.err().unwrap_or_default();
    let text = |text: String| (!text.is_empty()).then_some(text);
    PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason: text(reason.into()),
        message: text(message),
        last_transition_time: unchanged.or_else(|| Some(whole_seconds(input.now))),
        observed_generation: input.pod.metadata.generation,
        ..PodCondition::default()
    }
}

fn whole_seconds(at: Timestamp) -> Time {
    Time(at.round(Unit::Second).unwrap_or(at))
}

fn completed(phase: &str) -> Option<Verdict> {
    match phase {
        "Succeeded" => Some(Err(("PodCompleted", String::new()))),
        "Failed" => Some(Err(("PodFailed", String::new()))),
        _ => None,
    }
}

fn initialized_verdict(pod: &Pod, status: &PodStatus, initialized: bool) -> Verdict {
    if initialized {
        return Ok(());
    }
    let statuses = status
        .init_container_statuses
        .as_deref()
        .unwrap_or_default();
    let pairs = spec::init_containers(pod).iter().zip(statuses);
    let incomplete = pairs.filter(|(container, status)| match spec::init_role(container) {
        Role::Sidecar => status.started != Some(true),
        _ => !status.ready,
    });
    let names: Vec<_> = incomplete.map(|(_, status)| status.name.as_str()).collect();
    Err((
        "ContainersNotInitialized",
        format!("containers with incomplete status: [{}]", names.join(" ")),
    ))
}

fn containers_ready(input: &Input<'_>, status: &PodStatus, phase: &str) -> Verdict {
    if let Some(verdict) = completed(phase) {
        return verdict;
    }
    let main = status.container_statuses.iter().flatten();
    let sidecars = spec::init_containers(input.pod)
        .iter()
        .zip(status.init_container_statuses.iter().flatten())
        .filter(|(container, _)| spec::init_role(container) == Role::Sidecar)
        .map(|(_, status)| status);
    let unready: Vec<_> = sidecars
        .chain(main)
        .filter(|status| !status.ready)
        .map(name)
        .collect();
    if unready.is_empty() {
        return Ok(());
    }
    Err((
        "ContainersNotReady",
        format!("containers with unready status: [{}]", unready.join(" ")),
    ))
}

fn name(status: &ContainerStatus) -> &str {
    &status.name
}

/// Conditions that others must set before the pod counts as ready.
fn gates(pod: &Pod) -> Verdict {
    let gates = spec::spec(pod).readiness_gates.iter().flatten();
    let is_true = |kind: &str| find(pod, kind).is_some_and(|condition| condition.status == "True");
    let missing: Vec<_> = gates
        .filter(|gate| !is_true(&gate.condition_type))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let word = |kind: &str| match find(pod, kind) {
        None => format!("corresponding condition of pod readiness gate \"{kind}\" does not exist."),
        Some(_) => format!("the status of pod readiness gate \"{kind}\" is not \"True\""),
    };
    let words: Vec<_> = missing
        .iter()
        .map(|gate| word(&gate.condition_type))
        .collect();
    Err(("ReadinessGatesNotReady", words.join(", ")))
}

/// `ours` with the conditions of others as `theirs` has them.
pub fn with_others(ours: &PodStatus, theirs: &PodStatus) -> PodStatus {
    let mine = |condition: &&PodCondition| OWNED.contains(&condition.type_.as_str());
    let own: Vec<_> = ours
        .conditions
        .iter()
        .flatten()
        .filter(mine)
        .cloned()
        .collect();
    let mut others: Vec<_> = theirs
        .conditions
        .iter()
        .flatten()
        .filter(|c| !mine(c))
        .cloned()
        .collect();
    let missing = |kind: &str| !others.iter().any(|condition| condition.type_ == kind);
    let scheduled = ours
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled");
    if let Some(scheduled) = scheduled.filter(|_| missing("PodScheduled")) {
        others.push(scheduled.clone());
    }
    PodStatus {
        conditions: Some(own.into_iter().chain(others).collect()),
        ..ours.clone()
    }
}
