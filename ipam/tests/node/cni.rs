//! The plugin as a runtime sees it: the specification's commands, versions and errors.

use serde_json::{Value, json};
use sluice_ipam::protocol::Finding;

use super::support::{Namespace, Node};

#[test]
fn add_check_and_del_work_in_every_version() {
    let node = Node::alone();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let space = Namespace::new();
        let id = format!("pod-{}", version.replace('.', "-"));
        let mut config = node.config(version);
        let added = node.cni("ADD", &id, space.path(), &config);
        assert!(added.success, "{added:?}");
        assert_eq!(added.json["cniVersion"], version);
        assert_eq!(added.addresses().len(), 2);
        assert_eq!(
            added.json["interfaces"][1]["sandbox"],
            space.path().to_str().unwrap()
        );
        config["prevResult"] = added.json.clone();
        let checked = node.cni("CHECK", &id, space.path(), &config);
        match version {
            "0.3.1" => assert_eq!(checked.code(), 1, "{checked:?}"),
            _ => assert!(checked.success, "{checked:?}"),
        }
        for _ in 0..2 {
            let deleted = node.cni("DEL", &id, space.path(), &config);
            assert!(deleted.success, "{deleted:?}");
            assert_eq!(deleted.json, Value::Null, "DEL prints nothing");
        }
        assert_eq!(space.links(), ["lo"]);
    }
    assert!(node.held().is_empty());
    assert!(node.pod_links().is_empty());
}

#[test]
fn a_second_add_gives_the_same_result_and_an_interface_of_others_is_an_error() {
    let node = Node::alone();
    let space = Namespace::new();
    let config = node.config("1.0.0");
    let first = node.cni("ADD", "pod", space.path(), &config);
    let second = node.cni("ADD", "pod", space.path(), &config);
    assert!(second.success, "{second:?}");
    assert_eq!(first.json, second.json);
    // Another container id in the same namespace finds eth0 taken, and leaves no trace.
    let other = node.cni("ADD", "other", space.path(), &config);
    assert_eq!(other.code(), 4, "{other:?}");
    assert!(
        other.message().contains("already has an interface eth0"),
        "{other:?}"
    );
    assert_eq!(node.held().len(), 1);
    assert_eq!(node.pod_links().len(), 1);
}

#[test]
fn a_second_add_that_fails_does_not_free_the_addresses_of_the_first() {
    let node = Node::alone();
    let space = Namespace::new();
    let pod = node.add("pod", &space);
    let mut config = node.config("1.0.0");
    config["prevResult"] = json!({ "ips": "not a list" });
    let failed = node.cni("ADD", "pod", space.path(), &config);
    assert_eq!(failed.code(), 7, "{failed:?}");
    let held = node.held();
    assert!(
        matches!(held.as_slice(), [held] if held.addresses == pod.addresses),
        "{held:?}"
    );
    assert_eq!(node.pod_links().len(), 1);
    assert!(node.findings().is_empty());
}

#[test]
fn a_fragment_of_a_link_makes_place_for_a_whole_one() {
    let node = Node::alone();
    let space = Namespace::new();
    let pod = node.add("pod", &space);
    space.run(|| super::support::remove_addresses("eth0", &pod.addresses));
    let again = node.add("pod", &space);
    assert_eq!(again.addresses, pod.addresses);
    let mut config = node.config("1.0.0");
    config["prevResult"] = node.cni("ADD", "pod", space.path(), &config).json;
    let checked = node.cni("CHECK", "pod", space.path(), &config);
    assert!(checked.success, "{checked:?}");
}

#[test]
fn check_says_what_is_missing() {
    let node = Node::alone();
    let space = Namespace::new();
    let mut config = node.config("1.0.0");
    let added = node.cni("ADD", "pod", space.path(), &config);
    let without = node.cni("CHECK", "pod", space.path(), &config);
    assert_eq!(without.code(), 7, "{without:?}");
    config["prevResult"] = added.json.clone();
    space.run(|| super::support::remove_addresses("eth0", &added.addresses()[..1]));
    let checked = node.cni("CHECK", "pod", space.path(), &config);
    assert_eq!(checked.code(), 102, "{checked:?}");
    assert!(
        checked
            .message()
            .contains("the pod has no address 10.88.1.1"),
        "{checked:?}"
    );
    let unknown = node.cni("CHECK", "nobody", space.path(), &config);
    assert_eq!(unknown.code(), 3, "{unknown:?}");
}

#[test]
fn del_succeeds_when_the_namespace_is_gone() {
    let node = Node::alone();
    let mut space = Namespace::new();
    node.add("pod", &space);
    space.destroy();
    let deleted = node.del("pod", &space);
    assert!(deleted.success, "{deleted:?}");
    assert!(node.held().is_empty());
    assert!(node.pod_links().is_empty());
    let added = node.cni("ADD", "pod", space.path(), &node.config("1.0.0"));
    assert_eq!(added.code(), 3, "{added:?}");
    let host = node.cni("ADD", "pod", node.namespace.path(), &node.config("1.0.0"));
    assert_eq!(host.code(), 4, "{host:?}");
    assert!(node.held().is_empty());
}

