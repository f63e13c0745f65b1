//! What kubectl changes, and what it is told when it may not.

use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_tests::cluster::Cluster;
use sluice_tests::kubectl::{Kubectl, Version};
use sluice_tests::poll;

pub fn installed(cluster: &Cluster) -> Result<()> {
    in_namespace(&cluster.kubectl(Version::Installed), "writes-installed")
}

pub fn newest(cluster: &Cluster) -> Result<()> {
    in_namespace(&cluster.kubectl(Version::Newest), "writes-newest")
}

fn deployment(replicas: u32, greeting: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{app: web}}
  template:
    metadata:
      labels: {{app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: echo
        image: sluice.local/echo:1
        args: [serve, --drain-ms, "0"]
        env:
        - {{name: GREETING, value: {greeting}}}
        readinessProbe:
          httpGet: {{path: /readyz, port: 8080}}
          periodSeconds: 1
"#
    )
}

fn in_namespace(kubectl: &Kubectl, namespace: &str) -> Result<()> {
    kubectl.run(&format!("create namespace {namespace}"))?;
    let rollout = || {
        kubectl.run(&format!(
            "rollout status deployment/web -n {namespace} --timeout=60s"
        ))
    };
    let in_it = |words: &str| kubectl.run(&format!("{words} -n {namespace}"));
    let feed = |words: &str, manifest: &str| {
        sluice_tests::cluster::succeeded(
            &kubectl.feed(&format!("{words} -f - -n {namespace}"), manifest)?,
        )
    };
    feed("create", &deployment(1, "one"))?;
    rollout()?;
    // Applied on top of what was created, and once more without a change.
    feed("apply", &deployment(2, "two"))?;
    rollout()?;
    let unchanged = feed("apply", &deployment(2, "two"))?;
    ensure!(
        unchanged.contains("unchanged"),
        "the second apply says {unchanged}"
    );
    let shown = in_it("get deployment web -o yaml")?;
    ensure!(
        shown.contains("value: two") && shown.contains("replicas: 2"),
        "{shown}"
    );
    let revisions = in_it("rollout history deployment/web")?;
    ensure!(revisions.contains('2'), "{revisions}");

    edit_and_patch(kubectl, namespace)?;
    in_it("scale deployment/web --replicas=3")?;
    rollout()?;
    in_it("rollout restart deployment/web")?;
    rollout()?;
    in_it("label deployment web tier=test")?;
    in_it("annotate deployment web note=test")?;
    in_it("expose deployment web --port=80 --target-port=8080")?;
    in_it("set image deployment/web echo=sluice.local/echo:1")?;
    deletions(kubectl, namespace)
}

fn edit_and_patch(kubectl: &Kubectl, namespace: &str) -> Result<()> {
    let edited = kubectl
        .command(&format!("edit deployment web -n {namespace}"))
        .env(
            "KUBE_EDITOR",
            "sed -i 's/progressDeadlineSeconds:.*/progressDeadlineSeconds: 120/'",
        )
        .output()?;
    sluice_tests::cluster::succeeded(&edited)?;
    let patch = |kind: &str, text: &str| {
        kubectl.run_with(
            &format!("patch deployment web -n {namespace} --type={kind} -p"),
            text,
        )
    };
    patch("merge", r#"{"metadata":{"annotations":{"by":"merge"}}}"#)?;
    patch(
        "json",
        r#"[{"op":"add","path":"/metadata/annotations/also","value":"json"}]"#,
    )?;
    patch(
        "strategic",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"echo","env":[{"name":"ADDED","value":"x"}]}]}}}}"#,
    )?;
    let object = kubectl.json(&format!("get deployment web -n {namespace}"))?;
    let annotations = &object["metadata"]["annotations"];
    ensure!(
        annotations["by"] == "merge" && annotations["also"] == "json",
        "{annotations}"
    );
    ensure!(
        object["spec"]["progressDeadlineSeconds"] == 120,
        "the edit was not stored"
    );
    let environment = object["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    ensure!(
        environment.contains("GREETING") && environment.contains("ADDED"),
        "{environment}"
    );
    Ok(())
}

/// `--wait`, which is the default, returns when the object is gone; a namespace takes its contents along.
fn deletions(kubectl: &Kubectl, namespace: &str) -> Result<()> {
    let pods = kubectl.run(&format!("get pods -n {namespace} -o name"))?;
    let first = pods.lines().next().unwrap_or_default();
    kubectl.run(&format!(
        "delete {first} -n {namespace} --wait --timeout=60s"
    ))?;
    let gone = kubectl.refused(&format!("get {first} -n {namespace}"), "")?;
    ensure!(gone.contains("NotFound"), "{gone}");
    kubectl.run(&format!(
        "delete deployment web -n {namespace} --wait --timeout=60s"
    ))?;
    poll::until(
        "the Deployment's pods are collected",
        Duration::from_secs(60),
        || {
            let left = kubectl.run(&format!("get pods -n {namespace} -o name"))?;
            ensure!(left.is_empty(), "left: {left}");
            Ok(())
        },
    )?;
    kubectl.run(&format!(
        "delete namespace {namespace} --wait --timeout=60s"
    ))?;
    let gone = kubectl.refused(&format!("get namespace {namespace}"), "")?;
    ensure!(gone.contains("NotFound"), "{gone}");
    Ok(())
}

pub fn bad_manifests_installed(cluster: &Cluster) -> Result<()> {
    bad_manifests(&cluster.kubectl(Version::Installed))
}

pub fn bad_manifests_newest(cluster: &Cluster) -> Result<()> {
    bad_manifests(&cluster.kubectl(Version::Newest))
}

/// A manifest, how it is sent, and what its author must be told.
const BAD: [(&str, &str, &[&str]); 6] = [
    (
        "create -f -",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: bad}, dta: {a: b}}",
        &["unknown field", "dta"],
    ),
    (
        "create --validate=false -f -",
        "{apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {ports: text}}",
        &["spec.ports"],
    ),
    (
        "create -f -",
        "{apiVersion: v1, kind: ConfigMap, metadata: {namespace: default}}",
        &["name"],
    ),
    (
        "create -f -",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: echo}}",
        &["AlreadyExists", "echo"],
    ),
    (
        "create -f -",
        "{apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {ports: [{port: 0}]}}",
        &["Invalid", "spec.ports[0].port"],
    ),
    (
        "create -f - -n absent",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: bad}}",
        &["absent", "not found"],
    ),
];

fn bad_manifests(kubectl: &Kubectl) -> Result<()> {
    for (words, manifest, expected) in BAD {
        let complaint = kubectl.refused(words, manifest)?;
        for text in expected {
            ensure!(
                complaint.contains(text),
                "{manifest}: {text:?} is not in {complaint:?}"
            );
        }
    }
    let missing = kubectl.refused("get pod absent", "")?;
    ensure!(
        missing.contains("NotFound") && missing.contains("\"absent\" not found"),
        "{missing}"
    );
    Ok(())
}
