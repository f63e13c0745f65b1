//! Who may depend on whom, and who may use what: the arrows of docs/ARCHITECTURE.md, held against Cargo's own view.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Crates of the workspace and those that each may depend on outside its tests.
const ARROWS: [(&str, &[&str]); 16] = [
    ("sluice-common", &[]),
    ("sluice-datapath", &["sluice-common"]),
    ("sluice-proxy", &["sluice-common"]),
    ("sluice-ipam", &[]),
    ("sluice-kubelet", &[]),
    ("sluice-api", &[]),
    ("sluice-store", &[]),
    ("sluice-apiserver", &["sluice-api", "sluice-store"]),
    ("sluice-client", &[]),
    ("sluice-scheduler", &["sluice-client"]),
    ("sluice-controllers", &["sluice-client"]),
    (
        "sluice-master",
        &[
            "sluice-apiserver",
            "sluice-controllers",
            "sluice-scheduler",
            "sluice-client",
        ],
    ),
    ("sluice-cluster", &["sluice-apiserver", "sluice-proxy"]),
    (
        "sluice",
        &[
            "sluice-cluster",
            "sluice-ipam",
            "sluice-kubelet",
            "sluice-master",
            "sluice-proxy",
        ],
    ),
    ("sluice-tests", &[]),
    (
        "sluice-bench",
        &["sluice-common", "sluice-proxy", "sluice-ipam"],
    ),
];

/// Libraries that only some crates may use outside their tests, and why.
const RESERVED: [(&str, &[&str]); 5] = [
    // The kernel's maps and programs have one owner.
    ("aya", &["sluice-proxy"]),
    // The store is opened in one place.
    ("redb", &["sluice-store"]),
    // CRI is spoken by the kubelet only.
    ("tonic", &["sluice-kubelet"]),
    ("prost", &["sluice-kubelet"]),
    ("indicatif", &["sluice-cluster"]),
];

/// Crates whose logic must stay free of clients, kernels and sockets.
const PURE: [&str; 3] = ["sluice-api", "sluice-common", "sluice-datapath"];
const IMPURE: [&str; 7] = ["kube", "tokio", "nix", "rtnetlink", "aya", "hyper", "axum"];

/// Direct dependencies, without those for tests and builds, by crate.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_string();
    let packages = metadata["packages"].as_array().expect("there are packages");
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().into_iter().flatten();
            (
                name(package),
                all.filter(|one| one["kind"].is_null()).map(name).collect(),
            )
        })
        .collect()
}

#[test]
fn arrows_point_one_way() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into();
    let mut wrong = Vec::new();
    for (package, uses) in dependencies() {
        let Some(allowed) = arrows.get(package.as_str()) else {
            wrong.push(format!(
                "{package} is a new crate: say what it may depend on"
            ));
            continue;
        };
        let own = uses.iter().filter(|used| used.starts_with("sluice"));
        let forbidden = own.filter(|used| !allowed.contains(&used.as_str()));
        wrong.extend(forbidden.map(|used| format!("{package} must not depend on {used}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reserved_libraries_are_used_by_their_owners_only() {
    let mut wrong = Vec::new();
    for (package, uses) in dependencies() {
        for (library, owners) in RESERVED {
            if uses.contains(library) && !owners.contains(&package.as_str()) {
                wrong.push(format!(
                    "{package} must not use {library}: that is for {}",
                    owners.join(", ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_crates_stay_pure() {
    let all = dependencies();
    let mut wrong = Vec::new();
    for package in PURE {
        let uses = all
            .get(package)
            .unwrap_or_else(|| panic!("{package} has vanished"));
        let impure = IMPURE.iter().filter(|library| uses.contains(**library));
        wrong.extend(impure.map(|library| format!("{package} must not use {library}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
