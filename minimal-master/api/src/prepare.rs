//! What a write may not touch: status through the object, the object through its status, generation.

use serde_json::Value;

use crate::Kind;

/// Before a create is validated: drops what only the server sets (status where it is a subresource), sets
/// `metadata.generation` to 1 where the kind counts it, `status.phase` of pods and namespaces.
///
/// Names, uid, creationTimestamp and resourceVersion are the server's business.
pub fn for_create(kind: &Kind, object: &mut Value) {
    todo!("{kind:?} {object:?}")
}

/// Before an update is validated: keeps the status and system metadata of `old`, and raises the generation when
/// the spec changed.
pub fn for_update(kind: &Kind, new: &mut Value, old: &Value) {
    todo!("{kind:?} {new:?} {old:?}")
}

/// Before a write to the `status` subresource is validated: keeps everything but the status of `old`.
pub fn for_status_update(kind: &Kind, new: &mut Value, old: &Value) {
    todo!("{kind:?} {new:?} {old:?}")
}
