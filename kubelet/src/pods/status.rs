//! The status of a pod, from what the runtime has of it: phases, reasons and conditions as users of `kubectl` know
//! them (upstream's `generateAPIPodStatus`). Pure.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{Timestamp, Unit};

use super::backoff::Backoff;
use super::observed::{Instance, Observed, State};
use super::plan::{Finish, Health, is_started};
use super::spec::{self, RestartPolicy, Role};
use super::{conditions, qos};

/// Why a container can't be started at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `ErrImagePull`, `ImagePullBackOff`, `CreateContainerConfigError`, ...
    pub reason: String,
    /// What went wrong.
    pub message: String,
}

/// What a status is made from.
pub struct Input<'a> {
    /// The pod with the status that the API has.
    pub pod: &'a Pod,
    /// What the runtime has.
    pub observed: &'a Observed,
    /// Verdicts of probes.
    pub health: &'a Health,
    /// Containers that can't be started.
    pub failures: &'a HashMap<String, Failure>,
    /// Restart delays.
    pub backoff: &'a Backoff,
    /// Termination messages by instance id.
    pub messages: &'a HashMap<String, String>,
    /// The node's addresses, the primary one first.
    pub host_ips: &'a [String],
    /// Set when nothing of the pod runs or is to run any more.
    pub finish: Option<Finish>,
    /// Whether the pod is being stopped for good, so that a stopped container is not one that will restart.
    pub stopping: bool,
    /// Whether all its containers have been stopped for good.
    pub stopped: bool,
    /// Prefix of container ids, such as `containerd`.
    pub runtime_name: &'a str,
    /// Now.
    pub now: Timestamp,
}

/// The status to report.
pub fn generate(input: &Input<'_>) -> PodStatus {
    let old = input.pod.status.clone().unwrap_or_default();
    let initialized = init_done(input);
    let status_of =
        |container: &Container, role| container_status(input, container, role, initialized);
    let init: Vec<_> = spec::init_containers(input.pod)
        .iter()
        .map(|c| status_of(c, spec::init_role(c)))
        .collect();
    let main: Vec<_> = spec::main_containers(input.pod)
        .iter()
        .map(|c| status_of(c, Role::Main))
        .collect();
    let phase = match old.phase.as_deref() {
        Some(phase @ ("Succeeded" | "Failed")) => phase.to_owned(),
        _ => phase(input, &init, &main, initialized).to_owned(),
    };
    let ips = pod_ips(input, &old);
    let mut status = PodStatus {
        observed_generation: input.pod.metadata.generation,
        host_ip: input.host_ips.first().cloned(),
        host_ips: Some(
            input
                .host_ips
                .iter()
                .map(|ip| HostIP { ip: ip.clone() })
                .collect(),
        ),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: old.start_time.clone().or(Some(seconds(input.now))),
        qos_class: Some(qos::class(input.pod).as_str().into()),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(main),
        phase: Some(phase),
        ..old
    };
    if input.finish == Some(Finish::DeadlineExceeded) && status.reason.is_none() {
        status.phase = Some("Failed".into());
        status.reason = Some("DeadlineExceeded".into());
        status.message =
            Some("Pod was active on the node longer than the specified deadline".into());
    }
    status.conditions = Some(conditions::generate(input, &status, initialized));
    status
}

/// API times have whole seconds; keeping more would make every comparison with the API's copy differ.
fn seconds(at: Timestamp) -> Time {
    Time(at.round(Unit::Second).unwrap_or(at))
}

fn pod_ips(input: &Input<'_>, old: &PodStatus) -> Vec<String> {
    if spec::host_network(input.pod) {
        return input.host_ips.to_vec();
    }
    match input.observed.current_sandbox() {
        Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.clone(),
        // A pod that is over keeps its address in its status, as upstream.
        _ => old
            .pod_ips
            .iter()
            .flatten()
            .map(|ip| ip.ip.clone())
            .collect(),
    }
}

/// Whether all init containers have done their part.
fn init_done(input: &Input<'_>) -> bool {
    let mains = spec::main_containers(input.pod);
    if mains
        .iter()
        .any(|container| input.observed.latest(&container.name).is_some())
    {
        return true;
    }
    spec::init_containers(input.pod).iter().all(|container| {
        input
            .observed
            .latest(&container.name)
            .is_some_and(|instance| match spec::init_role(container) {
                Role::Sidecar => is_started(container, instance, input.health),
                _ => instance.state == State::Exited && instance.exit_code == 0,
            })
    })
}

