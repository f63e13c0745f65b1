//! Probes and lifecycle handlers.

use serde_json::{Value, json};

use super::check::Check;
use crate::field::Path;
use crate::json::{int, list, text};
use crate::names;

/// The probes of a container; `grace` is the pod's termination grace period in seconds.
pub(super) fn probes(check: &mut Check, container: &Value, grace: Option<i64>, path: &Path<'_>) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(value) = container.get(name).filter(|value| value.is_object()) else {
            continue;
        };
        let path = path.child(name);
        probe(check, value, grace, &path);
        if name == "readinessProbe" {
            if let Some(seconds) = int(value, "terminationGracePeriodSeconds") {
                check.invalid(
                    &path.child("terminationGracePeriodSeconds"),
                    &json!(seconds),
                    "must not be set for readinessProbes",
                );
            }
        } else if let Some(threshold) = int(value, "successThreshold").filter(|t| *t != 1) {
            check.invalid(
                &path.child("successThreshold"),
                &json!(threshold),
                "must be 1",
            );
        }
    }
}

fn probe(check: &mut Check, probe: &Value, grace: Option<i64>, path: &Path<'_>) {
    handler(
        check,
        probe,
        &["exec", "httpGet", "tcpSocket", "grpc"],
        grace,
        path,
    );
    check.not_negative(
        path,
        probe,
        &[
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ],
    );
    if let Some(seconds) = int(probe, "terminationGracePeriodSeconds").filter(|s| *s <= 0) {
        let path = path.child("terminationGracePeriodSeconds");
        check.invalid(&path, &json!(seconds), "must be greater than 0");
    }
}

/// What runs after a container's start and before its end.
pub(super) fn lifecycle(check: &mut Check, container: &Value, grace: Option<i64>, path: &Path<'_>) {
    let path = path.child("lifecycle");
    for hook in ["postStart", "preStop"] {
        if let Some(value) = container.get("lifecycle").and_then(|l| l.get(hook)) {
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            handler(check, value, &kinds, grace, &path.child(hook));
        }
    }
}

/// Exactly one of `kinds` must be given.
fn handler(
    check: &mut Check,
    handler: &Value,
    kinds: &[&str],
    grace: Option<i64>,
    path: &Path<'_>,
) {
    let mut found = false;
    for kind in kinds {
        let Some(action) = handler.get(kind).filter(|action| action.is_object()) else {
            continue;
        };
        let path = path.child(kind);
        if found {
            check.forbidden(&path, "may not specify more than 1 handler type");
        } else {
            self::action(check, kind, action, grace, &path);
        }
        found = true;
    }
    if !found {
        check.required(path, "must specify a handler type");
    }
}

fn action(check: &mut Check, kind: &str, action: &Value, grace: Option<i64>, path: &Path<'_>) {
    match kind {
        "exec" if list(action, "command").is_empty() => check.required(&path.child("command"), ""),
        "exec" => {}
        "httpGet" => http_get(check, action, path),
        "sleep" => sleep(check, action, grace, path),
        _ => check.port(&path.child("port"), action.get("port")),
    }
}

fn http_get(check: &mut Check, action: &Value, path: &Path<'_>) {
    check.required_text(path, action, "path");
    check.port(&path.child("port"), action.get("port"));
    check.one_of(
        &path.child("scheme"),
        text(action, "scheme"),
        &["HTTP", "HTTPS"],
    );
    for header in list(action, "httpHeaders") {
        let name = text(header, "name");
        check.syntax(
            &path.child("httpHeaders"),
            name,
            names::http_header_name(name),
        );
    }
}

fn sleep(check: &mut Check, action: &Value, grace: Option<i64>, path: &Path<'_>) {
    let seconds = int(action, "seconds").unwrap_or_default();
    if let Some(grace) = grace
        && (seconds < 0 || seconds > grace)
    {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        check.invalid(path, &json!(seconds), detail);
    }
}
