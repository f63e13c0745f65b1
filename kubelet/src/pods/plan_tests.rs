//! The state machine, transition by transition.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::json;

use super::*;
use crate::pods::observed::Sandbox;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn pod(spec: serde_json::Value) -> Pod {
    let spec: PodSpec = serde_json::from_value(spec).unwrap();
    Pod {
        spec: Some(spec),
        ..Default::default()
    }
}

fn one(policy: &str) -> Pod {
    pod(json!({ "restartPolicy": policy, "containers": [{ "name": "c", "image": "i" }] }))
}

fn sandbox(id: &str, attempt: u32, ready: bool) -> Sandbox {
    Sandbox {
        id: id.into(),
        attempt,
        ready,
        created_at: i64::from(attempt),
        ips: vec![],
    }
}

fn instance(name: &str, restart_count: u32, state: State, exit_code: i32) -> Instance {
    let container = Container {
        name: name.into(),
        image: Some("i".into()),
        ..Default::default()
    };
    Instance {
        id: format!("{name}-{restart_count}"),
        name: name.into(),
        sandbox_id: "s".into(),
        restart_count,
        state,
        created_at: Some(at(0)),
        started_at: Some(at(0)),
        finished_at: (state == State::Exited).then(|| at(1)),
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_id: String::new(),
        hash: labels::container_hash(&container),
        log_path: String::new(),
        termination_message_file: None,
        message_from_log: false,
    }
}

struct World {
    observed: Observed,
    backoff: Backoff,
    retry_at: HashMap<String, Timestamp>,
    health: Health,
    now: Timestamp,
}

impl World {
    fn empty() -> Self {
        Self {
            observed: Observed::default(),
            backoff: Backoff::default(),
            retry_at: HashMap::new(),
            health: Health::default(),
            now: at(2),
        }
    }

    fn with(instances: impl IntoIterator<Item = Instance>) -> Self {
        let observed =
            Observed::sorted(vec![sandbox("s", 0, true)], instances.into_iter().collect());
        Self {
            observed,
            ..Self::empty()
        }
    }

    fn plan(&self, pod: &Pod) -> Plan {
        plan(&Input {
            pod,
            observed: &self.observed,
            backoff: &self.backoff,
            retry_at: &self.retry_at,
            health: &self.health,
            now: self.now,
        })
    }
}

fn start(container: &str, restart_count: u32) -> Step {
    Step::Start {
        container: container.into(),
        restart_count,
    }
}

fn kill(container: &str, reason: KillReason) -> Step {
    Step::Kill {
        id: format!("{container}-0"),
        container: container.into(),
        reason,
    }
}

#[test]
fn a_new_pod_gets_a_sandbox_first() {
    assert_eq!(
        World::empty().plan(&one("Always")).steps,
        [Step::CreateSandbox { attempt: 0 }]
    );
}

#[test]
fn containers_start_when_the_sandbox_is_ready() {
    assert_eq!(World::with([]).plan(&one("Always")).steps, [start("c", 0)]);
}

#[test]
fn a_running_pod_is_left_alone() {
    let plan = World::with([instance("c", 0, State::Running, 0)]).plan(&one("Always"));
    assert_eq!(plan, Plan::default());
}

#[test]
fn a_dead_sandbox_is_stopped_and_replaced() {
    let mut world = World::with([instance("c", 0, State::Exited, 137)]);
    world.observed.sandboxes = vec![sandbox("s", 0, false)];
    let expected = [
        Step::StopSandbox { id: "s".into() },
        Step::CreateSandbox { attempt: 1 },
    ];
    assert_eq!(world.plan(&one("Always")).steps, expected);
}

#[test]
fn a_pod_that_never_restarts_fails_with_its_sandbox() {
    let mut world = World::with([instance("c", 0, State::Exited, 137)]);
    world.observed.sandboxes = vec![sandbox("s", 0, false)];
    assert_eq!(world.plan(&one("Never")).finish, Some(Finish::Failed));
}

#[test]
fn a_container_of_an_old_sandbox_restarts_in_the_new_one() {
    let mut world = World::with([instance("c", 3, State::Exited, 137)]);
    world.observed.sandboxes = vec![sandbox("t", 1, true), sandbox("s", 0, false)];
    assert_eq!(world.plan(&one("Always")).steps, [start("c", 4)]);
}

