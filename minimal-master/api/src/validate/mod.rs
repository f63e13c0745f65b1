//! Validation of decoded, defaulted objects, with upstream's rules and words.
//!
//! The rules are those of upstream's `pkg/apis/*/validation`; what only concerns kinds of volumes or platforms that no
//! part of this project runs is left out.

mod affinity;
mod apps;
mod check;
mod config;
mod container;
mod endpoints;
mod environment;
mod event;
mod meta;
mod node;
mod pod;
mod pod_spec;
mod probe;
mod resources;
mod security;
mod selector;
mod service;
mod service_update;
mod small;
mod volume;

use serde_json::Value;

use crate::{FieldError, Kind};
use check::Check;

/// What is wrong with an object that is to be created (its name is already generated). Empty when it is valid.
pub fn create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut check = Check::default();
    meta::create(&mut check, kind, object);
    content(&mut check, kind, object);
    if kind.kind == "Pod" {
        pod::only_on_create(&mut check, object);
    }
    check.errors
}

/// What is wrong with an update of `old` to `new`: the rules of a create, and fields that can't change.
pub fn update(kind: &Kind, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut check = Check::default();
    meta::update(&mut check, kind, new, old);
    content(&mut check, kind, new);
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::update(&mut check, new, old),
        ("", "Service") => service_update::update(&mut check, new, old),
        ("", "ConfigMap") => config::config_map_update(&mut check, new, old),
        ("", "Secret") => config::secret_update(&mut check, new, old),
        ("", "Node") => node::update(&mut check, new, old),
        ("apps", _) => apps::update(&mut check, new, old),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice_update(&mut check, new, old),
        _ => {}
    }
    check.errors
}

/// What is wrong with a write to the `status` subresource.
pub fn status_update(kind: &Kind, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut check = Check::default();
    meta::update(&mut check, kind, new, old);
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::status_update(&mut check, new, old),
        ("", "Node") => node::status(&mut check, new),
        ("", "Namespace") => small::namespace_status(&mut check, new),
        ("", "Service") => service::status(&mut check, new),
        ("apps", "Deployment") => apps::deployment_status(&mut check, new, old),
        ("apps", "ReplicaSet") => apps::replica_set_status(&mut check, new),
        _ => {}
    }
    check.errors
}

/// The rules that hold at any time.
fn content(check: &mut Check, kind: &Kind, object: &Value) {
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::content(check, object),
        ("", "Service") => service::content(check, object),
        ("", "ConfigMap") => config::config_map(check, object),
        ("", "Secret") => config::secret(check, object),
        ("", "Node") => node::content(check, object),
        ("", "Namespace") => small::namespace(check, object),
        ("", "Endpoints") => endpoints::endpoints(check, object),
        ("", "Event") => event::core(check, object),
        ("events.k8s.io", "Event") => event::new_style(check, object),
        ("apps", "Deployment") => apps::deployment(check, object),
        ("apps", "ReplicaSet") => apps::replica_set(check, object),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice(check, object),
        ("coordination.k8s.io", "Lease") => small::lease(check, object),
        _ => {}
    }
}
