//! What may change about a Service: a second family may come and go, the first stays.

use serde_json::{Value, json};

use super::check::{Check, IMMUTABLE};
use super::service::is_headless;
use crate::field::Path;
use crate::json::{int, list, text};

const ONCE: &str = "may not change once set";

pub(super) fn update(check: &mut Check, new: &Value, old: &Value) {
    let (new, old) = (&new["spec"], &old["spec"]);
    let path = Path::root("spec");
    let external_name = |spec: &Value| text(spec, "type") == "ExternalName";
    if !external_name(new) && !external_name(old) {
        if !(is_headless(new) && is_headless(old)) {
            primary(check, new, old, "clusterIPs", "clusterIP", &path);
        }
        primary(check, new, old, "ipFamilies", "ipFamily", &path);
    }
    load_balancer_class(check, new, old, &path.child("loadBalancerClass"));
    health_check_port(check, new, old, &path.child("healthCheckNodePort"));
}

/// The rules for lists whose first element stays and whose second one may come and go.
fn primary(
    check: &mut Check,
    new: &Value,
    old: &Value,
    field: &str,
    singular: &str,
    path: &Path<'_>,
) {
    let (now, before) = (list(new, field), list(old, field));
    let list_path = path.child(field);
    if now.len() == before.len() {
        for (index, (now_one, before_one)) in now.iter().zip(before).enumerate() {
            if now_one != before_one {
                check.invalid(&list_path.index(index), &json!(now), ONCE);
            }
        }
        return;
    }
    match (now.first(), before.first()) {
        (None, Some(_)) => {
            let detail = format!("primary {singular} can not be unset");
            check.invalid(&list_path.index(0), &json!(now), detail);
        }
        (Some(now_first), Some(before_first)) if now_first != before_first => {
            check.invalid(&list_path.index(0), &json!(now), ONCE);
        }
        _ => {}
    }
    let released = before.len() > now.len() && now.len() == 1;
    if released && text(new, "ipFamilyPolicy") != "SingleStack" {
        let detail =
            format!("must be set to 'SingleStack' when releasing the secondary {singular}");
        check.invalid(
            &path.child("ipFamilyPolicy"),
            &new["ipFamilyPolicy"],
            detail,
        );
    }
}

fn load_balancer_class(check: &mut Check, new: &Value, old: &Value, path: &Path<'_>) {
    let balanced = |spec: &Value| text(spec, "type") == "LoadBalancer";
    if balanced(new) && balanced(old) && new["loadBalancerClass"] != old["loadBalancerClass"] {
        check.invalid(path, &new["loadBalancerClass"], ONCE);
    }
}

fn health_check_port(check: &mut Check, new: &Value, old: &Value, path: &Path<'_>) {
    let needs = |spec: &Value| {
        text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
    };
    if needs(new)
        && needs(old)
        && int(new, "healthCheckNodePort") != int(old, "healthCheckNodePort")
    {
        check.forbidden(path, IMMUTABLE);
    }
}