#[test]
fn restart_policies_decide_over_the_exit_code() {
    let cases = [
        ("Always", 0, None, true),
        ("Always", 1, None, true),
        ("OnFailure", 0, Some(Finish::Succeeded), false),
        ("OnFailure", 1, None, true),
        ("Never", 0, Some(Finish::Succeeded), false),
        ("Never", 1, Some(Finish::Failed), false),
    ];
    for (policy, code, finish, restarts) in cases {
        let plan = World::with([instance("c", 0, State::Exited, code)]).plan(&one(policy));
        assert_eq!(plan.finish, finish, "{policy} {code}");
        assert_eq!(plan.steps == [start("c", 1)], restarts, "{policy} {code}");
    }
}

#[test]
fn a_crash_loop_waits_for_its_back_off() {
    let mut world = World::with([instance("c", 1, State::Exited, 1)]);
    world.backoff.advance("c", at(0), at(0));
    let plan = world.plan(&one("Always"));
    assert_eq!((plan.steps, plan.wake_at), (vec![], Some(at(11))));
    world.now = at(11);
    assert_eq!(world.plan(&one("Always")).steps, [start("c", 2)]);
}

#[test]
fn a_start_that_failed_is_retried_when_its_time_comes() {
    let mut world = World::with([]);
    world.retry_at.insert("c".into(), at(5));
    let plan = world.plan(&one("Always"));
    assert_eq!((plan.steps, plan.wake_at), (vec![], Some(at(5))));
    world.now = at(5);
    assert_eq!(world.plan(&one("Always")).steps, [start("c", 0)]);
}

#[test]
fn failed_probes_kill_the_container() {
    let mut world = World::with([instance("c", 0, State::Running, 0)]);
    world.health.liveness_failed.insert("c-0".into());
    assert_eq!(
        world.plan(&one("Always")).steps,
        [kill("c", KillReason::Liveness)]
    );
    world.health.startup_failed.insert("c-0".into());
    assert_eq!(
        world.plan(&one("Always")).steps,
        [kill("c", KillReason::Startup)]
    );
}

#[test]
fn a_changed_image_replaces_the_container_even_when_it_never_restarts() {
    let mut changed = one("Never");
    changed.spec.as_mut().unwrap().containers[0].image = Some("other".into());
    let running = World::with([instance("c", 0, State::Running, 0)]);
    assert_eq!(
        running.plan(&changed).steps,
        [kill("c", KillReason::SpecChanged)]
    );
    let ended = World::with([instance("c", 0, State::Exited, 137)]);
    assert_eq!(ended.plan(&changed).steps, [start("c", 1)]);
}

fn with_init(policy: &str) -> Pod {
    pod(json!({
        "restartPolicy": policy,
        "initContainers": [{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }],
        "containers": [{ "name": "c", "image": "i" }, { "name": "d", "image": "i" }],
    }))
}

#[test]
fn init_containers_run_one_after_the_other_then_all_main_containers() {
    let pod = with_init("Always");
    assert_eq!(World::with([]).plan(&pod).steps, [start("a", 0)]);
    assert_eq!(
        World::with([instance("a", 0, State::Running, 0)])
            .plan(&pod)
            .steps,
        []
    );
    let a = instance("a", 0, State::Exited, 0);
    assert_eq!(World::with([a.clone()]).plan(&pod).steps, [start("b", 0)]);
    let b = instance("b", 0, State::Exited, 0);
    assert_eq!(
        World::with([a, b]).plan(&pod).steps,
        [start("c", 0), start("d", 0)]
    );
}

#[test]
fn a_failed_init_container_is_retried_or_fails_the_pod() {
    let failed = instance("a", 0, State::Exited, 1);
    assert_eq!(
        World::with([failed.clone()])
            .plan(&with_init("Always"))
            .steps,
        [start("a", 1)]
    );
    assert_eq!(
        World::with([failed.clone()])
            .plan(&with_init("OnFailure"))
            .steps,
        [start("a", 1)]
    );
    assert_eq!(
        World::with([failed]).plan(&with_init("Never")).finish,
        Some(Finish::Failed)
    );
}

