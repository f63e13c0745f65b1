//! Tables: what `kubectl get` and `kubectl get -o wide` print for each kind.

use serde_json::{Value, json};
use sluice_api::table::{IncludeObject, ListMeta, render};
use sluice_api::{Kind, kinds};

const NOW: &str = "2026-01-01T12:00:00Z";
const CREATED: &str = "2026-01-01T11:55:00Z";

fn table(kind: &Kind, object: &Value) -> Value {
    let now = NOW.parse().expect("a time");
    render(
        kind,
        [object],
        &ListMeta::default(),
        IncludeObject::None,
        now,
    )
}

/// Titles and cells of a one-row table as kubectl prints them; `wide` takes the columns of `-o wide` too.
fn printed(kind: &Kind, mut object: Value, wide: bool) -> String {
    object["metadata"]["creationTimestamp"] = json!(CREATED);
    let table = table(kind, &object);
    let columns = table["columnDefinitions"].as_array().expect("columns");
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!(columns.len(), cells.len(), "one cell a column");
    let mut lines = [Vec::new(), Vec::new()];
    for (column, cell) in columns.iter().zip(cells) {
        assert!(
            !column["description"].as_str().expect("text").is_empty(),
            "{column}"
        );
        if wide || column["priority"] == 0 {
            lines[0].push(column["name"].as_str().expect("name").to_uppercase());
            lines[1].push(
                cell.as_str()
                    .map_or_else(|| cell.to_string(), str::to_owned),
            );
        }
    }
    lines.map(|line| line.join(" | ")).join("\n")
}

fn pod_status(spec: Value, status: Value) -> String {
    let mut pod = json!({"metadata": {"name": "web"}, "spec": spec, "status": status});
    if pod["spec"]["containers"].is_null() {
        pod["spec"]["containers"] = json!([{"name": "app"}]);
    }
    let row = printed(&kinds::POD, pod, false);
    row.lines().nth(1).expect("a row").to_owned()
}

#[test]
fn a_running_pod() {
    let pod = json!({
        "metadata": {"name": "web"},
        "spec": {"nodeName": "node1", "containers": [{"name": "app"}, {"name": "side"}]},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00::5"}],
            "containerStatuses": [
                {"ready": true, "restartCount": 2, "state": {"running": {}},
                 "lastState": {"terminated": {"finishedAt": "2026-01-01T11:57:00Z"}}},
                {"ready": true, "restartCount": 0, "state": {"running": {}}},
            ],
        },
    });
    assert_eq!(
        printed(&kinds::POD, pod.clone(), false),
        "NAME | READY | STATUS | RESTARTS | AGE\nweb | 2/2 | Running | 2 (3m ago) | 5m"
    );
    assert_eq!(
        printed(&kinds::POD, pod, true),
        "NAME | READY | STATUS | RESTARTS | AGE | IP | NODE | NOMINATED NODE | READINESS GATES\n\
         web | 2/2 | Running | 2 (3m ago) | 5m | 10.244.0.5 | node1 | <none> | <none>"
    );
}

