//! Resource requests and limits of containers.

use serde_json::{Map, Value, json};

use super::check::{Check, NOT_NEGATIVE};
use crate::field::Path;
use crate::json::{list, map};
use crate::names;
use crate::quantity::Quantity;

pub(super) fn requirements(
    check: &mut Check,
    resources: &Value,
    claims: &[Value],
    path: &Path<'_>,
) {
    let (limits, requests) = (map(resources, "limits"), map(resources, "requests"));
    amounts(check, limits, &path.child("limits"));
    amounts(check, requests, &path.child("requests"));
    for (name, request) in requests {
        if let Some(limit) = limits.get(name) {
            within_limit(check, name, request, limit, &path.child("requests"));
        } else if !overcommits(name) {
            check.required(
                &path.child("limits"),
                "Limit must be set for non overcommitable resources",
            );
        }
    }
    let claims_path = path.child("claims");
    for (index, claim) in list(resources, "claims").iter().enumerate() {
        if !claims.iter().any(|known| known["name"] == claim["name"]) {
            check.add(crate::FieldError::not_found(
                &claims_path.index(index),
                &claim["name"],
            ));
        }
    }
}

fn amounts(check: &mut Check, amounts: &Map<String, Value>, path: &Path<'_>) {
    for (name, amount) in amounts {
        let path = path.key(name);
        resource_name(check, name, &path);
        quantity(check, name, amount, &path);
    }
}

/// Whether more of it may be promised than there is.
fn overcommits(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn resource_name(check: &mut Check, name: &str, path: &Path<'_>) {
    let messages = names::qualified_name(name);
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage");
    if messages.is_empty() && !name.contains('/') && !standard && !name.starts_with("hugepages-") {
        check.invalid(
            path,
            &json!(name),
            "must be a standard resource type or fully qualified",
        );
        check.invalid(
            path,
            &json!(name),
            "must be a standard resource for containers",
        );
    }
    check.syntax(path, name, messages);
}

/// An amount may not be negative; what is not divisible is counted in whole numbers.
pub(super) fn quantity(check: &mut Check, name: &str, amount: &Value, path: &Path<'_>) {
    let Some(quantity) = parse(amount) else {
        return;
    };
    if quantity.nanos() < 0 {
        check.invalid(path, amount, NOT_NEGATIVE);
    }
    if !is_native(name) && !quantity.is_integer() {
        check.invalid(path, amount, "must be an integer");
    }
}

fn parse(amount: &Value) -> Option<Quantity> {
    amount.as_str()?.parse().ok()
}

fn within_limit(check: &mut Check, name: &str, request: &Value, limit: &Value, path: &Path<'_>) {
    let (Some(requested), Some(limited)) = (parse(request), parse(limit)) else {
        return;
    };
    if overcommits(name) {
        if requested > limited {
            let detail = format!("must be less than or equal to {name} limit of {limited}");
            check.invalid(path, request, detail);
        }
    } else if requested != limited {
        check.invalid(
            path,
            request,
            format!("must be equal to {name} limit of {limited}"),
        );
    }
}
