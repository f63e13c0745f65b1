//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and Kubernetes' strategic merge patch.
//!
//! All three return the patched object; the caller decodes, defaults and validates it like an update.

mod order;
mod strategic;

use serde_json::Value;

use crate::schema::types;
use crate::{ApiError, Kind};

/// Operations that one JSON patch may have, as upstream limits them.
const MAX_OPERATIONS: usize = 10_000;

/// Applies a list of JSON patch operations. 422 when one does not fit (a failed `test` too), 400 for a broken patch,
/// 413 for one with more than 10,000 operations.
pub fn json(kind: &Kind, current: &Value, patch: &Value) -> Result<Value, ApiError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(ApiError::request_too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    let mut patched = current.clone();
    json_patch::patch(&mut patched, &operations).map_err(ApiError::unprocessable)?;
    expect_object(kind, patched)
}

/// Applies a JSON merge patch: nulls delete, objects merge, the rest replaces.
pub fn merge(kind: &Kind, current: &Value, patch: &Value) -> Result<Value, ApiError> {
    let mut patched = current.clone();
    json_patch::merge(&mut patched, patch);
    expect_object(kind, patched)
}

/// Applies a strategic merge patch: lists with merge keys merge by key, and the directives `$patch`,
/// `$retainKeys`, `$deleteFromPrimitiveList/FIELD` and `$setElementOrder/FIELD` work. 400 for a broken patch, 422 for
/// an element without its merge key.
pub fn strategic(kind: &Kind, current: &Value, patch: &Value) -> Result<Value, ApiError> {
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else {
        return Err(ApiError::bad_request(
            "error decoding patch: a strategic merge patch must be an object",
        ));
    };
    let ty = types::find(kind.schema).unwrap_or(&types::Type::Any);
    let patched = strategic::merge_map(current.clone(), patch.clone(), ty)?;
    Ok(Value::Object(patched))
}

fn expect_object(kind: &Kind, patched: Value) -> Result<Value, ApiError> {
    match patched.is_object() {
        true => Ok(patched),
        false => Err(ApiError::bad_request(format!(
            "the patch does not leave a {}: the result is not an object",
            kind.kind
        ))),
    }
}
