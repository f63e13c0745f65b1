//! Deployments and ReplicaSets.

use serde_json::{Value, json};

use super::check::Check;
use super::{meta, pod_spec, selector};
use crate::field::Path;
use crate::json::{int, int_at, list_at, map_at, text, text_at};
use crate::selector::LabelSelector;
use crate::{FieldError, names};

pub(super) fn deployment(check: &mut Check, object: &Value) {
    let path = Path::root("spec");
    let spec = &object["spec"];
    workload(check, spec, &path);
    strategy(check, &spec["strategy"], &path.child("strategy"));
    check.not_negative(
        &path,
        spec,
        &[
            "minReadySeconds",
            "revisionHistoryLimit",
            "progressDeadlineSeconds",
        ],
    );
    let ready = int(spec, "minReadySeconds").unwrap_or_default();
    if let Some(deadline) = int(spec, "progressDeadlineSeconds").filter(|d| *d <= ready) {
        let path = path.child("progressDeadlineSeconds");
        check.invalid(
            &path,
            &json!(deadline),
            "must be greater than minReadySeconds",
        );
    }
}

pub(super) fn replica_set(check: &mut Check, object: &Value) {
    let path = Path::root("spec");
    let spec = &object["spec"];
    check.not_negative(&path, spec, &["minReadySeconds"]);
    workload(check, spec, &path);
}

/// Replicas, selector and template, and that the one selects the other.
fn workload(check: &mut Check, spec: &Value, path: &Path<'_>) {
    check.not_negative(path, spec, &["replicas"]);
    let object = spec.get("selector").filter(|selector| selector.is_object());
    let path_to_selector = path.child("selector");
    let Some(object) = object else {
        check.required(&path_to_selector, "");
        template(check, spec, None, &path.child("template"));
        return;
    };
    selector::label_selector(check, object, &path_to_selector);
    let selector = LabelSelector::from_object(object);
    match &selector {
        Ok(selector) if selector.is_empty() => {
            check.invalid(
                &path_to_selector,
                object,
                "empty selector is invalid for deployment",
            );
        }
        Ok(_) => {}
        Err(_) => check.invalid(&path_to_selector, object, "invalid label selector"),
    }
    template(check, spec, selector.ok().as_ref(), &path.child("template"));
}

fn template(check: &mut Check, spec: &Value, selector: Option<&LabelSelector>, path: &Path<'_>) {
    let template = &spec["template"];
    let labels = map_at(template, "/metadata/labels");
    let metadata = path.child("metadata");
    if selector.is_some_and(|s| !s.is_empty() && !s.matches_labels(labels)) {
        let detail = "`selector` does not match template `labels`";
        check.invalid(&metadata.child("labels"), &json!(labels), detail);
    }
    check.labels(&path.child("labels"), labels);
    let annotations = map_at(template, "/metadata/annotations");
    meta::annotations(check, annotations, &path.child("annotations"));
    let spec_path = path.child("spec");
    pod_spec::spec(check, &template["spec"], false, &spec_path);
    only_for_pods(check, template, &spec_path);
}

/// What pods may have and templates of pods that run for ever may not.
fn only_for_pods(check: &mut Check, template: &Value, path: &Path<'_>) {
    let policy = text_at(template, "/spec/restartPolicy");
    if matches!(policy, "OnFailure" | "Never") {
        let path = path.child("restartPolicy");
        check.add(FieldError::not_supported(
            &path,
            &json!(policy),
            &["Always"],
        ));
    }
    if template.pointer("/spec/activeDeadlineSeconds").is_some() {
        let detail = "activeDeadlineSeconds in ReplicaSet is not Supported";
        check.forbidden(&path.child("activeDeadlineSeconds"), detail);
    }
    if !list_at(template, "/spec/ephemeralContainers").is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        check.forbidden(&path.child("ephemeralContainers"), detail);
    }
}

fn strategy(check: &mut Check, strategy: &Value, path: &Path<'_>) {
    let rolling = strategy
        .get("rollingUpdate")
        .filter(|rolling| rolling.is_object());
    let rolling_path = path.child("rollingUpdate");
    match (text(strategy, "type"), rolling) {
        ("Recreate", Some(_)) => check.forbidden(
            &rolling_path,
            "may not be specified when strategy `type` is 'Recreate'",
        ),
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            check.required(&rolling_path, "this should be defaulted and never be nil");
        }
        ("RollingUpdate", Some(rolling)) => rolling_update(check, rolling, &rolling_path),
        (other, _) => {
            let path = path.child("type");
            check.add(FieldError::not_supported(
                &path,
                &json!(other),
                &["Recreate", "RollingUpdate"],
            ));
        }
    }
}

fn rolling_update(check: &mut Check, rolling: &Value, path: &Path<'_>) {
    let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
    let unavailable_path = path.child("maxUnavailable");
    int_or_percent(check, unavailable, &unavailable_path);
    int_or_percent(check, surge, &path.child("maxSurge"));
    if amount(unavailable) == 0 && amount(surge) == 0 {
        check.invalid(
            &unavailable_path,
            unavailable,
            "may not be 0 when `maxSurge` is 0",
        );
    }
    if unavailable.is_string() && amount(unavailable) > 100 {
        check.invalid(
            &unavailable_path,
            unavailable,
            "must not be greater than 100%",
        );
    }
}

fn int_or_percent(check: &mut Check, value: &Value, path: &Path<'_>) {
    match value {
        Value::String(percent) => check.syntax(path, percent, names::percent(percent)),
        value if value.as_i64().is_some_and(|n| n < 0) => {
            check.invalid(path, value, super::check::NOT_NEGATIVE);
        }
        _ => {}
    }
}

/// The number, or the number before `%`.
fn amount(value: &Value) -> i64 {
    match value {
        Value::String(text) => text.trim_end_matches('%').parse().unwrap_or_default(),
        value => value.as_i64().unwrap_or_default(),
    }
}

pub(super) fn update(check: &mut Check, new: &Value, old: &Value) {
    let spec = Path::root("spec");
    check.immutable(
        &spec.child("selector"),
        new.pointer("/spec/selector"),
        old.pointer("/spec/selector"),
    );
}

pub(super) fn deployment_status(check: &mut Check, new: &Value, old: &Value) {
    let path = Path::root("status");
    let status = &new["status"];
    check.not_negative(
        &path,
        status,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
        ],
    );
    counts(
        check,
        status,
        &["updatedReplicas", "readyReplicas", "availableReplicas"],
    );
    let collisions = |object| int_at(object, "/status/collisionCount");
    if collisions(new) < collisions(old) {
        check.invalid(
            &path.child("collisionCount"),
            &json!(collisions(new)),
            "cannot be decremented",
        );
    }
}

pub(super) fn replica_set_status(check: &mut Check, new: &Value) {
    let path = Path::root("status");
    let status = &new["status"];
    let fields = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
    ];
    check.not_negative(&path, status, &fields);
    counts(
        check,
        status,
        &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
    );
}

/// No part can be larger than the whole.
fn counts(check: &mut Check, status: &Value, parts: &[&str]) {
    let path = Path::root("status");
    let count = |field: &str| int(status, field).unwrap_or_default();
    for part in parts {
        if count(part) > count("replicas") {
            let detail = "cannot be greater than status.replicas";
            check.invalid(&path.child(part), &json!(count(part)), detail);
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let path = path.child("availableReplicas");
        check.invalid(
            &path,
            &json!(count("availableReplicas")),
            "cannot be greater than readyReplicas",
        );
    }
}