#[test]
fn the_status_of_a_pod_is_its_most_telling_state() {
    let waiting = |reason: &str| json!({"phase": "Running", "containerStatuses": [{"restartCount": 0, "state": {"waiting": {"reason": reason}}}]});
    let terminated = |terminated: Value| json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": terminated}}]});
    let init = |statuses: Value| json!({"phase": "Pending", "initContainerStatuses": statuses});
    let two_inits = json!({"initContainers": [{"name": "a"}, {"name": "b"}]});
    for (spec, status, expected) in [
        (
            json!({}),
            json!({"phase": "Pending"}),
            "web | 0/1 | Pending | 0 | 5m",
        ),
        (
            json!({}),
            waiting("CrashLoopBackOff"),
            "web | 0/1 | CrashLoopBackOff | 0 | 5m",
        ),
        (
            json!({}),
            waiting("ContainerCreating"),
            "web | 0/1 | ContainerCreating | 0 | 5m",
        ),
        (
            json!({}),
            terminated(json!({"reason": "Completed", "exitCode": 0})),
            "web | 0/1 | Completed | 0 | 5m",
        ),
        (
            json!({}),
            terminated(json!({"exitCode": 3})),
            "web | 0/1 | ExitCode:3 | 0 | 5m",
        ),
        (
            json!({}),
            terminated(json!({"signal": 9, "exitCode": 137})),
            "web | 0/1 | Signal:9 | 0 | 5m",
        ),
        (
            json!({}),
            json!({"phase": "Failed", "reason": "Evicted"}),
            "web | 0/1 | Evicted | 0 | 5m",
        ),
        (
            json!({}),
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            "web | 0/1 | SchedulingGated | 0 | 5m",
        ),
        (
            two_inits.clone(),
            init(json!([{"name": "a", "state": {"running": {}}}])),
            "web | 0/1 | Init:0/2 | 0 | 5m",
        ),
        (
            two_inits.clone(),
            init(json!([
                {"name": "a", "state": {"terminated": {"exitCode": 0}}},
                {"name": "b", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
            ])),
            "web | 0/1 | Init:CrashLoopBackOff | 1 | 5m",
        ),
        (
            two_inits.clone(),
            init(
                json!([{"name": "a", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]),
            ),
            "web | 0/1 | Init:Error | 0 | 5m",
        ),
        (
            two_inits,
            init(json!([{"name": "a", "state": {"waiting": {"reason": "PodInitializing"}}}])),
            "web | 0/1 | Init:0/2 | 0 | 5m",
        ),
        (
            json!({"initContainers": [{"name": "proxy", "restartPolicy": "Always"}]}),
            json!({
                "phase": "Running",
                "initContainerStatuses": [{"name": "proxy", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
                "containerStatuses": [{"ready": true, "restartCount": 2, "state": {"running": {}}}],
            }),
            "web | 2/2 | Running | 3 | 5m",
        ),
    ] {
        assert_eq!(pod_status(spec, status), expected);
    }
}

#[test]
fn a_completed_container_beside_a_running_one() {
    let status = |ready: &str| {
        json!({
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [
                {"state": {"terminated": {"reason": "Completed", "exitCode": 0}}},
                {"ready": true, "state": {"running": {}}},
            ],
        })
    };
    let spec = json!({"containers": [{}, {}]});
    assert_eq!(
        pod_status(spec.clone(), status("True")),
        "web | 1/2 | Running | 0 | 5m"
    );
    assert_eq!(
        pod_status(spec, status("False")),
        "web | 1/2 | NotReady | 0 | 5m"
    );
}

#[test]
fn pods_on_their_way_out() {
    let pod = |status: Value| json!({"metadata": {"name": "web", "deletionTimestamp": NOW}, "spec": {"containers": [{}]}, "status": status});
    let status_of = |status: Value| printed(&kinds::POD, pod(status), false);
    assert!(status_of(json!({"phase": "Running"})).contains("| Terminating |"));
    assert!(status_of(json!({"phase": "Running", "reason": "NodeLost"})).contains("| Unknown |"));
    assert!(status_of(json!({"phase": "Succeeded"})).contains("| Succeeded |"));

    let table = table(&kinds::POD, &pod(json!({"phase": "Failed"})));
    assert_eq!(table["rows"][0]["conditions"][0]["reason"], "Failed");
}

#[test]
fn services() {
    let row = |spec: Value, status: Value| {
        let service = json!({"metadata": {"name": "web"}, "spec": spec, "status": status});
        printed(&kinds::SERVICE, service, true)
            .lines()
            .nth(1)
            .expect("row")
            .to_owned()
    };
    assert_eq!(
        row(
            json!({"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"],
                   "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
                   "selector": {"b": "2", "a": "1"}}),
            json!({}),
        ),
        "web | NodePort | 10.96.0.9 | <none> | 80:30080/TCP,53/UDP | 5m | a=1,b=2"
    );
    assert_eq!(
        row(
            json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9"}),
            json!({})
        ),
        "web | LoadBalancer | 10.96.0.9 | <pending> | <none> | 5m | <none>"
    );
    assert_eq!(
        row(
            json!({"type": "LoadBalancer", "clusterIP": "None", "externalIPs": ["1.2.3.4"]}),
            json!({"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}, {"hostname": "lb.example"}]}}),
        ),
        "web | LoadBalancer | None | 1.2.3.4,5.6.7.8,lb.example | <none> | 5m | <none>"
    );
    assert_eq!(
        row(
            json!({"type": "ExternalName", "externalName": "db.example"}),
            json!({})
        ),
        "web | ExternalName | <none> | db.example | <none> | 5m | <none>"
    );
}

#[test]
fn nodes() {
    let node = json!({
        "metadata": {"name": "node1", "labels": {
            "node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/edge": "", "kubernetes.io/role": "edge"}},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
            "addresses": [{"type": "Hostname", "address": "node1"}, {"type": "InternalIP", "address": "198.18.0.11"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.18",
                         "containerRuntimeVersion": "containerd://1.6"},
        },
    });
    assert_eq!(
        printed(&kinds::NODE, node, true),
        "NAME | STATUS | ROLES | AGE | VERSION | INTERNAL-IP | EXTERNAL-IP | OS-IMAGE | KERNEL-VERSION | CONTAINER-RUNTIME\n\
         node1 | Ready,SchedulingDisabled | edge,worker | 5m | v1.36.0 | 198.18.0.11 | <none> | Debian | 6.18 | containerd://1.6"
    );
    let lost = json!({"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    assert!(printed(&kinds::NODE, lost, false).contains("n | NotReady | <none> |"));
}

#[test]
fn workloads() {
    let spec = json!({
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:2"}]}},
    });
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": spec,
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1},
    });
    assert_eq!(
        printed(&kinds::DEPLOYMENT, deployment, true),
        "NAME | READY | UP-TO-DATE | AVAILABLE | AGE | CONTAINERS | IMAGES | SELECTOR\n\
         web | 2/3 | 3 | 1 | 5m | a,b | a:1,b:2 | app=web"
    );
    let set = json!({"metadata": {"name": "web-1"}, "spec": spec, "status": {"replicas": 3, "readyReplicas": 2}});
    assert_eq!(
        printed(&kinds::REPLICA_SET, set, false),
        "NAME | DESIRED | CURRENT | READY | AGE\nweb-1 | 3 | 3 | 2 | 5m"
    );
}

#[test]
fn endpoints_and_slices() {
    let addresses: Vec<Value> = (1..=5)
        .map(|n| json!({"ip": format!("10.0.0.{n}")}))
        .collect();
    let endpoints = json!({"metadata": {"name": "web"}, "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
    assert_eq!(
        printed(&kinds::ENDPOINTS, endpoints, false),
        "NAME | ENDPOINTS | AGE\nweb | 10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more... | 5m"
    );
    let empty = json!({"metadata": {"name": "web"}});
    assert!(printed(&kinds::ENDPOINTS, empty, false).contains("web | <none> | 5m"));
    let v6 = json!({"metadata": {"name": "web"}, "subsets": [{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}]});
    assert!(printed(&kinds::ENDPOINTS, v6, false).contains("[fd00::1]:80"));

    let slice = json!({
        "metadata": {"name": "web-x"}, "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}],
    });
    assert_eq!(
        printed(&kinds::ENDPOINT_SLICE, slice, false),
        "NAME | ADDRESSTYPE | PORTS | ENDPOINTS | AGE\nweb-x | IPv4 | 8080 | 10.0.0.1,10.0.0.2 | 5m"
    );
    let empty = json!({"metadata": {"name": "web-x"}, "addressType": "IPv6", "endpoints": []});
    assert!(printed(&kinds::ENDPOINT_SLICE, empty, false).contains("IPv6 | <unset> | <unset>"));
}

#[test]
fn events_of_both_groups() {
    let event = json!({
        "metadata": {"name": "web.1"},
        "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{app}"},
        "firstTimestamp": "2026-01-01T11:00:00Z", "lastTimestamp": "2026-01-01T11:59:30Z",
        "count": 4, "type": "Warning", "reason": "BackOff", "message": "Back-off\n",
        "source": {"component": "kubelet", "host": "node1"},
    });
    assert_eq!(
        printed(&kinds::EVENT, event, true),
        "LAST SEEN | TYPE | REASON | OBJECT | SUBOBJECT | SOURCE | MESSAGE | FIRST SEEN | COUNT | NAME\n\
         30s | Warning | BackOff | pod/web | spec.containers{app} | kubelet, node1 | Back-off | 60m | 4 | web.1"
    );
    let event = json!({
        "metadata": {"name": "web.2"}, "regarding": {"kind": "Pod", "name": "web"}, "note": "Bound",
        "eventTime": "2026-01-01T11:59:00.000000Z", "reason": "Scheduled", "type": "Normal",
        "reportingController": "scheduler", "reportingInstance": "s-1",
    });
    assert_eq!(
        printed(&kinds::EVENTS_EVENT, event, false),
        "LAST SEEN | TYPE | REASON | OBJECT | MESSAGE\n60s | Normal | Scheduled | pod/web | Bound"
    );
}

#[test]
fn small_kinds() {
    for (kind, object, expected) in [
        (
            &kinds::NAMESPACE,
            json!({"status": {"phase": "Active"}}),
            "NAME | STATUS | AGE\nx | Active | 5m",
        ),
        (
            &kinds::SECRET,
            json!({"type": "Opaque", "data": {"a": "", "b": ""}}),
            "NAME | TYPE | DATA | AGE\nx | Opaque | 2 | 5m",
        ),
        (
            &kinds::CONFIG_MAP,
            json!({"data": {"a": ""}, "binaryData": {"b": ""}}),
            "NAME | DATA | AGE\nx | 2 | 5m",
        ),
        (
            &kinds::SERVICE_ACCOUNT,
            json!({}),
            "NAME | SECRETS | AGE\nx | 0 | 5m",
        ),
        (
            &kinds::LEASE,
            json!({"spec": {"holderIdentity": "node1"}}),
            "NAME | HOLDER | AGE\nx | node1 | 5m",
        ),
    ] {
        let mut object = object;
        object["metadata"] = json!({"name": "x"});
        assert_eq!(printed(kind, object, false), expected);
    }
}

#[test]
fn rows_carry_what_was_asked_for() {
    let object = json!({"metadata": {"name": "x", "uid": "u"}, "data": {"a": "b"}});
    let meta = ListMeta {
        resource_version: "7".to_owned(),
        continue_token: "t".to_owned(),
        remaining_item_count: Some(3),
    };
    let row = |include| {
        let now = NOW.parse().expect("a time");
        let table = render(&kinds::CONFIG_MAP, [&object], &meta, include, now);
        assert_eq!(
            table["metadata"],
            json!({"resourceVersion": "7", "continue": "t", "remainingItemCount": 3})
        );
        table["rows"][0].clone()
    };
    assert!(row(IncludeObject::None).get("object").is_none());
    assert_eq!(row(IncludeObject::Object)["object"], object);
    let partial = row(IncludeObject::Metadata);
    assert_eq!(partial["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(partial["object"]["metadata"]["uid"], "u");
    assert!(partial["object"].get("data").is_none());
    // Objects from which everything is missing still have a row.
    for kind in kinds::all() {
        table(kind, &json!({}));
    }
}
