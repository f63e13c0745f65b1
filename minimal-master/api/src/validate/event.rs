//! Events of both groups.

use serde_json::{Value, json};

use super::check::Check;
use crate::field::Path;
use crate::json::{text, text_at};
use crate::names;

/// core/v1 Events: the namespace must be the object's; old clients put events about cluster-wide objects into
/// `default`.
pub(super) fn core(check: &mut Check, event: &Value) {
    let namespace = text_at(event, "/metadata/namespace");
    same_namespace(
        check,
        namespace,
        text_at(event, "/involvedObject/namespace"),
        "involvedObject",
    );
    if !text(event, "eventTime").is_empty() {
        reporting(check, event, "reportingComponent");
    }
}

/// events.k8s.io/v1 Events, which leave less open.
pub(super) fn new_style(check: &mut Check, event: &Value) {
    let namespace = text_at(event, "/metadata/namespace");
    same_namespace(
        check,
        namespace,
        text_at(event, "/regarding/namespace"),
        "regarding",
    );
    if text(event, "eventTime").is_empty() && text(event, "deprecatedFirstTimestamp").is_empty() {
        check.required(&Path::root("eventTime"), "");
    }
    if !text(event, "eventTime").is_empty() {
        reporting(check, event, "reportingController");
        check.one_of(
            &Path::root("type"),
            text(event, "type"),
            &["Normal", "Warning"],
        );
    }
}

fn same_namespace(check: &mut Check, event: &str, object: &str, field: &str) {
    let fits = match object {
        "" => matches!(event, "" | "default" | "kube-system"),
        object => object == event,
    };
    if !fits {
        let path = Path::root(field);
        check.invalid(
            &path.child("namespace"),
            &json!(object),
            "does not match event.namespace",
        );
    }
}

fn reporting(check: &mut Check, event: &Value, controller: &str) {
    let component = text(event, controller);
    check.required_syntax(
        &Path::root("reportingController"),
        component,
        names::qualified_name,
    );
    for (field, max) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        let value = text(event, field);
        match value.len() {
            0 => check.required(&Path::root(field), ""),
            len if len > max => {
                let detail = format!("can have at most {max} characters");
                check.invalid(&Path::root(field), &json!(value), detail);
            }
            _ => {}
        }
    }
}
