//! Defaults of Deployments and ReplicaSets.

use serde_json::{Value, json};

use super::pod;
use crate::json::{default, default_text, object_mut, set, text};

pub(super) fn deployment(object: &mut Value) {
    if object_mut(object, "spec").is_none() {
        return;
    }
    let spec = &mut object["spec"];
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    strategy(spec);
    template(spec);
}

fn strategy(spec: &mut Value) {
    if object_mut(spec, "strategy").is_none() {
        return;
    }
    let strategy = &mut spec["strategy"];
    default_text(strategy, "type", "RollingUpdate");
    if text(strategy, "type") != "RollingUpdate" {
        return;
    }
    if strategy.get("rollingUpdate").is_none_or(Value::is_null) {
        set(strategy, "rollingUpdate", Some(json!({})));
    }
    let rolling = &mut strategy["rollingUpdate"];
    default(rolling, "maxUnavailable", "25%");
    default(rolling, "maxSurge", "25%");
}

pub(super) fn replica_set(object: &mut Value) {
    if object_mut(object, "spec").is_none() {
        return;
    }
    let spec = &mut object["spec"];
    default(spec, "replicas", 1);
    template(spec);
}

fn template(spec: &mut Value) {
    if let Some(pod_spec) = spec.pointer_mut("/template/spec") {
        pod::spec(pod_spec);
    }
}
