//! Discovery documents: which groups, versions and resources are served.

use serde_json::Value;

/// Media type of the aggregated documents, as `Accept` names it besides `application/json`.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api`: the core group's versions. `server_address` is HOST:PORT.
pub fn core_versions(server_address: &str) -> Value {
    todo!("{server_address}")
}

/// `/apis`: the other groups.
pub fn groups() -> Value {
    todo!()
}

/// `/apis/GROUP`.
pub fn group(name: &str) -> Option<Value> {
    todo!("{name}")
}

/// `/api/v1` (group empty) or `/apis/GROUP/VERSION`: the resources.
pub fn resources(group: &str, version: &str) -> Option<Value> {
    todo!("{group} {version}")
}

/// `/api` in the aggregated form (apidiscovery.k8s.io/v2).
pub fn aggregated_core() -> Value {
    todo!()
}

/// `/apis` in the aggregated form (apidiscovery.k8s.io/v2).
pub fn aggregated_groups() -> Value {
    todo!()
}
