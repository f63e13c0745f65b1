//! What Deployments write on their ReplicaSets: revision, wanted scale, and the deployment's own annotations.

use std::collections::BTreeMap;

use k8s_openapi::{api::apps::v1::ReplicaSet, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::{Value, json};

use super::view::View;

/// The number that `kubectl rollout history` shows.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

type Annotations = BTreeMap<String, String>;

fn get<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The revision of a set or deployment; zero when there is none.
pub fn revision(meta: &ObjectMeta) -> u64 {
    get(meta, REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// How many replicas the deployment wanted when the set was last scaled.
pub fn desired(meta: &ObjectMeta) -> Option<i32> {
    get(meta, DESIRED)?.parse().ok()
}

/// How many replicas, with surge, the deployment allowed when the set was last scaled.
pub fn max(meta: &ObjectMeta) -> Option<i32> {
    get(meta, MAX)?.parse().ok()
}

/// The scale that every active set is labelled with.
pub fn for_scale(view: &View<'_>) -> Annotations {
    let replicas = view.replicas();
    Annotations::from([
        (DESIRED.into(), replicas.to_string()),
        (MAX.into(), (replicas + view.max_surge()).to_string()),
    ])
}

/// Annotations of a set that is about to be created.
pub fn of_created_set(view: &View<'_>, revision: u64) -> Annotations {
    let mut annotations = inherited(view);
    annotations.extend(for_scale(view));
    annotations.insert(REVISION.into(), revision.to_string());
    annotations
}

/// A patch for the new set if its annotations or minReadySeconds are out of date.
///
/// A set that becomes the new one again (a rollback) gets a new revision and keeps its old ones in the history.
pub fn for_new_set(view: &View<'_>, set: &ReplicaSet, revision: u64) -> Option<Value> {
    let have = set.metadata.annotations.clone().unwrap_or_default();
    let mut want = inherited(view);
    let old = self::revision(&set.metadata);
    if old < revision {
        want.insert(REVISION.into(), revision.to_string());
        if old > 0 {
            want.insert(REVISION_HISTORY.into(), history(&have, old));
        }
    }
    let min_ready = set
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or(0);
    let wanted_min_ready = view.spec.min_ready_seconds.unwrap_or(0);
    let up_to_date = want.iter().all(|(key, value)| have.get(key) == Some(value));
    if up_to_date && min_ready == wanted_min_ready {
        return None;
    }
    Some(json!({
        "metadata": {"uid": set.metadata.uid, "annotations": want},
        "spec": {"minReadySeconds": wanted_min_ready},
    }))
}

fn history(have: &Annotations, old: u64) -> String {
    match have.get(REVISION_HISTORY).filter(|text| !text.is_empty()) {
        Some(history) => format!("{history},{old}"),
        None => old.to_string(),
    }
}

fn inherited(view: &View<'_>) -> Annotations {
    let own = [
        REVISION,
        REVISION_HISTORY,
        DESIRED,
        MAX,
        LAST_APPLIED,
        ROLLBACK_TO,
    ];
    let mut annotations = view
        .deployment
        .metadata
        .annotations
        .clone()
        .unwrap_or_default();
    annotations.retain(|key, _| !own.contains(&key.as_str()));
    annotations
}
