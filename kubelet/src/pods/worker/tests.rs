//! Workers over a runtime in memory: from a new pod to a clean node.

use std::collections::HashSet;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::pods::manager::Manager;
use crate::pods::sandbox::NodeDns;
use crate::testing::{FakeObjects, FakePodApi, FakeRuntime, RecordedEvents};
use crate::volumes::PodDirs;

struct World {
    runtime: Arc<FakeRuntime>,
    api: Arc<FakePodApi>,
    events: Arc<RecordedEvents>,
    objects: Arc<FakeObjects>,
    manager: Arc<Manager>,
    stop: CancellationToken,
    root: tempfile::TempDir,
}

impl Default for World {
    fn default() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self::on(Arc::default(), root)
    }
}

impl World {
    /// A kubelet on a node that has been there before.
    fn on(runtime: Arc<FakeRuntime>, root: tempfile::TempDir) -> Self {
        let (api, events, objects) = (
            Arc::<FakePodApi>::default(),
            Arc::<RecordedEvents>::default(),
            Arc::<FakeObjects>::default(),
        );
        let host = Host {
            runtime: Arc::clone(&runtime) as _,
            objects: Arc::clone(&objects) as _,
            api: Arc::clone(&api) as _,
            recorder: Recorder::new(Arc::clone(&events) as _),
            dirs: PodDirs::new(root.path()),
            logs: root.path().join("logs"),
            cgroups: None,
            dns: NodeDns::default(),
            placement: Placement {
                host_ips: vec!["192.0.2.1".into()],
                ..Default::default()
            },
            memory_capacity: 1 << 30,
            runtime_name: "fake".into(),
            metrics: Arc::new(Metrics::new("node")),
        };
        let stop = CancellationToken::new();
        let manager = Manager::new(Arc::new(host), stop.clone());
        Self {
            runtime,
            api,
            events,
            objects,
            manager,
            stop,
            root,
        }
    }

