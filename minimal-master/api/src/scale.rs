//! The `scale` subresource of Deployments and ReplicaSets.

use serde_json::{Value, json};

use crate::field::Path;
use crate::json::{int_at, name, text_at};
use crate::selector::LabelSelector;
use crate::{ApiError, FieldError, Kind, kinds};

/// The autoscaling/v1 Scale of an object.
pub fn get(object: &Value) -> Value {
    let mut metadata = json!({});
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = object["metadata"].get(key) {
            metadata[key] = value.clone();
        }
    }
    let selector = LabelSelector::from_object(&object["spec"]["selector"]).unwrap_or_default();
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": int_at(object, "/spec/replicas")},
        "status": {
            "replicas": int_at(object, "/status/replicas"),
            "selector": selector.to_string(),
        },
    })
}

/// Sets the object's replicas from a decoded Scale. 422 for a negative number, 409 when the Scale carries another
/// uid or resourceVersion, 400 when it carries another name.
pub fn set(kind: &Kind, object: &mut Value, scale: &Value) -> Result<(), ApiError> {
    check_identity(kind, object, scale)?;
    let replicas = int_at(scale, "/spec/replicas");
    if replicas < 0 {
        let spec = Path::root("spec");
        let error = FieldError::invalid(
            &spec.child("replicas"),
            &json!(replicas),
            "must be greater than or equal to 0",
        );
        return Err(ApiError::invalid(&kinds::SCALE, name(object), vec![error]));
    }
    object["spec"]["replicas"] = json!(replicas);
    Ok(())
}

fn check_identity(kind: &Kind, object: &Value, scale: &Value) -> Result<(), ApiError> {
    let (wanted, found) = (name(scale), name(object));
    if !wanted.is_empty() && wanted != found {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({wanted}) does not match the name on the URL ({found})"
        )));
    }
    for pointer in ["/metadata/uid", "/metadata/resourceVersion"] {
        let wanted = text_at(scale, pointer);
        if !wanted.is_empty() && wanted != text_at(object, pointer) {
            return Err(ApiError::conflict(kind, found));
        }
    }
    Ok(())
}
