//! Pods from creation to deletion, with everything around them.

use std::time::Instant;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, AttachParams, DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http_client;
use crate::images::BUSYBOX;
use crate::world::{self, DEADLINE, World, has, phase};

fn shell(script: &str) -> serde_json::Value {
    json!({ "name": "c", "image": BUSYBOX, "command": ["sh", "-c", script] })
}

const FOREVER: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

#[test]
fn a_pod_runs_and_leaves_nothing_behind() {
    world::run(|world| async move {
        let kubelet = world.kubelet().await;
        world
            .pod(
                "web",
                json!({ "containers": [shell(&format!("echo hello; {FOREVER}"))] }),
            )
            .await;
        let pod = world.until("web", "ready", |pod| has(pod, "Ready")).await;
        let status = pod.status.clone().unwrap();
        assert_eq!(status.pod_ip.as_deref(), Some("10.88.0.2"));
        assert_eq!(status.pod_ips.unwrap()[1].ip, "fd00:88::2");
        assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
        assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
        assert_eq!(world.logs("web").await, "hello\n");
        world.event("web", "Started").await;
        let uid = pod.metadata.uid.unwrap();
        let cgroup = format!("besteffort/pod{uid}");
        assert!(
            world
                .cgroups()
                .iter()
                .any(|kubepods| kubepods.join(&cgroup).exists())
        );

        world.delete("web", 10).await;
        let started = Instant::now();
        world.gone("web").await;
        assert!(
            started.elapsed().as_secs() < 10,
            "SIGTERM ended it, not SIGKILL"
        );
        let root = world.kubelet_root();
        world::eventually("directories are gone", || {
            let logs = std::fs::read_dir(root.join("logs/pods")).unwrap().count();
            !root.join("pods").join(&uid).exists() && logs == 0
        })
        .await;
        assert!(
            !world
                .cgroups()
                .iter()
                .any(|kubepods| kubepods.join(&cgroup).exists())
        );
        kubelet.stop().await;
    });
}

#[test]
fn configuration_reaches_containers_and_changes_follow() {
    world::run(|world| async move {
        let kubelet = world.kubelet().await;
        let map = |text: &str| json!({ "metadata": { "name": "cm" }, "data": { "key": text } });
        world.create::<ConfigMap>(map("one")).await;
        world
            .create::<Secret>(
                json!({ "metadata": { "name": "s" }, "stringData": { "pass": "word" } }),
            )
            .await;
        let script = "echo $FROM_MAP $FROM_SECRET $NAME $LIMIT $(cat /secret/pass) $(cat /info/labels) $(hostname); \
            cat /etc/hosts >&2; old=$(cat /map/key); while [ \"$(cat /map/key)\" = \"$old\" ]; do sleep 0.1; done; \
            echo $(cat /map/key); sleep 1000";
        let mut container = shell(script);
        container["env"] = json!([
            { "name": "FROM_MAP", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "key" } } },
            { "name": "FROM_SECRET", "valueFrom": { "secretKeyRef": { "name": "s", "key": "pass" } } },
            { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
            { "name": "LIMIT", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory" } } },
        ]);
        container["resources"] = json!({ "limits": { "memory": "64Mi", "cpu": "500m" } });
        container["volumeMounts"] = json!([
            { "name": "map", "mountPath": "/map" }, { "name": "secret", "mountPath": "/secret" },
            { "name": "info", "mountPath": "/info" }, { "name": "scratch", "mountPath": "/scratch" },
        ]);
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "conf", "labels": { "a": "b" } },
            "spec": { "nodeName": "node1", "terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [
                { "name": "map", "configMap": { "name": "cm" } }, { "name": "secret", "secret": { "secretName": "s" } },
                { "name": "info", "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
                { "name": "scratch", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
            ] } });
        let pod = world.create::<k8s_openapi::api::core::v1::Pod>(pod).await;
        world.until("conf", "ready", |pod| has(pod, "Ready")).await;
        let expected = "one word conf 67108864 word a=\"b\" conf\n";
        world::eventually_async("environment and files", async || {
            world.logs("conf").await.contains(expected)
        })
        .await;
        let named = async || world.logs("conf").await.contains("10.88.0.2\tconf");
        world::eventually_async("the pod in its hosts file", named).await;
        let limits = world.cgroups().into_iter().map(|kubepods| {
            let pod = kubepods.join(format!("pod{}", pod.metadata.uid.as_deref().unwrap()));
            ["memory.limit_in_bytes", "memory.max"]
                .map(|file| std::fs::read_to_string(pod.join(file)).unwrap_or_default())
        });
        assert!(
            limits.flatten().any(|limit| limit.trim() == "67108864"),
            "guaranteed pod's memory limit is set"
        );

        world
            .objects::<ConfigMap>()
            .patch("cm", &PatchParams::default(), &Patch::Merge(map("two")))
            .await
            .unwrap();
        world::eventually_async("the new value is seen", async || {
            world.logs("conf").await.ends_with("two\n")
        })
        .await;
        world.delete("conf", 0).await;
        world.gone("conf").await;
        kubelet.stop().await;
    });
}

