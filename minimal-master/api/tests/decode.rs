//! Decoding and defaulting: what comes in as bytes, what is stored.

use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_api::schema::{self, FieldValidation};
use sluice_api::{defaults, kinds, prepare};

const DEPLOYMENT: &str =
    r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":SPEC}"#;

fn deployment(spec: &str) -> Vec<u8> {
    DEPLOYMENT.replace("SPEC", spec).into_bytes()
}

fn read(spec: &str, mode: FieldValidation) -> Result<(Value, Vec<String>), String> {
    schema::read(
        &kinds::DEPLOYMENT,
        &deployment(spec),
        Some("application/json"),
        mode,
    )
    .map_err(|error| format!("{} {}", error.code, error.message))
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    for (spec, expected) in [
        (
            r#"{"replicas":"x"}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"replicas":1.5}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"replicas":3000000000}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"paused":"yes"}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
        (
            r#"[]"#,
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            r#"{"template":{"spec":{"containers":[{"name":"a","image":1}]}}}"#,
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type string",
        ),
        (
            r#"{"template":{"spec":{"containers":{"name":"a"}}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            r#"{"template":{"metadata":{"labels":{"a":true}}}}"#,
            "json: cannot unmarshal bool into Go struct field ObjectMeta.spec.template.metadata.labels of type string",
        ),
        (
            r#"{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"fast"}}}]}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        let error = read(spec, FieldValidation::Ignore).expect_err(spec);
        let expected = format!(
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: {expected}"
        );
        assert_eq!(error, expected);
    }
}

#[test]
fn unknown_and_duplicate_fields_follow_the_mode() {
    let spec =
        r#"{"foo":1,"replicas":1,"replicas":2,"template":{"spec":{"containers":[{"nmae":"a"}]}}}"#;
    let strict = read(spec, FieldValidation::Strict).expect_err("strict");
    assert_eq!(
        strict,
        "400 Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.foo\", unknown field \"spec.template.spec.containers[0].nmae\", duplicate field \"spec.replicas\""
    );
    let (object, warnings) = read(spec, FieldValidation::Warn).expect("warns");
    assert_eq!(
        object["spec"],
        json!({"replicas": 2, "template": {"spec": {"containers": [{}]}}})
    );
    assert_eq!(
        warnings,
        [
            "unknown field \"spec.foo\"",
            "unknown field \"spec.template.spec.containers[0].nmae\"",
            "duplicate field \"spec.replicas\"",
        ]
    );
    let (_, warnings) = read(spec, FieldValidation::Ignore).expect("ignores");
    assert!(warnings.is_empty());
}

#[test]
fn the_mode_is_one_of_three() {
    assert_eq!(FieldValidation::parse(None), Ok(FieldValidation::Warn));
    assert_eq!(
        FieldValidation::parse(Some("Strict")),
        Ok(FieldValidation::Strict)
    );
    assert_eq!(
        FieldValidation::parse(Some("foo"))
            .expect_err("unknown")
            .message,
        "fieldValidation: Unsupported value: \"foo\": supported values: \"Ignore\", \"Strict\", \"Warn\""
    );
}

#[test]
fn version_and_kind_are_filled_in_or_refused() {
    let read = |body: &str| {
        schema::read(
            &kinds::CONFIG_MAP,
            body.as_bytes(),
            None,
            FieldValidation::Strict,
        )
        .map(|(object, _)| object)
        .map_err(|error| error.message)
    };
    let object = read(r#"{"metadata":{"name":"a"}}"#).expect("filled in");
    assert_eq!(
        (&object["apiVersion"], &object["kind"]),
        (&json!("v1"), &json!("ConfigMap"))
    );
    assert_eq!(
        read(r#"{"apiVersion":"apps/v1","kind":"ConfigMap"}"#).expect_err("version"),
        "the API version in the data (apps/v1) does not match the expected API version (v1)"
    );
    assert!(
        read(r#"{"apiVersion":"v1","kind":"Secret"}"#)
            .expect_err("kind")
            .starts_with("Secret in version \"v1\" cannot be handled as a ConfigMap")
    );
    assert!(read("{").expect_err("broken").starts_with("the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: "));
    assert!(
        read("[]")
            .expect_err("a list")
            .contains("must be of type ConfigMap")
    );
    assert!(read("").expect_err("nothing").ends_with("(<empty>)"));
}

#[test]
fn yaml_and_other_media_types() {
    let yaml = "kind: ConfigMap\ndata:\n  a: b\n  a: c\n";
    let read = |content_type| {
        schema::read(
            &kinds::CONFIG_MAP,
            yaml.as_bytes(),
            Some(content_type),
            FieldValidation::Warn,
        )
    };
    let (object, warnings) = read("application/yaml; charset=utf-8").expect("YAML");
    assert_eq!(object["data"]["a"], "c");
    assert_eq!(warnings, ["duplicate field \"data.a\""]);
    let error = read("application/x-www-form-urlencoded").expect_err("refused");
    assert_eq!(error.code, 415);
    assert_eq!(
        error.message,
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml"
    );
    assert_eq!(
        schema::parse(b"1: 2\ntrue: 3", Some("application/yaml"))
            .expect("keys")
            .value,
        json!({"1": 2, "true": 3})
    );
}

#[test]
fn what_is_empty_vanishes() {
    let body = br#"{"metadata":{"name":"a","labels":{},"creationTimestamp":null,"annotations":{"x":null}},"data":{}}"#;
    let (object, _) =
        schema::read(&kinds::CONFIG_MAP, body, None, FieldValidation::Strict).expect("decodes");
    assert_eq!(
        object,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "annotations": {"x": ""}}})
    );
}

#[test]
fn texts_with_a_meaning_are_checked() {
    let decode = |kind: &kinds::Kind, mut object: Value| {
        schema::decode(kind, &mut object, FieldValidation::Strict).map_err(|error| error.message)
    };
    assert!(decode(&kinds::SECRET, json!({"data": {"a": "YWI="}})).is_ok());
    let error = decode(&kinds::SECRET, json!({"data": {"a": "Y!I="}})).expect_err("base64");
    assert!(
        error.ends_with("illegal base64 data at input byte 1"),
        "{error}"
    );
    assert!(
        decode(
            &kinds::LEASE,
            json!({"spec": {"renewTime": "2026-01-02T03:04:05.000006Z"}})
        )
        .is_ok()
    );
    assert!(
        decode(&kinds::LEASE, json!({"spec": {"renewTime": "yesterday"}}))
            .expect_err("time")
            .contains("parsing time \"yesterday\"")
    );
    let mut pod = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": 0.5, "memory": "1.5Gi"}}}]}});
    schema::decode(&kinds::POD, &mut pod, FieldValidation::Strict).expect("quantities");
    assert_eq!(
        pod["spec"]["containers"][0]["resources"]["limits"],
        json!({"cpu": "500m", "memory": "1536Mi"})
    );
}

#[test]
fn every_kind_has_a_type() {
    let parts = [
        &kinds::BINDING,
        &kinds::EVICTION,
        &kinds::SCALE,
        &kinds::DELETE_OPTIONS,
        &kinds::STATUS,
    ];
    for kind in kinds::all().iter().copied().chain(parts) {
        schema::decode(kind, &mut json!({}), FieldValidation::Strict).expect(kind.schema);
    }
}

#[test]
fn options_come_under_any_version() {
    let body =
        br#"{"kind":"DeleteOptions","apiVersion":"apps/v1","propagationPolicy":"Background"}"#;
    let read = schema::read(&kinds::DELETE_OPTIONS, body, None, FieldValidation::Strict);
    assert_eq!(read.expect("decodes").0["propagationPolicy"], "Background");
}

fn defaulted(kind: &kinds::Kind, mut object: Value) -> Value {
    schema::decode(kind, &mut object, FieldValidation::Strict).expect("decodes");
    defaults::apply(kind, &mut object);
    let once = object.clone();
    defaults::apply(kind, &mut object);
    assert_eq!(object, once, "defaulting twice changes nothing");
    object
}

#[test]
fn a_pod_is_defaulted() {
    let pod = defaulted(
        &kinds::POD,
        json!({"spec": {
            "serviceAccountName": "robot",
            "containers": [{
                "name": "app", "image": "app",
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1"}},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "readinessProbe": {"httpGet": {"port": 80}},
            }],
            "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "c"}}],
        }}),
    );
    assert_eq!(
        pod,
        json!({"spec": {
            "containers": [{
                "name": "app", "image": "app",
                "imagePullPolicy": "Always",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                "readinessProbe": {
                    "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
                    "failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1,
                },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccount": "robot",
            "serviceAccountName": "robot",
            "terminationGracePeriodSeconds": 30,
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "c", "defaultMode": 420}}],
        }})
    );
}

#[test]
fn images_without_a_tag_are_always_pulled() {
    for (image, latest) in [
        ("app", true),
        ("app:latest", true),
        ("app:1", false),
        ("registry:5000/app", true),
        ("registry:5000/app:1", false),
        ("app@sha256:00", false),
        ("", false),
    ] {
        assert_eq!(defaults::tag_is_latest(image), latest, "{image}");
    }
}

#[test]
fn a_deployment_is_defaulted_without_what_only_pods_get() {
    let deployment = defaulted(
        &kinds::DEPLOYMENT,
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "a:1"}]}}}}),
    );
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    let template = &spec["template"]["spec"];
    assert_eq!(template["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert!(template.get("enableServiceLinks").is_none());
    let recreate = defaulted(
        &kinds::DEPLOYMENT,
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn a_service_is_defaulted_by_its_type() {
    let service = defaulted(&kinds::SERVICE, json!({"spec": {"ports": [{"port": 80}]}}));
    assert_eq!(
        service["spec"],
        json!({
            "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        })
    );
    let service = defaulted(
        &kinds::SERVICE,
        json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "ports": [{"port": 80, "targetPort": "http"}]}}),
    );
    assert_eq!(service["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(service["spec"]["allocateLoadBalancerNodePorts"], true);
    assert_eq!(
        service["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"],
        10_800
    );
    assert_eq!(service["spec"]["ports"][0]["targetPort"], "http");
}

#[test]
fn other_kinds_are_defaulted() {
    let secret = defaulted(
        &kinds::SECRET,
        json!({"data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}}),
    );
    assert_eq!(
        secret,
        json!({"type": "Opaque", "data": {"a": "eQ==", "b": "eg=="}})
    );
    let node = defaulted(
        &kinds::NODE,
        json!({"spec": {"podCIDR": "10.0.0.0/24"}, "status": {"capacity": {"cpu": "2"}}}),
    );
    assert_eq!(node["spec"]["podCIDRs"], json!(["10.0.0.0/24"]));
    assert_eq!(node["status"]["allocatable"], json!({"cpu": "2"}));
    let namespace = defaulted(&kinds::NAMESPACE, json!({"metadata": {"name": "a"}}));
    assert_eq!(
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "a"
    );
    let slice = defaulted(&kinds::ENDPOINT_SLICE, json!({"ports": [{"port": 80}]}));
    assert_eq!(
        slice["ports"],
        json!([{"name": "", "port": 80, "protocol": "TCP"}])
    );
    assert_eq!(
        defaulted(&kinds::REPLICA_SET, json!({"spec": {}}))["spec"]["replicas"],
        1
    );
}

#[test]
fn status_and_spec_are_written_apart() {
    let old = json!({
        "metadata": {"name": "web", "uid": "u", "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"replicas": 2},
        "status": {"replicas": 2},
    });
    let mut new =
        json!({"metadata": {"name": "web"}, "spec": {"replicas": 5}, "status": {"replicas": 9}});
    prepare::for_update(&kinds::DEPLOYMENT, &mut new, &old);
    assert_eq!(new["metadata"]["generation"], 4);
    assert_eq!(new["metadata"]["uid"], "u");
    assert_eq!(new["status"], json!({"replicas": 2}));

    let mut same = old.clone();
    same["metadata"]["labels"] = json!({"a": "b"});
    prepare::for_update(&kinds::DEPLOYMENT, &mut same, &old);
    assert_eq!(same["metadata"]["generation"], 3);

    let mut status = json!({"metadata": {"name": "web", "labels": {"x": "y"}}, "spec": {"replicas": 0}, "status": {"replicas": 1}});
    prepare::for_status_update(&kinds::DEPLOYMENT, &mut status, &old);
    assert_eq!(status["spec"], old["spec"]);
    assert_eq!(status["status"], json!({"replicas": 1}));
    assert_eq!(status["metadata"]["generation"], 3);
    assert!(status["metadata"].get("labels").is_none());
}

#[test]
fn a_create_starts_from_the_beginning() {
    let mut pod = json!({
        "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "generation": 7},
        "spec": {"containers": []},
        "status": {"phase": "Running"},
    });
    prepare::for_create(&kinds::POD, &mut pod);
    assert_eq!(pod["metadata"], json!({"name": "a", "generation": 1}));
    assert_eq!(
        pod["status"],
        json!({"phase": "Pending", "qosClass": "BestEffort"})
    );
    let mut namespace = json!({"metadata": {"name": "a"}});
    prepare::for_create(&kinds::NAMESPACE, &mut namespace);
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(namespace["status"]["phase"], "Active");
    // A kubelet registers its node with its status.
    let mut node = json!({"metadata": {"name": "a"}, "status": {"capacity": {"cpu": "2"}}});
    prepare::for_create(&kinds::NODE, &mut node);
    assert_eq!(node["status"]["capacity"]["cpu"], "2");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let names = prop::sample::select(vec![
        "metadata",
        "spec",
        "status",
        "labels",
        "annotations",
        "containers",
        "template",
        "ports",
        "name",
        "selector",
        "matchLabels",
        "replicas",
        "strategy",
        "rollingUpdate",
        "volumes",
        "env",
        "resources",
        "limits",
        "data",
        "type",
        "endpoints",
        "addresses",
        "subsets",
        "taints",
        "podCIDRs",
        "conditions",
        "containerStatuses",
        "state",
        "tolerations",
        "clusterIPs",
        "finalizers",
        "ownerReferences",
        "x",
    ]);
    leaf.prop_recursive(6, 48, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..5).prop_map(|entries| {
                entries
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn garbage_is_refused_and_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for kind in kinds::all() {
            for content_type in ["application/json", "application/yaml"] {
                let read = schema::read(kind, &bytes, Some(content_type), FieldValidation::Strict);
                if let Err(error) = read {
                    prop_assert_eq!(error.code, 400);
                }
            }
        }
    }

    /// Whatever passes decoding passes all that follows without a panic, and decoding again changes nothing.
    #[test]
    fn any_document_goes_through_every_step(document in any_json(), other in any_json()) {
        for kind in kinds::all() {
            // Nothing may rely on decoding for its safety either.
            let _ = sluice_api::validate::create(kind, &document);
            let _ = sluice_api::validate::update(kind, &document, &other);
            let _ = sluice_api::validate::status_update(kind, &document, &other);
            let _ = sluice_api::patch::strategic(kind, &document, &other);
            let (mut object, mut old) = (document.clone(), other.clone());
            let decodes = |object: &mut Value| {
                schema::decode(kind, object, FieldValidation::Ignore).is_ok()
            };
            if !decodes(&mut object) {
                continue;
            }
            if decodes(&mut old) {
                prepare::for_create(kind, &mut object.clone());
                prepare::for_update(kind, &mut object.clone(), &old);
                prepare::for_status_update(kind, &mut object.clone(), &old);
            }
            let mut again = object.clone();
            let unknown = schema::decode(kind, &mut again, FieldValidation::Strict);
            prop_assert_eq!(unknown, Ok(Vec::new()));
            prop_assert_eq!(&again, &object);
            defaults::apply(kind, &mut object);
            let now = jiff::Timestamp::UNIX_EPOCH;
            let meta = sluice_api::table::ListMeta::default();
            sluice_api::table::render(kind, [&object], &meta, sluice_api::table::IncludeObject::None, now);
        }
    }
}
