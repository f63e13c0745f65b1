//! The machine's own kubectl against the server.

use super::support::{Cluster, DEADLINE};

const DEPLOYMENT: &str = r#"
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
    let file = cluster.manifest("web.yaml", DEPLOYMENT);
    let out = cluster.ok(&format!("apply -f {file}")).await;
    assert_eq!(out, "deployment.apps/web created\nservice/web created\n");
    let out = cluster.ok(&format!("apply -f {file}")).await;
    assert_eq!(
        out,
        "deployment.apps/web unchanged\nservice/web unchanged\n"
    );
    let changed = DEPLOYMENT
        .replace("replicas: 2", "replicas: 3")
        .replace("value: \"1\"", "value: \"2\"");
    let file = cluster.manifest("web.yaml", &changed);
    let out = cluster.ok(&format!("diff -f {file}")).await;
    assert!(out.is_empty(), "{out}");
    let out = cluster.ok(&format!("apply -f {file}")).await;
    assert_eq!(
        out,
        "deployment.apps/web configured\nservice/web unchanged\n"
    );
    let out = cluster.ok("get deployment web -o jsonpath={.spec.replicas}/{.metadata.generation}/{.spec.template.spec.containers[0].env[0].value}").await;
    assert_eq!(out, "3/2/2");
    let out = cluster.ok(&format!("delete -f {file}")).await;
    assert!(out.contains("\"web\" deleted"), "{out}");
}