fn container_status(
    input: &Input<'_>,
    container: &Container,
    role: Role,
    initialized: bool,
) -> ContainerStatus {
    let latest = input.observed.latest(&container.name);
    let known = known_status(input.pod, &container.name);
    let (state, last_state) = states(input, container, role, latest, initialized);
    let running = latest.is_some_and(|instance| instance.state == State::Running);
    let started = latest.is_some_and(|instance| is_started(container, instance, input.health));
    let ready = match role {
        Role::Init => latest.is_some_and(|i| i.state == State::Exited && i.exit_code == 0),
        _ => latest.is_some_and(|i| is_ready(container, i, input.health)) && !input.stopped,
    };
    ContainerStatus {
        name: container.name.clone(),
        image: latest.map_or_else(
            || container.image.clone().unwrap_or_default(),
            |i| image_name(container, i),
        ),
        image_id: latest
            .map(|instance| instance.image_id.clone())
            .unwrap_or_default(),
        container_id: latest.map(|instance| format!("{}://{}", input.runtime_name, instance.id)),
        restart_count: latest.map_or(known.map_or(0, |known| known.restart_count), |i| {
            i.restart_count.cast_signed()
        }),
        ready,
        started: Some(running && started),
        last_state: Some(last_state),
        state: Some(state),
        ..ContainerStatus::default()
    }
}

/// The runtime may name an image by its id; users know it by the name in the spec.
fn image_name(container: &Container, instance: &Instance) -> String {
    if instance.image.is_empty() || instance.image.starts_with("sha256:") {
        container.image.clone().unwrap_or_default()
    } else {
        instance.image.clone()
    }
}

fn known_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status
        .container_statuses
        .iter()
        .flatten()
        .chain(status.init_container_statuses.iter().flatten());
    all.into_iter().find(|status| status.name == name)
}

/// Whether a running container is ready: its readiness probe passes, or it has none and has started.
pub fn is_ready(container: &Container, instance: &Instance, health: &Health) -> bool {
    is_started(container, instance, health)
        && (container.readiness_probe.is_none() || health.ready.contains(&instance.id))
}

/// State and last state of a container.
fn states(
    input: &Input<'_>,
    container: &Container,
    role: Role,
    latest: Option<&Instance>,
    initialized: bool,
) -> (ContainerState, ContainerState) {
    let previous = input.observed.previous(&container.name);
    let last = previous
        .map(|instance| terminated(input, instance))
        .unwrap_or_default();
    let Some(instance) = latest else {
        return (waiting_to_start(input, container, role, initialized), last);
    };
    match instance.state {
        State::Running => (running(instance), last),
        State::Created => (waiting_to_start(input, container, role, initialized), last),
        State::Exited | State::Unknown => match waiting_to_restart(input, container, instance) {
            Some(waiting) => (waiting, terminated(input, instance)),
            None => (terminated(input, instance), last),
        },
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: Some(reason.into()),
        message,
    };
    ContainerState {
        waiting: Some(waiting),
        ..ContainerState::default()
    }
}

fn waiting_to_start(
    input: &Input<'_>,
    container: &Container,
    role: Role,
    initialized: bool,
) -> ContainerState {
    match input.failures.get(&container.name) {
        Some(failure) => waiting(&failure.reason, Some(failure.message.clone())),
        None if initialized || (role != Role::Main && first_waiting(input, container)) => {
            waiting("ContainerCreating", None)
        }
        None if spec::init_containers(input.pod).is_empty() => waiting("ContainerCreating", None),
        None => waiting("PodInitializing", None),
    }
}

/// Init containers behind the one whose turn it is show `PodInitializing`.
fn first_waiting(input: &Input<'_>, container: &Container) -> bool {
    let mut all = spec::init_containers(input.pod).iter();
    all.find(|init| input.observed.latest(&init.name).is_none())
        .is_some_and(|first| first.name == container.name)
}

/// The waiting state of an ended container that is to be started again; `None` when it stays ended.
fn waiting_to_restart(
    input: &Input<'_>,
    container: &Container,
    instance: &Instance,
) -> Option<ContainerState> {
    if input.stopping || input.finish.is_some() {
        return None;
    }
    let since = instance
        .finished_at
        .or(instance.created_at)
        .unwrap_or(input.now);
    if let Some((delay, _)) = input.backoff.pending(&container.name, since, input.now) {
        let message = back_off_message(input.pod, &container.name, delay.as_secs());
        return will_restart(input, container, instance)
            .then(|| waiting("CrashLoopBackOff", Some(message)));
    }
    let failure = input.failures.get(&container.name)?;
    Some(waiting(&failure.reason, Some(failure.message.clone())))
}

