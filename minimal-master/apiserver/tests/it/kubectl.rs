//! The machine's own kubectl against the server.

use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::support::{Cluster, DEADLINE, PODS, node, pod, texts};

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: sluice.local/echo:1
        ports: [{containerPort: 8080, name: http}]
        env: [{name: A, value: "1"}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn applies_a_manifest_again_and_again() {
    let cluster = Cluster::start().await;
    let file = cluster.manifest("web.yaml", MANIFEST);
    let out = cluster.ok(&format!("apply -f {file}")).await;
    assert_eq!(out, "deployment.apps/web created\nservice/web created\n");
    let out = cluster.ok(&format!("apply -f {file}")).await;
    assert_eq!(
        out,
        "deployment.apps/web unchanged\nservice/web unchanged\n"
    );
    let changed = MANIFEST
        .replace("replicas: 2", "replicas: 3")
        .replace("\"1\"", "\"2\"");
    let file = cluster.manifest("web.yaml", &changed);
    let (diff, _) = texts(&cluster.run(&format!("diff -f {file}")).await);
    assert!(
        diff.contains("-  replicas: 2") && diff.contains("+  replicas: 3"),
        "{diff}"
    );
    let out = cluster.ok(&format!("apply -f {file}")).await;
    assert_eq!(
        out,
        "deployment.apps/web configured\nservice/web unchanged\n"
    );
    let fields =
        "{.spec.replicas}/{.metadata.generation}/{.spec.template.spec.containers[0].env[0].value}";
    let out = cluster
        .ok(&format!("get deployment web -o jsonpath={fields}"))
        .await;
    assert_eq!(out, "3/2/2");
    let out = cluster.ok(&format!("delete -f {file}")).await;
    // Newer kubectls add where it was deleted from.
    let out = out.replace(" from default namespace", "");
    assert_eq!(
        out,
        "deployment.apps \"web\" deleted\nservice \"web\" deleted\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_manifests_that_are_wrong() {
    let cluster = Cluster::start().await;
    let cases = [
        (
            MANIFEST.replace("replicas: 2", "replica: 2"),
            r#"unknown field "spec.replica""#,
        ),
        (
            MANIFEST.replace("replicas: 2", "replicas: two"),
            "spec.replicas",
        ),
        (
            MANIFEST.replace("  name: web\n  labels", "  labels"),
            "name or generateName is required",
        ),
        (
            MANIFEST.replace("image: sluice.local/echo:1", "imagePullPolicy: Always"),
            "spec.template.spec.containers[0].image: Required value",
        ),
        (
            MANIFEST.replace("labels: {app: web}}", "labels: {app: other}}"),
            "`selector` does not match template `labels`",
        ),
    ];
    for (manifest, expected) in cases {
        let deployment = manifest.split("---").next().unwrap();
        let file = cluster.manifest("bad.yaml", deployment);
        let err = cluster
            .fails(&format!("create -f {file} --validate=strict"))
            .await;
        assert!(err.contains(expected), "{expected}: {err}");
    }
    let file = cluster.manifest(
        "v9.yaml",
        &MANIFEST
            .replace("apps/v1", "apps/v9")
            .replace("kind: Service", "kind: Nothing"),
    );
    let err = cluster
        .fails(&format!("create -f {file} --validate=false"))
        .await;
    assert!(
        err.contains("no matches for kind \"Deployment\" in version \"apps/v9\""),
        "{err}"
    );
    let file = cluster.manifest("web.yaml", MANIFEST);
    cluster
        .ok(&format!("create -f {file} --dry-run=server"))
        .await;
    cluster.ok(&format!("create -f {file}")).await;
    let err = cluster.fails(&format!("create -f {file}")).await;
    assert!(
        err.contains(r#"Error from server (AlreadyExists): error when creating"#),
        "{err}"
    );
    assert!(
        err.contains(r#"deployments.apps "web" already exists"#),
        "{err}"
    );
    let err = cluster.fails("get pod none").await;
    assert_eq!(
        err,
        "Error from server (NotFound): pods \"none\" not found\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_objects_in_every_form() {
    let cluster = Cluster::start().await;
    cluster.post("/api/v1/nodes", node("n1")).await;
    let mut pod = pod("web");
    pod["spec"]["nodeName"] = json!("n1");
    cluster.post(PODS, pod).await;
    let table = cluster.ok("get pods").await;
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(lines[1][..4], ["web", "0/1", "Pending", "0"]);
    let wide = cluster.ok("get pods -o wide").await;
    assert!(wide.contains("NODE") && wide.contains("n1"), "{wide}");
    assert_eq!(cluster.ok("get pods -o name").await, "pod/web\n");
    let yaml = cluster.ok("get pod web -o yaml").await;
    assert!(yaml.starts_with("apiVersion: v1\nkind: Pod\n"), "{yaml}");
    let names = cluster
        .ok("get pods -o jsonpath={.items[*].metadata.name}")
        .await;
    assert_eq!(names, "web");
    let labels = cluster.ok("get pods --show-labels --no-headers").await;
    assert!(labels.contains("app=web"), "{labels}");
    let all = cluster.ok("get all -A").await;
    assert!(
        all.contains("pod/web") && all.contains("service/kubernetes"),
        "{all}"
    );
    let sorted = cluster
        .ok("get namespaces --sort-by=.metadata.name -o name")
        .await;
    assert_eq!(sorted.lines().next(), Some("namespace/default"));
    let described = cluster.ok("describe pod web").await;
    assert!(
        described.contains("Name:             web") && described.contains("sluice.local/echo:1"),
        "{described}"
    );
    let described = cluster.ok("describe node n1").await;
    assert!(
        described.contains("Non-terminated Pods") && described.contains("web"),
        "{described}"
    );
    cluster.ok("describe service kubernetes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_objects_in_every_way() {
    let cluster = Cluster::start().await;
    cluster
        .ok("create deployment web --image=sluice.local/echo:1 --replicas=1")
        .await;
    cluster.ok("scale deployment web --replicas=4").await;
    cluster
        .ok("set image deployment/web echo=sluice.local/echo:2")
        .await;
    cluster.ok("set env deployment/web A=b").await;
    cluster.ok("label deployment web tier=front").await;
    cluster.ok("annotate deployment web note=x").await;
    cluster
        .ok(r#"patch deployment web --type=merge -p {"spec":{"paused":true}}"#)
        .await;
    cluster.ok(r#"patch deployment web --type=json -p [{"op":"replace","path":"/spec/replicas","value":5}]"#).await;
    cluster.ok("rollout resume deployment web").await;
    cluster.ok("rollout restart deployment web").await;
    let web = cluster
        .get("/apis/apps/v1/namespaces/default/deployments/web")
        .await;
    let spec = &web["spec"];
    assert_eq!((&spec["replicas"], spec.get("paused")), (&json!(5), None));
    let container = &spec["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["image"], &container["env"][0]["value"]),
        (&json!("sluice.local/echo:2"), &json!("b"))
    );
    assert_eq!(web["metadata"]["labels"]["tier"], "front");
    assert_eq!(web["metadata"]["annotations"]["note"], "x");
    let restarted =
        &spec["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"];
    assert!(restarted.is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_with_an_editor() {
    let cluster = Cluster::start().await;
    cluster
        .ok("create configmap settings --from-literal=color=red")
        .await;
    let editor = cluster.manifest(
        "editor.sh",
        "#!/bin/sh\nsed -i 's/color: red/color: blue/' \"$1\"\n",
    );
    let edit = cluster
        .kubectl()
        .args(["edit", "configmap", "settings"])
        .env("EDITOR", format!("sh {editor}"))
        .output();
    let output = tokio::time::timeout(DEADLINE, edit).await.unwrap().unwrap();
    let (out, err) = texts(&output);
    assert_eq!(out, "configmap/settings edited\n", "{err}");
    assert_eq!(
        cluster
            .ok("get configmap settings -o jsonpath={.data.color}")
            .await,
        "blue"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replaces_and_creates_secrets_and_accounts() {
    let cluster = Cluster::start().await;
    cluster
        .ok("create secret generic keys --from-literal=a=b")
        .await;
    assert_eq!(
        cluster.ok("get secret keys -o jsonpath={.data.a}").await,
        "Yg=="
    );
    cluster.ok("create serviceaccount app").await;
    let token = cluster.ok("create token app --duration=1h").await;
    assert_eq!(token.trim().split('.').count(), 3);
    cluster.ok("create namespace shop").await;
    cluster
        .ok("-n shop create configmap x --from-literal=a=1")
        .await;
    let yaml = cluster.ok("-n shop get configmap x -o yaml").await;
    let file = cluster.manifest("x.yaml", &yaml.replace("a: \"1\"", "a: \"2\""));
    cluster.ok(&format!("replace -f {file}")).await;
    let stale = cluster.fails(&format!("replace -f {file}")).await;
    assert!(stale.contains("the object has been modified"), "{stale}");
    cluster
        .ok(&format!("replace --force -f {file}").replace(".yaml", ".yaml --grace-period=0"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discovers_and_explains() {
    let cluster = Cluster::start().await;
    let resources = cluster.ok("api-resources").await;
    for line in ["pods", "deployments", "endpointslices", "leases", "events"] {
        assert!(resources.contains(line), "{line} in {resources}");
    }
    assert_eq!(
        cluster.ok("api-resources --api-group=apps -o name").await,
        "deployments.apps\nreplicasets.apps\n"
    );
    let versions = cluster.ok("api-versions").await;
    assert!(
        versions.contains("apps/v1") && versions.contains("\nv1\n"),
        "{versions}"
    );
    let explained = cluster.ok("explain deployment.spec.replicas").await;
    assert!(
        explained.contains("FIELD: replicas <integer>"),
        "{explained}"
    );
    let explained = cluster.ok("explain pods.spec.containers").await;
    assert!(explained.contains("imagePullPolicy"), "{explained}");
    cluster.ok("cluster-info").await;
    let version = cluster.ok("version -o json").await;
    assert!(version.contains("serverVersion"), "{version}");
    assert_eq!(cluster.ok("get --raw /readyz").await, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_changes_as_they_happen() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("a")).await;
    let mut child = cluster
        .kubectl()
        .args(["get", "pods", "-w", "--output-watch-events", "--no-headers"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(DEADLINE, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        line.split_whitespace()
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(next().await, ["ADDED", "a"]);
    cluster.post(PODS, pod("b")).await;
    assert_eq!(next().await, ["ADDED", "b"]);
    cluster.ok("label pod a x=y").await;
    assert_eq!(next().await, ["MODIFIED", "a"]);
    cluster.ok("delete pod b --wait=false").await;
    assert_eq!(next().await, ["DELETED", "b"]);
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_deletions_and_conditions() {
    let cluster = Cluster::start().await;
    let mut held = pod("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.post(PODS, held).await;
    let deletion = cluster.run("delete pod held --wait");
    let release = async {
        let path = format!("{PODS}/held");
        loop {
            let mut pod = cluster.get(&path).await;
            if pod["metadata"]["deletionTimestamp"].is_string() {
                pod["metadata"]["finalizers"] = json!([]);
                cluster.put(&path, pod).await;
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let (output, ()) = tokio::join!(deletion, release);
    assert!(output.status.success(), "{:?}", texts(&output));

    cluster.post(PODS, pod("ready")).await;
    let waiting = cluster.run("wait pod/ready --for=condition=Ready --timeout=50s");
    let status = async {
        let path = format!("{PODS}/ready/status");
        let mut pod = cluster.get(&path).await;
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        cluster.put(&path, pod).await;
    };
    let (output, ()) = tokio::join!(waiting, status);
    assert_eq!(texts(&output).0, "pod/ready condition met\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn drains_a_node() {
    let cluster = Cluster::start().await;
    cluster.post("/api/v1/nodes", node("n1")).await;
    let mut running = pod("p");
    running["spec"]["nodeName"] = json!("n1");
    running["spec"]["terminationGracePeriodSeconds"] = json!(0);
    cluster.post(PODS, running).await;
    cluster.ok("cordon n1").await;
    assert_eq!(
        cluster
            .ok("get node n1 -o jsonpath={.spec.unschedulable}")
            .await,
        "true"
    );
    cluster.ok("drain n1 --force").await;
    assert!(cluster.is_gone(&format!("{PODS}/p")).await);
    cluster.ok("uncordon n1").await;
    cluster.ok("taint nodes n1 key=value:NoSchedule").await;
    assert_eq!(
        cluster
            .ok("get node n1 -o jsonpath={.spec.taints[0].key}")
            .await,
        "key"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_more_objects_than_fit_a_page() {
    let cluster = Cluster::start().await;
    for n in 0..25 {
        cluster
            .post(
                "/api/v1/namespaces/default/configmaps",
                super::support::config_map(&format!("m{n:02}")),
            )
            .await;
    }
    let out = cluster.ok("get configmaps --chunk-size=10 -o name").await;
    assert_eq!(out.lines().count(), 25);
    let out = cluster
        .ok("get configmaps --chunk-size=10 --no-headers")
        .await;
    assert_eq!(out.lines().count(), 25);
}
