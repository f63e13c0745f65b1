//! Node and pod affinity, and topology spread constraints.

use serde_json::{Value, json};

use super::check::Check;
use super::selector::label_selector;
use crate::field::Path;
use crate::json::{int, list, text};
use crate::names;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const WEIGHT: &str = "must be in the range 1-100";

pub(super) fn affinity(check: &mut Check, affinity: &Value, path: &Path<'_>) {
    if let Some(node) = affinity.get("nodeAffinity") {
        node_affinity(check, node, &path.child("nodeAffinity"));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        if let Some(pod) = affinity.get(kind) {
            pod_affinity(check, pod, &path.child(kind));
        }
    }
}

fn node_affinity(check: &mut Check, affinity: &Value, path: &Path<'_>) {
    if let Some(required) = affinity.get(REQUIRED).filter(|value| value.is_object()) {
        let path = path.child(REQUIRED);
        let terms_path = path.child("nodeSelectorTerms");
        let terms = list(required, "nodeSelectorTerms");
        if terms.is_empty() {
            check.required(&terms_path, "must have at least one node selector term");
        }
        for (index, term) in terms.iter().enumerate() {
            node_term(check, term, &terms_path.index(index));
        }
    }
    let path = path.child(PREFERRED);
    for (index, term) in list(affinity, PREFERRED).iter().enumerate() {
        let path = path.index(index);
        weight(check, term, &path);
        node_term(check, &term["preference"], &path.child("preference"));
    }
}

fn weight(check: &mut Check, term: &Value, path: &Path<'_>) {
    let weight = int(term, "weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        check.invalid(&path.child("weight"), &json!(weight), WEIGHT);
    }
}

fn node_term(check: &mut Check, term: &Value, path: &Path<'_>) {
    let expressions = path.child("matchExpressions");
    for (index, requirement) in list(term, "matchExpressions").iter().enumerate() {
        node_requirement(check, requirement, &expressions.index(index));
    }
    let fields = path.child("matchFields");
    for (index, requirement) in list(term, "matchFields").iter().enumerate() {
        node_field(check, requirement, &fields.index(index));
    }
}

fn node_requirement(check: &mut Check, requirement: &Value, path: &Path<'_>) {
    let values = list(requirement, "values");
    let values_path = path.child("values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            check.required(
                &values_path,
                "must be specified when `operator` is 'In' or 'NotIn'",
            );
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => check.forbidden(
            &values_path,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        "Gt" | "Lt" if values.len() != 1 => check.required(
            &values_path,
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        ),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => bad_operator(check, other, path),
    }
    let key = text(requirement, "key");
    check.syntax(&path.child("key"), key, names::qualified_name(key));
    for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
        check.syntax(&values_path.index(index), value, names::label_value(value));
    }
}

fn bad_operator(check: &mut Check, operator: &str, path: &Path<'_>) {
    check.invalid(
        &path.child("operator"),
        &json!(operator),
        "not a valid selector operator",
    );
}

fn node_field(check: &mut Check, requirement: &Value, path: &Path<'_>) {
    match text(requirement, "operator") {
        "In" | "NotIn" if list(requirement, "values").len() == 1 => {}
        "In" | "NotIn" => check.required(
            &path.child("values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        ),
        other => bad_operator(check, other, path),
    }
    let key = text(requirement, "key");
    if key != "metadata.name" {
        check.invalid(
            &path.child("key"),
            &json!(key),
            "not a valid field selector key",
        );
    }
}

fn pod_affinity(check: &mut Check, affinity: &Value, path: &Path<'_>) {
    let required = path.child(REQUIRED);
    for (index, term) in list(affinity, REQUIRED).iter().enumerate() {
        pod_term(check, term, &required.index(index));
    }
    let preferred = path.child(PREFERRED);
    for (index, term) in list(affinity, PREFERRED).iter().enumerate() {
        let path = preferred.index(index);
        weight(check, term, &path);
        pod_term(
            check,
            &term["podAffinityTerm"],
            &path.child("podAffinityTerm"),
        );
    }
}

fn pod_term(check: &mut Check, term: &Value, path: &Path<'_>) {
    for field in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = term.get(field) {
            label_selector(check, selector, &path.child(field));
        }
    }
    for namespace in list(term, "namespaces").iter().filter_map(Value::as_str) {
        check.syntax(
            &path.child("namespace"),
            namespace,
            names::dns_label(namespace),
        );
    }
    match text(term, "topologyKey") {
        "" => check.required(&path.child("topologyKey"), "can not be empty"),
        key => check.syntax(&path.child("topologyKey"), key, names::qualified_name(key)),
    }
}

pub(super) fn spread(check: &mut Check, constraints: &[Value], path: &Path<'_>) {
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let skew = int(constraint, "maxSkew").unwrap_or_default();
        if skew <= 0 {
            check.invalid(
                &path.child("maxSkew"),
                &json!(skew),
                "must be greater than zero",
            );
        }
        match text(constraint, "topologyKey") {
            "" => check.required(&path.child("topologyKey"), "can not be empty"),
            key => check.syntax(&path.child("topologyKey"), key, names::qualified_name(key)),
        }
        check.one_of(
            &path.child("whenUnsatisfiable"),
            text(constraint, "whenUnsatisfiable"),
            &["DoNotSchedule", "ScheduleAnyway"],
        );
        let same = |other: &Value| {
            other["topologyKey"] == constraint["topologyKey"]
                && other["whenUnsatisfiable"] == constraint["whenUnsatisfiable"]
        };
        if constraints[..index].iter().any(same) {
            let pair = format!(
                "{{{}, {}}}",
                text(constraint, "topologyKey"),
                text(constraint, "whenUnsatisfiable")
            );
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            check.duplicate(&path, &json!(pair));
        }
        if let Some(selector) = constraint.get("labelSelector") {
            label_selector(check, selector, &path.child("labelSelector"));
        }
    }
}