/// The message of `CrashLoopBackOff` and of the `BackOff` event.
pub fn back_off_message(pod: &Pod, container: &str, delay: i64) -> String {
    let delay = if delay >= 60 {
        format!("{}m{}s", delay / 60, delay % 60)
    } else {
        format!("{delay}s")
    };
    let (name, namespace, uid) = (spec::name(pod), spec::namespace(pod), spec::uid(pod));
    format!(
        "back-off {delay} restarting failed container={container} pod={name}_{namespace}({uid})"
    )
}

fn will_restart(input: &Input<'_>, container: &Container, instance: &Instance) -> bool {
    let policy = spec::restart_policy(input.pod);
    match spec::container(input.pod, &container.name) {
        Some((_, Role::Sidecar)) => true,
        Some((_, Role::Init)) => instance.exit_code != 0 && policy != RestartPolicy::Never,
        _ => policy.restarts(instance.exit_code),
    }
}

fn running(instance: &Instance) -> ContainerState {
    let running = ContainerStateRunning {
        started_at: instance.started_at.map(Time),
    };
    ContainerState {
        running: Some(running),
        ..ContainerState::default()
    }
}

fn terminated(input: &Input<'_>, instance: &Instance) -> ContainerState {
    let message = input
        .messages
        .get(&instance.id)
        .or(Some(&instance.message))
        .filter(|text| !text.is_empty());
    let reason = match instance.reason.as_str() {
        "" if instance.state == State::Unknown => "ContainerStatusUnknown",
        "" if instance.exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    let terminated = ContainerStateTerminated {
        container_id: Some(format!("{}://{}", input.runtime_name, instance.id)),
        exit_code: if instance.state == State::Unknown {
            137
        } else {
            instance.exit_code
        },
        reason: Some(reason.into()),
        message: message.cloned(),
        started_at: instance.started_at.or(instance.created_at).map(Time),
        finished_at: instance.finished_at.map(Time),
        signal: None,
    };
    ContainerState {
        terminated: Some(terminated),
        ..ContainerState::default()
    }
}

/// Upstream's `getPhase`.
fn phase(
    input: &Input<'_>,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    initialized: bool,
) -> &'static str {
    let policy = spec::restart_policy(input.pod);
    let failed_init =
        spec::init_containers(input.pod)
            .iter()
            .zip(init)
            .any(|(container, status)| {
                spec::init_role(container) == Role::Init
                    && exit_code(status).is_some_and(|code| code != 0)
            });
    if failed_init && (policy == RestartPolicy::Never || input.stopped) {
        return "Failed";
    }
    let ended = main
        .iter()
        .filter(|status| exit_code(status).is_some())
        .count();
    let succeeded = main
        .iter()
        .filter(|status| exit_code(status) == Some(0))
        .count();
    let runs = main
        .iter()
        .filter(|status| has(status, |state| state.running.is_some()))
        .count();
    if input.stopped {
        return if !main.is_empty() && succeeded == main.len() {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    if !initialized || ended + runs < main.len() {
        return "Pending";
    }
    match policy {
        _ if runs > 0 || main.is_empty() => "Running",
        RestartPolicy::Always => "Running",
        _ if succeeded == main.len() => "Succeeded",
        RestartPolicy::Never => "Failed",
        RestartPolicy::OnFailure => "Running",
    }
}

fn has(status: &ContainerStatus, is: impl Fn(&ContainerState) -> bool) -> bool {
    status.state.as_ref().is_some_and(is)
}

/// Exit code of a container that has ended, also when it is waiting to be restarted.
fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let ended = |state: &Option<ContainerState>| {
        state
            .as_ref()?
            .terminated
            .as_ref()
            .map(|ended| ended.exit_code)
    };
    let waits = has(status, |state| state.waiting.is_some());
    ended(&status.state).or_else(|| {
        if waits {
            ended(&status.last_state)
        } else {
            None
        }
    })
}

/// Whether two statuses say the same, whatever the order of conditions that others wrote between ours.
pub fn same(a: &PodStatus, b: &PodStatus) -> bool {
    normalized(a) == normalized(b)
}

fn normalized(status: &PodStatus) -> PodStatus {
    let mut status = status.clone();
    let key = |condition: &PodCondition| condition.type_.clone();
    status
        .conditions
        .iter_mut()
        .for_each(|all| all.sort_by_key(key));
    // Through the wire form, which drops what the API drops (fractions of seconds, empty objects).
    let wire = serde_json::to_value(&status).unwrap_or_default();
    serde_json::from_value(drop_empty(wire)).unwrap_or(status)
}

fn drop_empty(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(key, value)| (key, drop_empty(value)));
            Value::Object(kept.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(drop_empty).collect()),
        other => other,
    }
}

fn is_empty(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
