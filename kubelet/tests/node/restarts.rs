//! What a kubelet, a containerd and a container do to each other when they end.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::json;

use crate::images::BUSYBOX;
use crate::world::{self, has, phase};

fn container(pod: &Pod) -> ContainerStatus {
    pod.status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref())
        .and_then(|all| all.first())
        .cloned()
        .unwrap()
}

#[test]
fn pods_outlive_their_kubelet_and_their_containerd() {
    world::run_mut(async |world| {
        let kubelet = world.kubelet().await;
        let command = json!([
            "sh",
            "-c",
            "echo started; trap 'exit 0' TERM; while true; do sleep 0.1; done"
        ]);
        let spec = json!({ "containers": [{ "name": "c", "image": BUSYBOX, "command": command,
            "readinessProbe": { "exec": { "command": ["true"] }, "periodSeconds": 1 } }] });
        world.pod("long", spec).await;
        let before = container(&world.until("long", "ready", |pod| has(pod, "Ready")).await);
        kubelet.stop().await;

        let kubelet = world.kubelet().await;
        world.containerd.kill();
        world.containerd.restart();
        // A change that only a kubelet with a working runtime can carry out.
        world.pod("later", json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": BUSYBOX, "command": ["true"] }] })).await;
        world
            .until("later", "done", |pod| phase(pod) == "Succeeded")
            .await;
        let after = container(&world.until("long", "ready", |pod| has(pod, "Ready")).await);
        assert_eq!(
            (after.container_id, after.restart_count),
            (before.container_id, 0)
        );
        assert_eq!(world.logs("long").await, "started\n");
        for name in ["long", "later"] {
            world.delete(name, 5).await;
            world.gone(name).await;
        }
        kubelet.stop().await;
    });
}

#[test]
fn a_pod_that_was_deleted_while_the_kubelet_was_away_is_cleaned_up() {
    world::run(|world| async move {
        let kubelet = world.kubelet().await;
        let command = json!([
            "sh",
            "-c",
            "trap 'exit 0' TERM; while true; do sleep 0.1; done"
        ]);
        let pod = world
            .pod(
                "orphan",
                json!({ "containers": [{ "name": "c", "image": BUSYBOX, "command": command }] }),
            )
            .await;
        world
            .until("orphan", "ready", |pod| has(pod, "Ready"))
            .await;
        kubelet.stop().await;
        world.delete("orphan", 0).await;
        world.gone("orphan").await;
        let kubelet = world.kubelet().await;
        let directory = world
            .kubelet_root()
            .join("pods")
            .join(pod.metadata.uid.unwrap());
        world::eventually("the orphan is gone", || !directory.exists()).await;
        kubelet.stop().await;
    });
}

#[test]
fn a_crash_loop_is_counted_and_shown_and_survives_the_kubelet() {
    world::run(|world| async move {
        let kubelet = world.kubelet().await;
        let command = json!(["sh", "-c", "echo attempt; exit 7"]);
        world
            .pod(
                "crash",
                json!({ "containers": [{ "name": "c", "image": BUSYBOX, "command": command }] }),
            )
            .await;
        let looping = |pod: &Pod| {
            let status = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.clone());
            let reasons = status
                .into_iter()
                .flatten()
                .filter_map(|status| status.state?.waiting?.reason);
            reasons
                .into_iter()
                .any(|reason| reason == "CrashLoopBackOff")
        };
        let status = container(&world.until("crash", "looping", looping).await);
        assert_eq!(status.restart_count, 1);
        assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 7);
        world.event("crash", "BackOff").await;
        let previous = kube::api::LogParams {
            previous: true,
            ..Default::default()
        };
        assert_eq!(
            world.pods().logs("crash", &previous).await.unwrap(),
            "attempt\n"
        );
        kubelet.stop().await;
        let kubelet = world.kubelet().await;
        world
            .until("crash", "restarted", |pod| {
                container(pod).restart_count == 2
            })
            .await;
        world.delete("crash", 0).await;
        world.gone("crash").await;
        kubelet.stop().await;
    });
}
