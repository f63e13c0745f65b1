//! Validation as kubectl's users see it: an object goes through decoding, defaults and preparation first, as in the
//! API server, and the errors are compared as text.

use serde_json::{Value, json};
use sluice_api::schema::FieldValidation;
use sluice_api::{ApiError, Kind, defaults, kinds, prepare, schema, validate};

fn prepared(kind: &Kind, object: Value) -> Value {
    let mut object = object;
    object["metadata"]["name"] = object["metadata"]
        .get("name")
        .cloned()
        .unwrap_or(json!("x"));
    if kind.namespaced {
        object["metadata"]["namespace"] = json!("default");
    }
    schema::decode(kind, &mut object, FieldValidation::Strict).expect("decodes");
    defaults::apply(kind, &mut object);
    prepare::for_create(kind, &mut object);
    object
}

/// The errors of a create, one a line.
fn errors(kind: &Kind, object: Value) -> Vec<String> {
    validate::create(kind, &prepared(kind, object))
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The errors of an update of `old`, in which `change` replaces parts (as a merge patch).
fn update_errors(kind: &Kind, old: Value, change: Value) -> Vec<String> {
    let old = prepared(kind, old);
    let mut new = sluice_api::patch::merge(kind, &old, &change).expect("merges");
    schema::decode(kind, &mut new, FieldValidation::Strict).expect("decodes");
    defaults::apply(kind, &mut new);
    prepare::for_update(kind, &mut new, &old);
    validate::update(kind, &new, &old)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "app", "image": "app:1"}]);
    }
    json!({"spec": spec})
}

fn with_container(fields: Value) -> Value {
    let mut container = json!({"name": "app", "image": "app:1"});
    for (key, value) in fields.as_object().expect("fields") {
        container[key] = value.clone();
    }
    pod(json!({"containers": [container]}))
}

fn deployment() -> Value {
    json!({"spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "app", "image": "app:1"}]},
        },
    }})
}

fn service(spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{"port": 80}]);
    }
    json!({"spec": spec})
}

