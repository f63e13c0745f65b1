//! What is wrong gets a Status that says so, and changes nothing.

use http::Method;
use serde_json::{Value, json};

use super::support::{CONFIG_MAPS, Cluster, JSON, PODS, SERVICES, config_map, pod};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

struct Case {
    what: &'static str,
    method: Method,
    path: String,
    content_type: &'static str,
    body: String,
    code: u16,
    reason: &'static str,
    message: &'static str,
}

#[allow(clippy::too_many_arguments)]
fn case(
    what: &'static str,
    method: Method,
    path: impl Into<String>,
    content_type: &'static str,
    body: impl ToString,
    code: u16,
    reason: &'static str,
    message: &'static str,
) -> Case {
    Case {
        what,
        method,
        path: path.into(),
        content_type,
        body: body.to_string(),
        code,
        reason,
        message,
    }
}

fn cases() -> Vec<Case> {
    let json = "application/json";
    let of = |map: Value| config_map_with(map);
    vec![
        case(
            "unknown path",
            Method::GET,
            "/api/v1/nothings",
            json,
            "",
            404,
            "NotFound",
            "could not find the requested resource",
        ),
        case(
            "unknown group",
            Method::GET,
            "/apis/nothing.io/v1",
            json,
            "",
            404,
            "NotFound",
            "could not find",
        ),
        case(
            "missing object",
            Method::GET,
            format!("{CONFIG_MAPS}/none"),
            json,
            "",
            404,
            "NotFound",
            r#"configmaps "none" not found"#,
        ),
        case(
            "missing object, delete",
            Method::DELETE,
            format!("{CONFIG_MAPS}/none"),
            json,
            "",
            404,
            "NotFound",
            r#"configmaps "none" not found"#,
        ),
        case(
            "missing namespace",
            Method::POST,
            "/api/v1/namespaces/none/configmaps",
            json,
            config_map("x"),
            404,
            "NotFound",
            r#"namespaces "none" not found"#,
        ),
        case(
            "not JSON",
            Method::POST,
            CONFIG_MAPS,
            json,
            "{",
            400,
            "BadRequest",
            "",
        ),
        case(
            "empty body",
            Method::POST,
            CONFIG_MAPS,
            json,
            "",
            400,
            "BadRequest",
            "",
        ),
        case(
            "wrong kind",
            Method::POST,
            CONFIG_MAPS,
            json,
            pod("x"),
            400,
            "BadRequest",
            "Pod",
        ),
        case(
            "wrong type",
            Method::POST,
            CONFIG_MAPS,
            json,
            of(json!({"data": {"a": 1}})),
            400,
            "BadRequest",
            "data",
        ),
        case(
            "other namespace",
            Method::POST,
            CONFIG_MAPS,
            json,
            of(json!({"metadata": {"name": "x", "namespace": "kube-system"}})),
            400,
            "BadRequest",
            "does not match the namespace",
        ),
        case(
            "revision on create",
            Method::POST,
            CONFIG_MAPS,
            json,
            of(json!({"metadata": {"name": "x", "resourceVersion": "1"}})),
            400,
            "BadRequest",
            "resourceVersion should not be set",
        ),
        case(
            "unknown field, strict",
            Method::POST,
            format!("{CONFIG_MAPS}?fieldValidation=Strict"),
            json,
            of(json!({"dat": {}})),
            400,
            "BadRequest",
            r#"unknown field "dat""#,
        ),
        case(
            "name in use",
            Method::POST,
            CONFIG_MAPS,
            json,
            config_map("there"),
            409,
            "AlreadyExists",
            r#"configmaps "there" already exists"#,
        ),
        case(
            "no name",
            Method::POST,
            CONFIG_MAPS,
            json,
            of(json!({"metadata": {}})),
            422,
            "Invalid",
            "name or generateName is required",
        ),
        case(
            "bad name",
            Method::POST,
            CONFIG_MAPS,
            json,
            config_map("No_Name"),
            422,
            "Invalid",
            "metadata.name",
        ),
        case(
            "no containers",
            Method::POST,
            PODS,
            json,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": []}}),
            422,
            "Invalid",
            "spec.containers: Required value",
        ),
        case(
            "selector and labels differ",
            Method::POST,
            DEPLOYMENTS,
            json,
            deployment(json!({"other": "x"})),
            422,
            "Invalid",
            "spec.template.metadata.labels",
        ),
        case(
            "stale revision",
            Method::PUT,
            format!("{CONFIG_MAPS}/there"),
            json,
            of(json!({"metadata": {"name": "there", "resourceVersion": "1"}})),
            409,
            "Conflict",
            "the object has been modified",
        ),
        case(
            "other uid",
            Method::PUT,
            format!("{CONFIG_MAPS}/there"),
            json,
            of(json!({"metadata": {"name": "there", "uid": "x"}})),
            409,
            "Conflict",
            "UID in precondition: x",
        ),
        case(
            "other name",
            Method::PUT,
            format!("{CONFIG_MAPS}/there"),
            json,
            config_map("else"),
            400,
            "BadRequest",
            "does not match the name on the URL",
        ),
        case(
            "update of nothing",
            Method::PUT,
            format!("{CONFIG_MAPS}/none"),
            json,
            config_map("none"),
            404,
            "NotFound",
            r#"configmaps "none" not found"#,
        ),
        case(
            "immutable field",
            Method::PATCH,
            format!("{PODS}/web"),
            "application/merge-patch+json",
            r#"{"spec":{"nodeName":"n","containers":[{"name":"other","image":"x"}]}}"#,
            422,
            "Invalid",
            "spec",
        ),
        case(
            "patch is no JSON",
            Method::PATCH,
            format!("{CONFIG_MAPS}/there"),
            "application/merge-patch+json",
            "{",
            400,
            "BadRequest",
            "",
        ),
        case(
            "failed JSON patch",
            Method::PATCH,
            format!("{CONFIG_MAPS}/there"),
            "application/json-patch+json",
            r#"[{"op":"test","path":"/data/a","value":"z"}]"#,
            422,
            "Invalid",
            "",
        ),
        case(
            "server-side apply",
            Method::PATCH,
            format!("{CONFIG_MAPS}/there"),
            "application/apply-patch+yaml",
            "{}",
            415,
            "UnsupportedMediaType",
            "server-side apply is not supported",
        ),
        case(
            "no patch type",
            Method::PATCH,
            format!("{CONFIG_MAPS}/there"),
            json,
            "{}",
            415,
            "UnsupportedMediaType",
            "application/strategic-merge-patch+json",
        ),
        case(
            "CBOR",
            Method::POST,
            CONFIG_MAPS,
            "application/cbor",
            "k8s",
            415,
            "UnsupportedMediaType",
            "application/json",
        ),
        case(
            "damaged protobuf",
            Method::POST,
            CONFIG_MAPS,
            "application/vnd.kubernetes.protobuf",
            "k8s",
            400,
            "BadRequest",
            "magic number",
        ),
        case(
            "POST on an object",
            Method::POST,
            format!("{CONFIG_MAPS}/there"),
            json,
            config_map("there"),
            405,
            "MethodNotAllowed",
            "",
        ),
        case(
            "PUT on a collection",
            Method::PUT,
            CONFIG_MAPS,
            json,
            config_map("there"),
            405,
            "MethodNotAllowed",
            "",
        ),
        case(
            "deletion of all namespaces",
            Method::DELETE,
            "/api/v1/namespaces",
            json,
            "",
            405,
            "MethodNotAllowed",
            "",
        ),
        case(
            "read of a binding",
            Method::GET,
            format!("{PODS}/web/binding"),
            json,
            "",
            405,
            "MethodNotAllowed",
            "",
        ),
        case(
            "exec without upgrade",
            Method::GET,
            format!("{PODS}/web/exec?command=ls&stdout=true"),
            json,
            "",
            400,
            "BadRequest",
            "Upgrade request required",
        ),
        case(
            "logs of an unbound pod",
            Method::GET,
            format!("{PODS}/web/log"),
            json,
            "",
            400,
            "BadRequest",
            "does not have a host assigned",
        ),
        case(
            "bad label selector",
            Method::GET,
            format!("{PODS}?labelSelector=a%20in%20b"),
            json,
            "",
            400,
            "BadRequest",
            "",
        ),
        case(
            "bad field selector",
            Method::GET,
            format!("{PODS}?fieldSelector=spec.nothing%3Dx"),
            json,
            "",
            400,
            "BadRequest",
            "spec.nothing",
        ),
        case(
            "bad revision",
            Method::GET,
            format!("{PODS}?resourceVersion=x"),
            json,
            "",
            400,
            "BadRequest",
            "resourceVersion",
        ),
        case(
            "bad limit",
            Method::GET,
            format!("{PODS}?limit=many"),
            json,
            "",
            400,
            "BadRequest",
            "limit",
        ),
        case(
            "bad continue",
            Method::GET,
            format!("{PODS}?limit=1&continue=!"),
            json,
            "",
            400,
            "BadRequest",
            "continue",
        ),
        case(
            "bad dry run",
            Method::POST,
            format!("{CONFIG_MAPS}?dryRun=Maybe"),
            json,
            config_map("x"),
            400,
            "BadRequest",
            "dryRun",
        ),
        case(
            "bad policy",
            Method::DELETE,
            format!("{CONFIG_MAPS}/there?propagationPolicy=Never"),
            json,
            "",
            400,
            "BadRequest",
            "Never",
        ),
        case(
            "uid precondition",
            Method::DELETE,
            format!("{CONFIG_MAPS}/there"),
            json,
            r#"{"preconditions":{"uid":"x"}}"#,
            409,
            "Conflict",
            "Precondition failed",
        ),
        case(
            "immortal namespace",
            Method::DELETE,
            "/api/v1/namespaces/default",
            json,
            "",
            403,
            "Forbidden",
            "may not be deleted",
        ),
        case(
            "unknown priority class",
            Method::POST,
            PODS,
            json,
            with_class(),
            403,
            "Forbidden",
            "no PriorityClass with name nothing was found",
        ),
        case(
            "address out of range",
            Method::POST,
            SERVICES,
            json,
            service("192.0.2.1"),
            422,
            "Invalid",
            "not in the valid range",
        ),
        case(
            "address in use",
            Method::POST,
            SERVICES,
            json,
            service("10.96.0.1"),
            422,
            "Invalid",
            "already allocated",
        ),
    ]
}

