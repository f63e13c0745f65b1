//! Statuses as users of `kubectl` know them.

use serde_json::json;

use super::*;
use crate::pods::observed::Sandbox;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(
        json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": spec }),
    )
    .unwrap()
}

fn simple(policy: &str) -> Pod {
    pod(json!({ "restartPolicy": policy, "containers": [{ "name": "c", "image": "img:1" }] }))
}

fn instance(name: &str, count: u32, state: State, exit_code: i32) -> Instance {
    Instance {
        id: format!("{name}{count}"),
        name: name.into(),
        sandbox_id: "s".into(),
        restart_count: count,
        state,
        created_at: Some(at(0)),
        started_at: Some(at(0)),
        finished_at: (state == State::Exited).then(|| at(5)),
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "img:1".into(),
        image_id: "sha256:1".into(),
        hash: String::new(),
        log_path: String::new(),
        termination_message_file: None,
        message_from_log: false,
    }
}

#[derive(Default)]
struct World {
    observed: Observed,
    health: Health,
    failures: HashMap<String, Failure>,
    backoff: Backoff,
    messages: HashMap<String, String>,
    finish: Option<Finish>,
    stopped: bool,
}

impl World {
    fn with(instances: impl IntoIterator<Item = Instance>) -> Self {
        let sandbox = Sandbox {
            id: "s".into(),
            attempt: 0,
            ready: true,
            created_at: 1,
            ips: vec!["10.0.0.5".into(), "fd00::5".into()],
        };
        let observed = Observed::sorted(vec![sandbox], instances.into_iter().collect());
        Self {
            observed,
            ..Self::default()
        }
    }

    fn status(&self, pod: &Pod) -> PodStatus {
        generate(&Input {
            pod,
            observed: &self.observed,
            health: &self.health,
            failures: &self.failures,
            backoff: &self.backoff,
            messages: &self.messages,
            host_ips: &["192.0.2.1".into()],
            finish: self.finish,
            stopping: self.stopped,
            stopped: self.stopped,
            runtime_name: "containerd",
            now: at(6),
        })
    }
}

fn state_of(status: &PodStatus) -> String {
    let container = &status.container_statuses.as_ref().unwrap()[0];
    let state = container.state.as_ref().unwrap();
    let waiting = state
        .waiting
        .as_ref()
        .and_then(|waiting| waiting.reason.clone());
    let ended = state
        .terminated
        .as_ref()
        .and_then(|ended| ended.reason.clone());
    waiting.or(ended).unwrap_or_else(|| "Running".into())
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
        .unwrap()
}

#[test]
fn a_new_pod_is_pending_and_its_containers_are_being_created() {
    let status = World::default().status(&simple("Always"));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(state_of(&status), "ContainerCreating");
    assert_eq!(
        condition(&status, "PodReadyToStartContainers").status,
        "False"
    );
    assert_eq!(
        condition(&status, "Ready").reason.as_deref(),
        Some("ContainersNotReady")
    );
    let message = condition(&status, "ContainersReady").message.as_deref();
    assert_eq!(message, Some("containers with unready status: [c]"));
}

#[test]
fn a_running_pod_is_ready_and_has_its_addresses() {
    let status = World::with([instance("c", 0, State::Running, 0)]).status(&simple("Always"));
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.5"));
    assert_eq!(status.pod_ips.as_ref().unwrap().len(), 2);
    for kind in [
        "PodReadyToStartContainers",
        "Initialized",
        "ContainersReady",
        "Ready",
        "PodScheduled",
    ] {
        assert_eq!(condition(&status, kind).status, "True", "{kind}");
    }
    assert_eq!(
        status.container_statuses.unwrap()[0]
            .container_id
            .as_deref(),
        Some("containerd://c0")
    );
}

#[test]
fn phases_follow_restart_policy_and_exit_codes() {
    let cases = [
        ("Always", 0, "Running"),
        ("Always", 1, "Running"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 1, "Running"),
        ("Never", 0, "Succeeded"),
        ("Never", 1, "Failed"),
    ];
    for (policy, code, phase) in cases {
        let status = World::with([instance("c", 0, State::Exited, code)]).status(&simple(policy));
        assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {code}");
        assert_eq!(
            state_of(&status),
            if code == 0 { "Completed" } else { "Error" }
        );
    }
}

#[test]
fn a_crash_loop_shows_the_delay_and_the_last_state() {
    let mut world = World::with([
        instance("c", 1, State::Exited, 3),
        instance("c", 0, State::Exited, 2),
    ]);
    world.backoff.advance("c", at(0), at(0));
    let status = world.status(&simple("Always"));
    assert_eq!(state_of(&status), "CrashLoopBackOff");
    let container = &status.container_statuses.as_ref().unwrap()[0];
    let message = container
        .state
        .as_ref()
        .unwrap()
        .waiting
        .as_ref()
        .unwrap()
        .message
        .as_deref();
    assert_eq!(
        message,
        Some("back-off 10s restarting failed container=c pod=p_n(u)")
    );
    assert_eq!(
        container
            .last_state
            .as_ref()
            .unwrap()
            .terminated
            .as_ref()
            .unwrap()
            .exit_code,
        3
    );
    assert_eq!(
        (container.restart_count, status.phase.as_deref()),
        (1, Some("Running"))
    );
}