#[test]
fn minimal_objects_are_valid() {
    for (kind, object) in [
        (&kinds::POD, pod(json!({}))),
        (&kinds::DEPLOYMENT, deployment()),
        (&kinds::REPLICA_SET, deployment()),
        (&kinds::SERVICE, service(json!({}))),
        (
            &kinds::SERVICE,
            service(json!({"type": "NodePort", "clusterIP": "10.96.0.1"})),
        ),
        (
            &kinds::SERVICE,
            service(json!({"clusterIP": "None", "ports": []})),
        ),
        (&kinds::SERVICE, service(json!({"type": "LoadBalancer"}))),
        (
            &kinds::SERVICE,
            json!({"spec": {"type": "ExternalName", "externalName": "db.example."}}),
        ),
        (&kinds::CONFIG_MAP, json!({"data": {"a": "b"}})),
        (&kinds::SECRET, json!({"stringData": {"a": "b"}})),
        (&kinds::SERVICE_ACCOUNT, json!({})),
        (&kinds::NAMESPACE, json!({})),
        (
            &kinds::NODE,
            json!({"spec": {"podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]}}),
        ),
        (
            &kinds::LEASE,
            json!({"spec": {"leaseDurationSeconds": 40, "holderIdentity": "node1"}}),
        ),
        (
            &kinds::ENDPOINT_SLICE,
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
        ),
        (
            &kinds::ENDPOINTS,
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
        ),
        (
            &kinds::EVENT,
            json!({"involvedObject": {"kind": "Pod", "namespace": "default"}}),
        ),
    ] {
        assert_eq!(
            errors(kind, object.clone()),
            Vec::<String>::new(),
            "{object}"
        );
    }
}

#[test]
fn a_status_names_every_field() {
    let object = prepared(
        &kinds::DEPLOYMENT,
        json!({"metadata": {"name": "web"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": "app:1"}]}},
        }}),
    );
    let errors = validate::create(&kinds::DEPLOYMENT, &object);
    let status = ApiError::invalid(&kinds::DEPLOYMENT, "web", errors).status();
    assert_eq!(
        status,
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "Deployment.apps \"web\" is invalid: spec.template.spec.containers[0].name: Required value",
            "reason": "Invalid",
            "code": 422,
            "details": {
                "name": "web",
                "group": "apps",
                "kind": "Deployment",
                "causes": [{
                    "reason": "FieldValueRequired",
                    "message": "Required value",
                    "field": "spec.template.spec.containers[0].name",
                }],
            },
        })
    );
}

#[test]
fn several_errors_are_listed() {
    let object = prepared(
        &kinds::POD,
        json!({"spec": {"containers": []}, "metadata": {"name": "A"}}),
    );
    let error = ApiError::invalid(&kinds::POD, "A", validate::create(&kinds::POD, &object));
    assert!(error.message.starts_with("Pod \"A\" is invalid: [metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must"), "{error}");
    assert!(
        error
            .message
            .ends_with(", spec.containers: Required value]"),
        "{error}"
    );
}

#[test]
fn metadata() {
    for (metadata, expected) in [
        (
            json!({"labels": {"a": "b c"}}),
            "metadata.labels: Invalid value: \"b c\": a valid label must be",
        ),
        (
            json!({"labels": {"a/b/c": ""}}),
            "metadata.labels: Invalid value: \"a/b/c\": a qualified name must",
        ),
        (
            json!({"annotations": {"-": ""}}),
            "metadata.annotations: Invalid value: \"-\": name part must",
        ),
        (
            json!({"finalizers": ["a b"]}),
            "metadata.finalizers: Invalid value: \"a b\"",
        ),
        (
            json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}]}),
            "metadata.ownerReferences[0].uid: Invalid value: \"\": must not be empty",
        ),
    ] {
        let errors = errors(&kinds::CONFIG_MAP, json!({"metadata": metadata}));
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(expected), "{errors:?}");
    }
    let large = json!({"metadata": {"annotations": {"a": "x".repeat(300_000)}}});
    assert_eq!(
        errors(&kinds::CONFIG_MAP, large),
        ["metadata.annotations: Too long: may not be more than 262144 bytes"]
    );
    let unnamed = json!({"metadata": {"name": ""}});
    assert_eq!(
        errors(&kinds::CONFIG_MAP, unnamed),
        ["metadata.name: Required value: name or generateName is required"]
    );
    assert!(
        errors(
            &kinds::SERVICE,
            json!({"metadata": {"name": "1a"}, "spec": {"ports": [{"port": 1}]}})
        )[0]
        .contains("DNS-1035")
    );
    assert!(
        errors(&kinds::NAMESPACE, json!({"metadata": {"name": "a.b"}}))[0]
            .ends_with("must not contain dots")
    );
}