fn config_map_with(fields: Value) -> Value {
    let mut map = config_map("x");
    for (name, value) in fields.as_object().unwrap() {
        map[name] = value.clone();
    }
    map
}

fn deployment(labels: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    })
}

fn with_class() -> Value {
    let mut pod = pod("p");
    pod["spec"]["priorityClassName"] = json!("nothing");
    pod
}

fn service(address: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": {"clusterIP": address, "ports": [{"port": 80}]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_answered_with_its_status() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("there")).await;
    cluster.post(PODS, pod("web")).await;
    let before = cluster.get(CONFIG_MAPS).await;
    let mut wrong = Vec::new();
    for case in cases() {
        let headers = [("content-type", case.content_type)];
        let (code, status) = cluster
            .request(case.method, &case.path, &headers, case.body.into_bytes())
            .await;
        let message = status["message"].as_str().unwrap_or_default();
        let right = code.as_u16() == case.code
            && status["kind"] == "Status"
            && status["status"] == "Failure"
            && status["code"] == case.code
            && status["reason"] == case.reason
            && message.contains(case.message);
        if !right {
            wrong.push(format!("{}: {code} {status}", case.what));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        cluster.get(CONFIG_MAPS).await,
        before,
        "nothing was changed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_fields_are_named_in_causes() {
    let cluster = Cluster::start().await;
    let mut bad = pod("p");
    bad["spec"]["containers"] =
        json!([{"name": "A"}, {"name": "b", "image": "x", "ports": [{"containerPort": 0}]}]);
    let (code, status) = cluster.send(Method::POST, PODS, bad).await;
    assert_eq!(code.as_u16(), 422, "{status}");
    let causes = status["details"]["causes"].as_array().unwrap();
    let fields: Vec<&str> = causes
        .iter()
        .filter_map(|cause| cause["field"].as_str())
        .collect();
    for field in [
        "spec.containers[0].name",
        "spec.containers[0].image",
        "spec.containers[1].ports[0].containerPort",
    ] {
        assert!(fields.contains(&field), "{field} in {fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused() {
    let cluster = Cluster::start().await;
    let value = "x".repeat(4 << 20);
    let map = config_map_with(json!({"data": {"a": value}}));
    let (code, status) = cluster
        .request(Method::POST, CONFIG_MAPS, JSON, map.to_string())
        .await;
    assert_eq!(
        (code.as_u16(), &status["reason"]),
        (413, &json!("RequestEntityTooLarge"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_forms_that_are_served_are_accepted() {
    let cluster = Cluster::start().await;
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    let (code, status) = cluster.request(Method::GET, PODS, &accept, "").await;
    assert_eq!(
        (code.as_u16(), &status["reason"]),
        (406, &json!("NotAcceptable"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_are_dropped_with_a_warning() {
    let cluster = Cluster::start().await;
    let map = config_map_with(json!({"dat": {}}));
    let request = http::Request::post(CONFIG_MAPS)
        .header("content-type", "application/json")
        .body(kube::client::Body::from(map.to_string().into_bytes()))
        .unwrap();
    let answer = cluster.client.send(request).await.unwrap();
    assert_eq!(answer.status().as_u16(), 201);
    let warning = answer.headers()["warning"].to_str().unwrap().to_owned();
    assert!(warning.starts_with("299 - \"unknown field"), "{warning}");
    assert!(
        cluster
            .get(&format!("{CONFIG_MAPS}/x"))
            .await
            .get("dat")
            .is_none()
    );
}