#[test]
fn init_containers_run_again_in_a_new_sandbox() {
    let mut world = World::with([
        instance("a", 0, State::Exited, 0),
        instance("b", 0, State::Exited, 0),
        instance("c", 0, State::Exited, 137),
    ]);
    world.observed.sandboxes = vec![sandbox("t", 1, true), sandbox("s", 0, false)];
    assert_eq!(world.plan(&with_init("Always")).steps, [start("a", 1)]);
}

#[test]
fn forgotten_init_containers_do_not_run_again_beside_running_main_containers() {
    let world = World::with([
        instance("c", 0, State::Running, 0),
        instance("d", 0, State::Running, 0),
    ]);
    assert_eq!(world.plan(&with_init("Always")).steps, []);
}

fn with_sidecar() -> Pod {
    pod(json!({
        "restartPolicy": "Never",
        "initContainers": [
            { "name": "side", "image": "i", "restartPolicy": "Always", "startupProbe": { "tcpSocket": { "port": 1 } } },
            { "name": "a", "image": "i" },
        ],
        "containers": [{ "name": "c", "image": "i" }],
    }))
}

#[test]
fn the_next_container_waits_until_a_sidecar_has_started() {
    let mut world = World::with([instance("side", 0, State::Running, 0)]);
    assert_eq!(world.plan(&with_sidecar()).steps, []);
    world.health.started.insert("side-0".into());
    assert_eq!(world.plan(&with_sidecar()).steps, [start("a", 0)]);
}

#[test]
fn a_sidecar_restarts_whatever_the_policy_and_does_not_hold_a_pod_open() {
    let side = instance("side", 0, State::Exited, 1);
    let a = instance("a", 0, State::Exited, 0);
    let running = World::with([side.clone(), a.clone(), instance("c", 0, State::Running, 0)]);
    assert_eq!(running.plan(&with_sidecar()).steps, [start("side", 1)]);
    let done = World::with([
        instance("side", 0, State::Running, 0),
        a,
        instance("c", 0, State::Exited, 0),
    ]);
    assert_eq!(done.plan(&with_sidecar()).finish, Some(Finish::Succeeded));
}

#[test]
fn an_instance_that_was_never_started_is_made_anew_with_the_same_count() {
    let world = World::with([instance("c", 2, State::Created, 0)]);
    assert_eq!(
        world.plan(&one("Always")).steps,
        [Step::Remove { id: "c-2".into() }, start("c", 2)]
    );
}

#[test]
fn the_active_deadline_ends_a_pod() {
    let mut pod = one("Always");
    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(30);
    pod.status = serde_json::from_value(json!({ "startTime": "2023-11-14T22:13:20Z" })).unwrap();
    let mut world = World::with([instance("c", 0, State::Running, 0)]);
    assert_eq!(world.plan(&pod).wake_at, Some(at(30)));
    world.now = at(30);
    assert_eq!(world.plan(&pod).finish, Some(Finish::DeadlineExceeded));
}

#[test]
fn only_the_last_two_instances_and_their_sandboxes_are_kept() {
    let mut old = instance("c", 0, State::Exited, 1);
    old.sandbox_id = "old".into();
    let instances = [
        old,
        instance("c", 1, State::Exited, 1),
        instance("c", 2, State::Running, 0),
    ];
    let mut world = World::with(instances);
    world.observed.sandboxes = vec![sandbox("s", 1, true), sandbox("old", 0, false)];
    let expected = [
        Step::Remove { id: "c-0".into() },
        Step::RemoveSandbox { id: "old".into() },
    ];
    assert_eq!(world.plan(&one("Always")).steps, expected);
}

#[test]
fn counts_go_on_from_the_api_when_the_runtime_has_forgotten_the_pod() {
    let mut pod = one("Always");
    let known = json!({ "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": true,
        "restartCount": 4, "containerID": "containerd://x" }] });
    pod.status = serde_json::from_value(known).unwrap();
    assert_eq!(World::with([]).plan(&pod).steps, [start("c", 5)]);
}