#[test]
fn exec_port_forward_and_logs_go_through_the_kubelet() {
    world::run(|world| async move {
        let kubelet = world.kubelet().await;
        let script = format!("for i in 1 2 3; do echo line $i; done; {FOREVER}");
        world
            .pod(
                "tools",
                json!({ "hostNetwork": true, "containers": [shell(&script)] }),
            )
            .await;
        world.node_ready().await;
        world.until("tools", "ready", |pod| has(pod, "Ready")).await;

        let command = [
            "sh",
            "-c",
            "read word; echo got $word; echo bad >&2; exit 3",
        ];
        let parameters = AttachParams::default().stdin(true).stderr(true);
        let mut process = world
            .pods()
            .exec("tools", command, &parameters)
            .await
            .unwrap();
        process.stdin().unwrap().write_all(b"this\n").await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        process
            .stdout()
            .unwrap()
            .read_to_string(&mut out)
            .await
            .unwrap();
        process
            .stderr()
            .unwrap()
            .read_to_string(&mut err)
            .await
            .unwrap();
        assert_eq!((out.as_str(), err.as_str()), ("got this\n", "bad\n"));
        let status = process.take_status().unwrap().await.unwrap();
        assert!(format!("{status:?}").contains('3'), "{status:?}");

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"through").await.unwrap();
        });
        let mut forwarder = world.pods().portforward("tools", &[port]).await.unwrap();
        let mut text = String::new();
        forwarder
            .take_stream(port)
            .unwrap()
            .read_to_string(&mut text)
            .await
            .unwrap();
        assert_eq!(text, "through");
        server.await.unwrap();

        let tail = kube::api::LogParams {
            tail_lines: Some(1),
            ..Default::default()
        };
        assert_eq!(world.pods().logs("tools", &tail).await.unwrap(), "line 3\n");
        world.delete("tools", 1).await;
        world.gone("tools").await;
        kubelet.stop().await;
    });
}

#[test]
fn the_authenticated_server_knows_its_callers() {
    world::run(|world| async move {
        let kubelet = world.kubelet().await;
        let status = async |credentials| {
            http_client::get(kubelet.secure, "/pods", credentials)
                .await
                .0
        };
        assert_eq!(status(Some(world.credentials())).await, 200);
        assert_eq!(status(None).await, 401);
        let stranger = Some(world.strangers_credentials());
        assert_eq!(
            status(stranger).await,
            0,
            "a certificate of another CA ends the handshake"
        );
        let (status, body) = http_client::plain(kubelet.read_only, "/pods").await;
        assert!(status == 200 && body.contains("PodList"), "{body}");
        let (status, body) = http_client::plain(kubelet.read_only, "/metrics").await;
        assert!(
            status == 200 && body.contains("kubelet_running_pods"),
            "{body}"
        );
        assert_eq!(
            http_client::plain(kubelet.read_only, "/healthz").await,
            (200, "ok".into())
        );
        assert_eq!(
            http_client::plain(kubelet.read_only, "/exec/a/b/c?command=x")
                .await
                .0,
            404
        );
        kubelet.stop().await;
    });
}

#[test]
fn a_node_registers_keeps_its_lease_and_comes_back_after_it_was_deleted() {
    world::run(|world| async move {
        let kubelet = world.kubelet().await;
        let node = world.node_ready().await;
        let labels = node.metadata.labels.unwrap();
        assert_eq!(labels["kubernetes.io/hostname"], "node1");
        let info = node.status.unwrap().node_info.unwrap();
        assert!(
            info.container_runtime_version
                .starts_with("containerd://1."),
            "{info:?}"
        );
        let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-node-lease");
        let renewed = async || {
            leases
                .get_opt("node1")
                .await
                .unwrap()
                .and_then(|lease| lease.spec?.renew_time)
        };
        world::eventually_async("a lease", async || renewed().await.is_some()).await;
        let first = renewed().await;
        world::eventually_async("a renewed lease", async || renewed().await > first).await;
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(world.client.clone());
        nodes
            .delete("node1", &DeleteParams::default())
            .await
            .unwrap();
        let again = world.node_ready().await;
        assert_ne!(again.metadata.uid, node.metadata.uid);
        kubelet.stop().await;
    });
}