#[test]
fn containers() {
    for (fields, expected) in [
        (
            json!({"image": ""}),
            "spec.containers[0].image: Required value",
        ),
        (
            json!({"image": " a"}),
            "spec.containers[0].image: Invalid value: \" a\": must not have leading or trailing whitespace",
        ),
        (
            json!({"name": "a.b"}),
            "spec.containers[0].name: Invalid value: \"a.b\": must not contain dots",
        ),
        (
            json!({"imagePullPolicy": "Often"}),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            json!({"ports": [{"containerPort": 0}]}),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            json!({"ports": [{"containerPort": 70000}]}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81, "name": "http"}]}),
            "spec.containers[0].ports[1].name: Duplicate value: \"http\"",
        ),
        (
            json!({"ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]}),
            "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\"",
        ),
        (
            json!({"ports": [{"containerPort": 80, "protocol": "tcp"}]}),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            json!({"env": [{"name": "", "value": "x"}]}),
            "spec.containers[0].env[0].name: Required value",
        ),
        (
            json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]}),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ),
        (
            json!({"envFrom": [{"prefix": "P_"}]}),
            "spec.containers[0].envFrom[0]: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ),
        (
            json!({"resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "0.1"}}}),
            "spec.containers[0].resources.requests: Invalid value: \"200m\": must be less than or equal to cpu limit of 100m",
        ),
        (
            json!({"resources": {"limits": {"memory": "-1"}}}),
            "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            json!({"volumeMounts": [{"name": "gone", "mountPath": "/x"}]}),
            "spec.containers[0].volumeMounts[0].name: Not found: \"gone\"",
        ),
        (
            json!({"livenessProbe": {}}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            json!({"livenessProbe": {"exec": {"command": ["x"]}, "successThreshold": 2}}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            json!({"readinessProbe": {"httpGet": {"port": 0}}}),
            "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"readinessProbe": {"tcpSocket": {"port": "NOPE"}}}),
            "spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: \"NOPE\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (
            json!({"readinessProbe": {"exec": {"command": ["x"]}, "periodSeconds": -1}}),
            "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({"lifecycle": {"preStop": {"exec": {}, "sleep": {"seconds": 1}}}}),
            "spec.containers[0].lifecycle.preStop.exec.command: Required value",
        ),
        (
            json!({"securityContext": {"runAsUser": -1}}),
            "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 4294967295, inclusive",
        ),
    ] {
        let errors = errors(&kinds::POD, with_container(fields));
        assert_eq!(
            errors.first().map(String::as_str),
            Some(expected),
            "{errors:?}"
        );
    }
}

#[test]
fn pod_specs() {
    for (spec, expected) in [
        (
            json!({"restartPolicy": "Sometimes"}),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            json!({"nodeSelector": {"a": "/"}}),
            "spec.nodeSelector: Invalid value: \"/\": a valid label must",
        ),
        (
            json!({"tolerations": [{"operator": "Equal"}]}),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ),
        (
            json!({"tolerations": [{"key": "a", "tolerationSeconds": 1}]}),
            "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ),
        (
            json!({"volumes": [{"name": "a"}, {"name": "a"}]}),
            "spec.volumes[1].name: Duplicate value: \"a\"",
        ),
        (
            json!({"volumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}]}),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"volumes": [{"name": "a", "secret": {}}]}),
            "spec.volumes[0].secret.secretName: Required value",
        ),
        (
            json!({"volumes": [{"name": "a", "configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}}]}),
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            json!({"volumes": [{"name": "a", "configMap": {"name": "c", "defaultMode": 1000}}]}),
            "spec.volumes[0].configMap.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (
            json!({"initContainers": [{"name": "app", "image": "i"}]}),
            "spec.initContainers[0].name: Duplicate value: \"app\"",
        ),
        (
            json!({"initContainers": [{"name": "i", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}}}]}),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (
            json!({"dnsPolicy": "None"}),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": ""}]}}}),
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
        ),
        (
            json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            json!({"activeDeadlineSeconds": 0}),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            json!({"hostAliases": [{"ip": "x"}]}),
            "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
    ] {
        let errors = errors(&kinds::POD, pod(spec));
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(expected), "{errors:?}");
    }
}

#[test]
fn a_pod_changes_only_where_it_may() {
    let old = || {
        pod(
            json!({"terminationGracePeriodSeconds": 5, "tolerations": [{"key": "a", "operator": "Exists"}]}),
        )
    };
    let image = json!({"spec": {"containers": [{"name": "app", "image": "app:2"}]}});
    assert_eq!(
        update_errors(&kinds::POD, old(), image),
        Vec::<String>::new()
    );
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(
        update_errors(&kinds::POD, old(), labels),
        Vec::<String>::new()
    );
    let more = json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]}});
    assert_eq!(
        update_errors(&kinds::POD, old(), more),
        Vec::<String>::new()
    );
    let fewer = json!({"spec": {"tolerations": []}});
    assert_eq!(
        update_errors(&kinds::POD, old(), fewer),
        [
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
        ]
    );
    let added = json!({"spec": {"containers": [{"name": "app", "image": "app:1"}, {"name": "b", "image": "b"}]}});
    assert_eq!(
        update_errors(&kinds::POD, old(), added),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    let node = update_errors(&kinds::POD, old(), json!({"spec": {"nodeName": "node1"}}));
    assert!(node[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"), "{node:?}");
    assert!(
        node[0].ends_with("\n  spec.nodeName: <unset> -> \"node1\""),
        "{node:?}"
    );
    let deadline = json!({"spec": {"activeDeadlineSeconds": 10}});
    assert_eq!(
        update_errors(&kinds::POD, old(), deadline),
        Vec::<String>::new()
    );
}

#[test]
fn the_status_of_a_pod_does_not_go_back() {
    let mut old = prepared(&kinds::POD, pod(json!({"restartPolicy": "Never"})));
    old["status"]["containerStatuses"] =
        json!([{"name": "app", "state": {"terminated": {"exitCode": 1}}}]);
    let mut new = old.clone();
    new["status"]["containerStatuses"] = json!([{"name": "app", "state": {"running": {}}}]);
    new["status"]["podIPs"] = json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]);
    let errors = validate::status_update(&kinds::POD, &new, &old);
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts[0],
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    );
    assert!(
        texts[1].starts_with("status.podIPs: Invalid value"),
        "{texts:?}"
    );
    assert_eq!(texts.len(), 2);
}

#[test]
fn workloads() {
    let with = |change: Value| {
        sluice_api::patch::merge(&kinds::DEPLOYMENT, &deployment(), &change).expect("merges")
    };
    for (change, expected) in [
        (
            json!({"spec": {"selector": null}}),
            "spec.selector: Required value",
        ),
        (
            json!({"spec": {"selector": {"matchLabels": {"app": "db"}}}}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ),
        (
            json!({"spec": {"replicas": -1}}),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {}}}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            json!({"spec": {"strategy": {"type": "Blue"}}}),
            "spec.strategy.type: Unsupported value: \"Blue\": supported values: \"Recreate\", \"RollingUpdate\"",
        ),
        (
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
        ),
        (
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": "lots"}}}}),
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"lots\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        ),
        (
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            json!({"spec": {"progressDeadlineSeconds": 5, "minReadySeconds": 5}}),
            "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
        ),
        (
            json!({"spec": {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}}),
            "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
    ] {
        let errors = errors(&kinds::DEPLOYMENT, with(change));
        assert_eq!(
            errors.first().map(String::as_str),
            Some(expected),
            "{errors:?}"
        );
    }
    let change = json!({"spec": {
        "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}}},
    }});
    assert_eq!(
        update_errors(&kinds::DEPLOYMENT, deployment(), change),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"db\"}}: field is immutable"]
    );
}

#[test]
fn services() {
    for (spec, expected) in [
        (json!({"ports": []}), "spec.ports: Required value"),
        (
            json!({"ports": [{"port": 0}]}),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}),
            "spec.ports[0].name: Required value",
        ),
        (
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}),
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
        ),
        (
            json!({"type": "Magic"}),
            "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 30080}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            json!({"type": "NodePort", "clusterIP": "None"}),
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        (
            json!({"type": "ExternalName"}),
            "spec.externalName: Required value",
        ),
        (
            json!({"clusterIP": "10.0.0"}),
            "spec.clusterIPs[0]: Invalid value: \"10.0.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"], "clusterIP": "10.0.0.1"}),
            "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family",
        ),
        (
            json!({"clusterIP": "fd00::1", "ipFamilies": ["IPv4"]}),
            "spec.clusterIPs[0]: Invalid value: \"fd00::1\": expected an IPv4 value as indicated by `ipFamilies[0]`",
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400",
        ),
        (
            json!({"externalTrafficPolicy": "Local"}),
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ),
        (
            json!({"internalTrafficPolicy": "Far"}),
            "spec.internalTrafficPolicy: Unsupported value: \"Far\": supported values: \"Cluster\", \"Local\"",
        ),
        (
            json!({"externalIPs": ["127.0.0.1"]}),
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
    ] {
        let errors = errors(&kinds::SERVICE, service(spec));
        assert_eq!(
            errors.first().map(String::as_str),
            Some(expected),
            "{errors:?}"
        );
    }
}