#[test]
fn gc_frees_what_the_runtime_does_not_name_in_its_network_only() {
    let node = Node::alone();
    let spaces: Vec<Namespace> = (0..3).map(|_| Namespace::new()).collect();
    node.add("alive", &spaces[0]);
    node.add("dead", &spaces[1]);
    let mut other = node.config("1.0.0");
    other["name"] = "other".into();
    assert!(
        node.cni("ADD", "elsewhere", spaces[2].path(), &other)
            .success
    );
    let mut config = node.config("1.1.0");
    let missing = node.cni("GC", "", spaces[0].path(), &config);
    assert_eq!(missing.code(), 7, "{missing:?}");
    config["cni.dev/valid-attachments"] = json!([{ "containerID": "alive", "ifname": "eth0" }]);
    let collected = node.cni("GC", "", spaces[0].path(), &config);
    assert!(collected.success, "{collected:?}");
    let left: Vec<String> = node
        .held()
        .into_iter()
        .map(|held| held.owner.container_id)
        .collect();
    assert_eq!(left, ["alive", "elsewhere"]);
    assert_eq!(node.pod_links().len(), 2);
    assert_eq!(spaces[1].links(), ["lo"]);
}

#[test]
fn leaks_are_shown_and_can_be_released() {
    let node = Node::alone();
    let space = Namespace::new();
    node.add("pod", &space);
    assert!(node.findings().is_empty());
    let link = node.pod_links().remove(0);
    node.namespace.run(|| super::support::remove_link(&link));
    assert!(
        matches!(node.findings().as_slice(), [Finding::NoLink { held }] if held.pod.name == "pod")
    );
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sluice-ipam"))
        .args(["release", "10.88.1.1", "--socket"])
        .arg(node.socket())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(node.held().is_empty());
}

#[test]
fn release_spares_a_pod_that_has_its_link() {
    let node = Node::alone();
    let space = Namespace::new();
    node.add("pod", &space);
    let release = |extra: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sluice-ipam"));
        command
            .args(["release", "pod"])
            .args(extra)
            .arg("--socket")
            .arg(node.socket());
        command.output().unwrap()
    };
    let refused = release(&[]);
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("still has its link"), "{text}");
    assert_eq!(node.held().len(), 1);
    assert!(release(&["--force"]).status.success());
    assert!(node.held().is_empty() && node.pod_links().is_empty());
}

#[test]
fn status_and_add_tell_that_the_daemon_is_away() {
    let node = Node::alone();
    let space = Namespace::new();
    let status = node.cni("STATUS", "", space.path(), &node.config("1.1.0"));
    assert!(status.success, "{status:?}");
    node.kill();
    let status = node.cni("STATUS", "", space.path(), &node.config("1.1.0"));
    assert_eq!(status.code(), 50, "{status:?}");
    let added = node.cni("ADD", "pod", space.path(), &node.config("1.0.0"));
    assert_eq!(added.code(), 11, "{added:?}");
    assert!(added.message().contains("ipam.sock"), "{added:?}");
    let deleted = node.del("pod", &space);
    assert_eq!(
        deleted.code(),
        11,
        "a DEL that was not done must be repeated"
    );
}

#[test]
fn version_and_broken_input_are_answered_in_json() {
    let node = Node::alone();
    let space = Namespace::new();
    let versions = node.cni(
        "VERSION",
        "",
        space.path(),
        &json!({ "cniVersion": "0.4.0" }),
    );
    assert_eq!(versions.json["cniVersion"], "0.4.0");
    assert_eq!(
        versions.json["supportedVersions"].as_array().unwrap().len(),
        4
    );
    let cases = [
        (json!("nonsense"), "ADD", "pod", 6),
        (node.config("0.1.0"), "ADD", "pod", 1),
        (node.config("1.0.0"), "ADD", "", 4),
        (node.config("1.0.0"), "ADD", "-bad", 4),
        (node.config("1.0.0"), "FLY", "pod", 4),
    ];
    for (config, command, id, code) in cases {
        let outcome = node.cni(command, id, space.path(), &config);
        assert!(!outcome.success);
        assert_eq!(outcome.code(), code, "{outcome:?}");
        assert!(!outcome.message().is_empty());
    }
}

#[test]
fn the_loopback_plugin_brings_lo_up() {
    let node = Node::alone();
    let space = Namespace::new();
    space.run(|| super::support::bring_down("lo"));
    let config = json!({ "cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback" });
    let added = node.plugin("loopback", "ADD", "pod", space.path(), &config);
    assert!(added.success, "{added:?}");
    assert_eq!(added.json["ips"][0]["address"], "127.0.0.1/8");
    space
        .run(|| std::net::TcpListener::bind("127.0.0.1:0").map(drop))
        .unwrap();
    assert!(
        node.plugin("loopback", "DEL", "pod", space.path(), &config)
            .success
    );
}

#[test]
fn requested_addresses_are_given_or_refused_with_a_reason() {
    let node = Node::alone();
    let (first, second) = (Namespace::new(), Namespace::new());
    let mut config = node.config("1.0.0");
    config["runtimeConfig"] = json!({ "ips": ["10.88.1.50/24", "fd88:0:0:1::50"] });
    let added = node.cni("ADD", "first", first.path(), &config);
    assert_eq!(
        added.addresses(),
        [
            "10.88.1.50".parse::<std::net::IpAddr>().unwrap(),
            "fd88:0:0:1::50".parse().unwrap()
        ]
    );
    let refused = node.cni("ADD", "second", second.path(), &config);
    assert_eq!(refused.code(), 101, "{refused:?}");
    assert_eq!(refused.message(), "address 10.88.1.50 is in use");
}
