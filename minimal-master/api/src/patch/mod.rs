//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and Kubernetes' strategic merge patch.
//!
//! All three return the patched object; the caller decodes, defaults and validates it like an update.

use serde_json::Value;

use crate::{ApiError, Kind};

/// Applies a list of JSON patch operations. 422 when one does not fit (a failed `test` too), 400 for a broken patch.
pub fn json(kind: &Kind, current: &Value, patch: &Value) -> Result<Value, ApiError> {
    todo!("{kind:?} {current:?} {patch:?}")
}

/// Applies a JSON merge patch: nulls delete, objects merge, the rest replaces.
pub fn merge(kind: &Kind, current: &Value, patch: &Value) -> Result<Value, ApiError> {
    todo!("{kind:?} {current:?} {patch:?}")
}

/// Applies a strategic merge patch: lists with merge keys merge by key, and the directives `$patch`,
/// `$retainKeys`, `$deleteFromPrimitiveList/FIELD` and `$setElementOrder/FIELD` work.
pub fn strategic(kind: &Kind, current: &Value, patch: &Value) -> Result<Value, ApiError> {
    todo!("{kind:?} {current:?} {patch:?}")
}