#[test]
fn the_address_of_a_service_stays() {
    let old = || {
        service(
            json!({"clusterIP": "10.96.0.1", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}),
        )
    };
    let other = json!({"spec": {"clusterIP": "10.96.0.2"}});
    assert_eq!(
        update_errors(&kinds::SERVICE, old(), other),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.2\"]: may not change once set"]
    );
    let removed = json!({"spec": {"clusterIP": null, "clusterIPs": null}});
    assert_eq!(
        update_errors(&kinds::SERVICE, old(), removed),
        Vec::<String>::new()
    );
    let second = json!({"spec": {"clusterIPs": ["10.96.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}});
    assert_eq!(
        update_errors(&kinds::SERVICE, old(), second),
        Vec::<String>::new()
    );
}

#[test]
fn configuration() {
    assert!(
        errors(&kinds::CONFIG_MAP, json!({"data": {"a b": ""}}))[0]
            .starts_with("data[a b]: Invalid value: \"a b\": a valid config key must")
    );
    assert_eq!(
        errors(
            &kinds::CONFIG_MAP,
            json!({"data": {"a": ""}, "binaryData": {"a": ""}})
        ),
        ["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"]
    );
    let frozen = || json!({"immutable": true, "data": {"a": "b"}});
    assert_eq!(
        update_errors(&kinds::CONFIG_MAP, frozen(), json!({"data": {"a": "c"}})),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    assert_eq!(
        update_errors(&kinds::CONFIG_MAP, frozen(), json!({"immutable": false})),
        ["immutable: Forbidden: field is immutable when `immutable` is set"]
    );
    assert_eq!(
        update_errors(
            &kinds::SECRET,
            json!({"type": "Opaque"}),
            json!({"type": "other"})
        ),
        ["type: Invalid value: \"other\": field is immutable"]
    );
    assert_eq!(
        errors(
            &kinds::SECRET,
            json!({"type": "kubernetes.io/tls", "data": {"tls.key": ""}})
        ),
        ["data[tls.crt]: Required value"]
    );
}

#[test]
fn endpoint_slices() {
    for (slice, expected) in [
        (json!({"endpoints": []}), "addressType: Required value"),
        (
            json!({"addressType": "IPv4", "endpoints": [{"addresses": []}]}),
            "endpoints[0].addresses: Required value: must contain at least 1 address",
        ),
        (
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["::2"]}]}),
            "endpoints[0].addresses[0]: Invalid value: \"::2\": must be a valid IPv4 address",
        ),
        (
            json!({"addressType": "IPv4", "endpoints": [], "ports": [{"port": 1}, {"port": 2}]}),
            "ports[1].name: Duplicate value: \"\"",
        ),
        (
            json!({"addressType": "IPv4", "endpoints": vec![json!({"addresses": ["10.0.0.1"]}); 1001]}),
            "endpoints: Too many: 1001: must have at most 1000 items",
        ),
    ] {
        let errors = errors(&kinds::ENDPOINT_SLICE, slice);
        assert_eq!(errors, [expected]);
    }
    assert_eq!(
        update_errors(
            &kinds::ENDPOINT_SLICE,
            json!({"addressType": "IPv4", "endpoints": []}),
            json!({"addressType": "IPv6"})
        ),
        ["addressType: Invalid value: \"IPv6\": field is immutable"]
    );
}

#[test]
fn nodes_leases_namespaces_and_events() {
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "a", "effect": effect}]}});
    assert_eq!(
        errors(&kinds::NODE, taint("Never")),
        [
            "metadata.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\""
        ]
    );
    assert_eq!(
        errors(
            &kinds::NODE,
            json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.1.0.0/24"]}})
        ),
        [
            "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.1.0.0/24\"]: may specify no more than one CIDR for each IP family"
        ]
    );
    assert_eq!(
        update_errors(
            &kinds::NODE,
            json!({"spec": {"podCIDR": "10.0.0.0/24"}}),
            json!({"spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}})
        ),
        ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
    );
    assert_eq!(
        errors(&kinds::LEASE, json!({"spec": {"leaseDurationSeconds": 0}})),
        ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]
    );
    assert_eq!(
        errors(
            &kinds::EVENT,
            json!({"involvedObject": {"namespace": "other"}})
        ),
        ["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"]
    );
    let namespace = prepared(&kinds::NAMESPACE, json!({}));
    let mut changed = namespace.clone();
    changed["status"]["phase"] = json!("Terminating");
    let errors = validate::status_update(&kinds::NAMESPACE, &changed, &namespace);
    assert_eq!(
        errors[0].to_string(),
        "status.phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
    );
}
