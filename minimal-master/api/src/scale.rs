//! The `scale` subresource of Deployments and ReplicaSets.

use serde_json::Value;

use crate::{ApiError, Kind};

/// The autoscaling/v1 Scale of an object.
pub fn get(object: &Value) -> Value {
    todo!("{object}")
}

/// Sets the object's replicas from a decoded Scale. 422 for a negative number, 409 when the Scale carries another
/// resourceVersion, 400 when it carries another name.
pub fn set(kind: &Kind, object: &mut Value, scale: &Value) -> Result<(), ApiError> {
    todo!("{kind:?} {object} {scale}")
}