#[test]
fn thirty_pods_start_within_seconds() {
    world::run(|world| async move {
        let kubelet = world.kubelet().await;
        world.node_ready().await;
        let started = Instant::now();
        let names: Vec<_> = (0..30).map(|number| format!("p{number}")).collect();
        for name in &names {
            let spec =
                json!({ "terminationGracePeriodSeconds": 0, "containers": [shell(FOREVER)] });
            world.pod(name, spec).await;
        }
        for name in &names {
            world.until(name, "ready", |pod| has(pod, "Ready")).await;
        }
        eprintln!("30 pods were ready after {:?}", started.elapsed());
        assert!(started.elapsed() < DEADLINE);
        for name in &names {
            world.delete(name, 0).await;
        }
        for name in &names {
            world.gone(name).await;
        }
        kubelet.stop().await;
    });
}

#[test]
fn probes_hooks_and_init_containers() {
    world::run(|world| async move {
        let kubelet = world.kubelet().await;
        let mut container = shell(&format!(
            "echo main $(cat /work/init); touch /work/up; {FOREVER}"
        ));
        container["volumeMounts"] = json!([{ "name": "work", "mountPath": "/work" }]);
        container["startupProbe"] = json!({ "exec": { "command": ["cat", "/work/up"] }, "periodSeconds": 1, "failureThreshold": 60 });
        container["readinessProbe"] =
            json!({ "exec": { "command": ["cat", "/work/ready"] }, "periodSeconds": 1 });
        container["lifecycle"] = json!({ "postStart": { "exec": { "command": ["sh", "-c", "echo x > /work/hooked"] } } });
        let mut init = shell("echo from-init > /work/init");
        init["name"] = json!("init");
        init["volumeMounts"] = container["volumeMounts"].clone();
        world
            .pod(
                "app",
                json!({ "initContainers": [init], "containers": [container],
            "volumes": [{ "name": "work", "emptyDir": {} }] }),
            )
            .await;
        let started = |pod: &k8s_openapi::api::core::v1::Pod| {
            let statuses = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_ref());
            statuses.is_some_and(|statuses| statuses[0].started == Some(true))
        };
        let pod = world.until("app", "started", started).await;
        assert!(has(&pod, "Initialized") && !has(&pod, "Ready"));
        assert!(
            world
                .event("app", "Unhealthy")
                .await
                .starts_with("Readiness probe failed: ")
        );
        assert_eq!(world.logs("app").await, "main from-init\n");
        let (pods, quiet) = (world.pods(), AttachParams::default());
        let command = ["sh", "-c", "cat /work/hooked > /work/ready"];
        let process = pods.exec("app", command, &quiet).await.unwrap();
        process.join().await.unwrap();
        world.until("app", "ready", |pod| has(pod, "Ready")).await;
        world.delete("app", 1).await;
        world.gone("app").await;
        kubelet.stop().await;
    });
}

#[test]
fn what_is_wrong_with_a_pod_is_said() {
    world::run(|world: std::sync::Arc<World>| async move {
        let kubelet = world.kubelet().await;
        let waiting = |reason: &'static str| {
            move |pod: &k8s_openapi::api::core::v1::Pod| {
                let statuses = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.container_statuses.clone());
                let states = statuses
                    .into_iter()
                    .flatten()
                    .filter_map(|status| status.state?.waiting?.reason);
                states.into_iter().any(|known| known == reason)
            }
        };
        world.pod("nomap", json!({ "containers": [shell("true")], "volumes": [{ "name": "v", "configMap": { "name": "none" } }] })).await;
        assert!(
            world
                .event("nomap", "FailedMount")
                .await
                .contains("configmap \"none\" not found")
        );
        let mut missing = shell("true");
        missing["env"] = json!([{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "none", "key": "k" } } }]);
        world.pod("noenv", json!({ "containers": [missing] })).await;
        world
            .until("noenv", "waiting", waiting("CreateContainerConfigError"))
            .await;
        world
            .pod(
                "noimage",
                json!({ "containers": [{ "name": "c", "image": "127.0.0.1:1/none:1" }] }),
            )
            .await;
        world
            .until("noimage", "waiting", waiting("ImagePullBackOff"))
            .await;
        world
            .pod(
                "nocommand",
                json!({ "containers": [{ "name": "c", "image": BUSYBOX, "command": ["/none"] }] }),
            )
            .await;
        world
            .until("nocommand", "waiting", waiting("CrashLoopBackOff"))
            .await;
        world.pod("fails", json!({ "restartPolicy": "Never", "containers": [shell("echo why > /dev/termination-log; exit 3")] })).await;
        let pod = world
            .until("fails", "failed", |pod| phase(pod) == "Failed")
            .await;
        let ended = pod.status.unwrap().container_statuses.unwrap()[0]
            .state
            .clone()
            .unwrap()
            .terminated
            .unwrap();
        assert_eq!(
            (
                ended.exit_code,
                ended.message.as_deref(),
                ended.reason.as_deref()
            ),
            (3, Some("why\n"), Some("Error"))
        );
        for name in ["nomap", "noenv", "noimage", "nocommand", "fails"] {
            world.delete(name, 0).await;
            world.gone(name).await;
        }
        kubelet.stop().await;
    });
}
