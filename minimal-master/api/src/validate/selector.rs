//! meta/v1 LabelSelectors.

use serde_json::{Value, json};

use super::check::Check;
use crate::field::Path;
use crate::json::{list, map, text};
use crate::names;

pub(super) fn label_selector(check: &mut Check, selector: &Value, path: &Path<'_>) {
    check.labels(&path.child("matchLabels"), map(selector, "matchLabels"));
    let expressions = path.child("matchExpressions");
    for (index, expression) in list(selector, "matchExpressions").iter().enumerate() {
        requirement(check, expression, &expressions.index(index));
    }
}

fn requirement(check: &mut Check, expression: &Value, path: &Path<'_>) {
    let values = list(expression, "values");
    match text(expression, "operator") {
        "In" | "NotIn" if values.is_empty() => check.required(
            &path.child("values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        ),
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if !values.is_empty() => check.forbidden(
            &path.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        "Exists" | "DoesNotExist" => {}
        operator => check.invalid(
            &path.child("operator"),
            &json!(operator),
            "not a valid selector operator",
        ),
    }
    let key = text(expression, "key");
    check.syntax(&path.child("key"), key, names::qualified_name(key));
    for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
        check.syntax(
            &path.child("values").index(index),
            value,
            names::label_value(value),
        );
    }
}
