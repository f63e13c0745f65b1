//! Validation of decoded, defaulted objects, with upstream's rules and words.

use serde_json::Value;

use crate::{FieldError, Kind};

/// What is wrong with an object that is to be created (its name is already generated). Empty when it is valid.
pub fn create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    todo!("{kind:?} {object:?}")
}

/// What is wrong with an update of `old` to `new`: the rules of a create, and fields that can't change.
pub fn update(kind: &Kind, new: &Value, old: &Value) -> Vec<FieldError> {
    todo!("{kind:?} {new:?} {old:?}")
}

/// What is wrong with a write to the `status` subresource.
pub fn status_update(kind: &Kind, new: &Value, old: &Value) -> Vec<FieldError> {
    todo!("{kind:?} {new:?} {old:?}")
}