#[test]
fn a_container_that_cannot_start_says_why() {
    let mut world = World::with([]);
    let failure = Failure {
        reason: "ErrImagePull".into(),
        message: "no such host".into(),
    };
    world.failures.insert("c".into(), failure);
    let status = world.status(&simple("Always"));
    assert_eq!(
        (state_of(&status).as_str(), status.phase.as_deref()),
        ("ErrImagePull", Some("Pending"))
    );
}

#[test]
fn readiness_comes_from_the_probe() {
    let mut pod = simple("Always");
    pod.spec.as_mut().unwrap().containers[0].readiness_probe = Some(Default::default());
    let mut world = World::with([instance("c", 0, State::Running, 0)]);
    assert_eq!(condition(&world.status(&pod), "Ready").status, "False");
    world.health.ready.insert("c0".into());
    assert_eq!(condition(&world.status(&pod), "Ready").status, "True");
}

#[test]
fn init_containers_hold_the_pod_in_pending() {
    let pod = pod(json!({
        "initContainers": [{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }],
        "containers": [{ "name": "c", "image": "i" }]
    }));
    let status = World::with([instance("a", 0, State::Running, 0)]).status(&pod);
    assert_eq!(
        (status.phase.as_deref(), state_of(&status).as_str()),
        (Some("Pending"), "PodInitializing")
    );
    let message = condition(&status, "Initialized").message.as_deref();
    assert_eq!(message, Some("containers with incomplete status: [a b]"));
    let done = [
        instance("a", 0, State::Exited, 0),
        instance("b", 0, State::Exited, 0),
        instance("c", 0, State::Running, 0),
    ];
    let status = World::with(done).status(&pod);
    assert_eq!(condition(&status, "Initialized").status, "True");
    assert!(
        status
            .init_container_statuses
            .unwrap()
            .iter()
            .all(|status| status.ready)
    );
}

#[test]
fn readiness_gates_are_waited_for() {
    let mut pod = simple("Always");
    let gates = json!([{ "conditionType": "example.org/up" }]);
    pod.spec.as_mut().unwrap().readiness_gates = serde_json::from_value(gates).unwrap();
    let world = World::with([instance("c", 0, State::Running, 0)]);
    let status = world.status(&pod);
    assert_eq!(
        condition(&status, "Ready").reason.as_deref(),
        Some("ReadinessGatesNotReady")
    );
    assert_eq!(condition(&status, "ContainersReady").status, "True");
    pod.status = serde_json::from_value(
        json!({ "conditions": [{ "type": "example.org/up", "status": "True" }] }),
    )
    .unwrap();
    let status = world.status(&pod);
    assert_eq!(condition(&status, "Ready").status, "True");
    assert_eq!(condition(&status, "example.org/up").status, "True");
}

#[test]
fn transition_times_change_only_with_the_status() {
    let mut pod = simple("Always");
    let world = World::with([instance("c", 0, State::Running, 0)]);
    pod.status = Some(world.status(&pod));
    for condition in pod.status.as_mut().unwrap().conditions.iter_mut().flatten() {
        condition.last_transition_time = Some(Time(at(-100)));
    }
    let again = world.status(&pod);
    assert!(same(&again, pod.status.as_ref().unwrap()));
    let ended = World::with([instance("c", 0, State::Exited, 1)]).status(&pod);
    assert_eq!(
        condition(&ended, "Ready").last_transition_time,
        Some(Time(at(6)))
    );
    assert_eq!(
        condition(&ended, "Initialized").last_transition_time,
        Some(Time(at(-100)))
    );
}

#[test]
fn a_stopped_pod_is_over_whatever_its_policy() {
    let mut world = World::with([instance("c", 0, State::Exited, 143)]);
    world.stopped = true;
    let status = world.status(&simple("Always"));
    assert_eq!(
        (status.phase.as_deref(), state_of(&status).as_str()),
        (Some("Failed"), "Error")
    );
    assert_eq!(
        condition(&status, "Ready").reason.as_deref(),
        Some("PodFailed")
    );
}

#[test]
fn a_phase_that_is_final_stays() {
    let mut pod = simple("Always");
    pod.status = serde_json::from_value(json!({ "phase": "Failed", "reason": "Evicted" })).unwrap();
    let status = World::with([instance("c", 0, State::Running, 0)]).status(&pod);
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("Evicted"))
    );
}

#[test]
fn a_deadline_is_named() {
    let mut world = World::with([instance("c", 0, State::Running, 0)]);
    world.finish = Some(Finish::DeadlineExceeded);
    let status = world.status(&simple("Always"));
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
}