    /// Waits until `done` holds; whoever changes something wakes it.
    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let wait = async {
            while !done(self) {
                let woken = self.runtime.changed.notified();
                let _ = tokio::time::timeout(Duration::from_millis(10), woken).await;
                self.manager.observed(vec!["u".into()], HashSet::new());
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .is_err()
        {
            panic!(
                "{what}: {:?} {:?}",
                self.runtime.calls(),
                self.events.reasons()
            );
        }
    }

    fn last_phase(&self) -> Option<String> {
        self.api
            .statuses
            .lock()
            .unwrap()
            .last()
            .and_then(|status| status.phase.clone())
    }

    fn waiting_reason(&self) -> Option<String> {
        let pods = self.manager.pods();
        let status = pods
            .first()?
            .status
            .as_ref()?
            .container_statuses
            .as_ref()?
            .first()?
            .clone();
        status.state?.waiting?.reason
    }

    fn apply(&self, pod: serde_json::Value) {
        self.manager.apply(serde_json::from_value(pod).unwrap());
    }
}

fn pod(spec: serde_json::Value) -> serde_json::Value {
    json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u" }, "spec": spec })
}

fn simple() -> serde_json::Value {
    pod(json!({ "containers": [{ "name": "c", "image": "img:1" }] }))
}

fn deleting(mut pod: serde_json::Value, grace: i64) -> serde_json::Value {
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    pod
}

#[tokio::test]
async fn a_pod_starts_reports_ends_and_leaves_nothing_behind() {
    let world = World::default();
    world.apply(simple());
    world
        .until("running", |world| {
            world.last_phase().as_deref() == Some("Running")
        })
        .await;
    assert_eq!(world.events.reasons(), ["Pulled", "Created", "Started"]);
    world.apply(deleting(simple(), 5));
    world
        .until("deleted", |world| {
            !world.api.deleted.lock().unwrap().is_empty() && world.runtime.is_empty()
        })
        .await;
    let stops: Vec<_> = world
        .runtime
        .calls()
        .into_iter()
        .filter(|call| call.starts_with("stop_container"))
        .collect();
    assert_eq!(stops, ["stop_container c2 5"]);
    assert_eq!(
        world.last_phase().as_deref(),
        Some("Failed"),
        "143 is no success"
    );
    world
        .until("forgotten", |world| world.manager.pods().is_empty())
        .await;
    assert!(world.manager.host().dirs.uids().is_empty());
}

#[tokio::test]
async fn a_crashed_container_restarts_once_at_once_and_then_backs_off() {
    let world = World::default();
    world.apply(simple());
    world
        .until("running", |world| world.runtime.running() == ["c"])
        .await;
    world.runtime.exit("c", 1);
    world
        .until("restarted", |world| world.runtime.running() == ["c"])
        .await;
    world.runtime.exit("c", 1);
    world
        .until("backing off", |world| {
            world.waiting_reason().as_deref() == Some("CrashLoopBackOff")
        })
        .await;
    assert!(world.events.reasons().contains(&"BackOff"));
    let starts = world
        .runtime
        .calls()
        .iter()
        .filter(|call| call.starts_with("start_container"))
        .count();
    assert_eq!(starts, 2);
}

#[tokio::test]
async fn a_restarted_kubelet_finds_its_pods_and_touches_nothing() {
    let first = World::default();
    first.apply(simple());
    first
        .until("running", |world| {
            world.last_phase().as_deref() == Some("Running")
        })
        .await;
    first.runtime.exit("c", 1);
    first
        .until("restarted", |world| world.runtime.running() == ["c"])
        .await;
    first.stop.cancel();
    let calls = first.runtime.calls();
    let second = World::on(Arc::clone(&first.runtime), first.root);
    second.apply(simple());
    second
        .until("reported", |world| {
            world.last_phase().as_deref() == Some("Running")
        })
        .await;
    let status = second.api.statuses.lock().unwrap().last().cloned().unwrap();
    assert_eq!(status.container_statuses.unwrap()[0].restart_count, 1);
    assert_eq!(second.runtime.calls(), calls);
}

#[tokio::test]
async fn a_runtime_that_is_away_changes_nothing() {
    let world = World::default();
    world.apply(simple());
    world
        .until("running", |world| {
            world.last_phase().as_deref() == Some("Running")
        })
        .await;
    let calls = world.runtime.calls();
    world.runtime.set_down(true);
    world.manager.observed(vec!["u".into()], HashSet::new());
    tokio::task::yield_now().await;
    world.runtime.set_down(false);
    world.manager.observed(vec!["u".into()], HashSet::new());
    world
        .until("still running", |world| world.runtime.running() == ["c"])
        .await;
    assert_eq!(world.runtime.calls(), calls);
}

#[tokio::test]
async fn a_dead_sandbox_is_replaced() {
    let world = World::default();
    world.apply(simple());
    world
        .until("running", |world| world.runtime.running() == ["c"])
        .await;
    world.runtime.kill_sandboxes();
    world
        .until("running again", |world| world.runtime.running() == ["c"])
        .await;
    let sandboxes = world
        .runtime
        .calls()
        .iter()
        .filter(|call| *call == "run_pod_sandbox")
        .count();
    assert_eq!(sandboxes, 2);
}

#[tokio::test]
async fn a_finished_pod_stays_as_a_record() {
    let world = World::default();
    world.apply(pod(
        json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": "img:1" }] }),
    ));
    world
        .until("running", |world| world.runtime.running() == ["c"])
        .await;
    world.runtime.exit("c", 0);
    world
        .until("succeeded", |world| {
            world.last_phase().as_deref() == Some("Succeeded")
        })
        .await;
    world
        .until("stopped", |w| {
            w.runtime
                .calls()
                .iter()
                .any(|call| call.starts_with("stop_pod_sandbox"))
        })
        .await;
    assert!(!world.runtime.is_empty(), "its logs can still be read");
    assert!(world.api.deleted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_missing_config_map_holds_the_pod_until_it_is_there() {
    let world = World::default();
    world.apply(pod(json!({
        "containers": [{ "name": "c", "image": "img:1", "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }],
        "volumes": [{ "name": "v", "configMap": { "name": "cm" } }]
    })));
    world
        .until("failed mount", |world| {
            world.events.reasons().contains(&"FailedMount")
        })
        .await;
    assert!(
        world.runtime.calls().is_empty(),
        "no sandbox before its volumes"
    );
    world.objects.put_config_map("ns", "cm", [("k", "v")]);
    world
        .manager
        .objects_changed(&HashSet::from(["u".to_owned()]));
    world
        .until("running", |world| world.runtime.running() == ["c"])
        .await;
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_backs_off() {
    let world = World::default();
    world.runtime.set_absent("img:1");
    world
        .runtime
        .set_failing("pull_image", Some("no such host"));
    world.apply(simple());
    world
        .until("backing off", |world| {
            world.waiting_reason().as_deref() == Some("ImagePullBackOff")
        })
        .await;
    let reported: Vec<_> = world
        .api
        .statuses
        .lock()
        .unwrap()
        .iter()
        .flat_map(|s| s.container_statuses.clone())
        .collect();
    assert!(
        format!("{reported:?}").contains("ErrImagePull"),
        "both reasons are shown"
    );
    let pulls = world
        .runtime
        .calls()
        .iter()
        .filter(|call| call.starts_with("pull_image"))
        .count();
    assert_eq!(pulls, 1);
}

#[tokio::test]
async fn orphans_go_only_after_the_api_has_listed_its_pods() {
    let first = World::default();
    first.apply(simple());
    first
        .until("running", |world| world.runtime.running() == ["c"])
        .await;
    first.stop.cancel();
    let second = World::on(Arc::clone(&first.runtime), first.root);
    second
        .manager
        .observed(vec![], HashSet::from(["u".to_owned()]));
    tokio::task::yield_now().await;
    assert_eq!(second.runtime.running(), ["c"]);
    second.manager.listed(HashSet::new());
    second
        .manager
        .observed(vec![], HashSet::from(["u".to_owned()]));
    second
        .until("cleaned up", |world| world.runtime.is_empty())
        .await;
    assert!(
        second
            .runtime
            .calls()
            .contains(&"stop_container c2 30".to_owned())
    );
}

#[tokio::test]
async fn a_pod_that_vanished_from_the_api_is_stopped_without_telling() {
    let world = World::default();
    world.apply(simple());
    world
        .until("running", |world| world.runtime.running() == ["c"])
        .await;
    world
        .manager
        .deleted(serde_json::from_value(deleting(simple(), 0)).unwrap());
    world.until("gone", |world| world.runtime.is_empty()).await;
    assert!(world.api.deleted.lock().unwrap().is_empty());
    assert!(
        world
            .runtime
            .calls()
            .contains(&"stop_container c2 1".to_owned())
    );
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts_the_container() {
    let world = World::default();
    world.runtime.set_exec_exit_code(1);
    world.apply(pod(json!({ "containers": [{ "name": "c", "image": "img:1",
        "livenessProbe": { "exec": { "command": ["check"] }, "failureThreshold": 1, "periodSeconds": 1 } }] })));
    world
        .until("killed", |world| {
            world.events.reasons().contains(&"Killing")
        })
        .await;
    world.runtime.set_exec_exit_code(0);
    world
        .until("restarted", |w| {
            w.runtime
                .calls()
                .iter()
                .filter(|c| c.starts_with("start_container"))
                .count()
                == 2
        })
        .await;
    assert!(world.events.reasons().contains(&"Unhealthy"));
}

#[tokio::test]
async fn pre_stop_runs_before_the_signal_and_post_start_after_the_start() {
    let world = World::default();
    let hooked = pod(
        json!({ "containers": [{ "name": "c", "image": "img:1", "lifecycle": {
        "postStart": { "exec": { "command": ["begin"] } }, "preStop": { "exec": { "command": ["end"] } } } }] }),
    );
    world.apply(hooked.clone());
    world
        .until("running", |world| {
            world.last_phase().as_deref() == Some("Running")
        })
        .await;
    world.apply(deleting(hooked, 9));
    world.until("gone", |world| world.runtime.is_empty()).await;
    let calls = world.runtime.calls();
    let at = |call: &str| {
        calls
            .iter()
            .position(|known| known.starts_with(call))
            .unwrap_or_else(|| panic!("{call}: {calls:?}"))
    };
    assert!(at("start_container") < at("exec_sync c2 begin"));
    assert!(at("exec_sync c2 end") < at("stop_container c2 9"));
}

#[tokio::test]
async fn sidecars_stop_after_the_main_containers() {
    let world = World::default();
    let with_sidecar = pod(json!({ "containers": [{ "name": "c", "image": "img:1" }],
        "initContainers": [{ "name": "side", "image": "img:1", "restartPolicy": "Always" }] }));
    world.apply(with_sidecar.clone());
    world
        .until("running", |world| world.runtime.running() == ["side", "c"])
        .await;
    world.apply(deleting(with_sidecar, 5));
    world.until("gone", |world| world.runtime.is_empty()).await;
    let stops: Vec<_> = world
        .runtime
        .calls()
        .into_iter()
        .filter(|call| call.starts_with("stop_container"))
        .collect();
    assert_eq!(stops, ["stop_container c3 5", "stop_container side2 5"]);
}
