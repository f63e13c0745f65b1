//! What the cluster adds to new objects, and what it refuses because of other objects.

mod namespace;
mod pod;

use serde_json::Value;
use sluice_api::ApiError;

use crate::app::App;
use crate::rest::At;

/// Checks and completes an object that is about to be created. Its name may still be empty.
pub(crate) async fn create(app: &App, at: At<'_>, object: &mut Value) -> Result<(), ApiError> {
    if at.kind.namespaced {
        namespace::must_take_objects(app, at).await?;
    }
    match at.kind.storage {
        ("", "namespaces") => namespace::complete(object),
        ("", "pods") => pod::complete(app, at, object)?,
        _ => {}
    }
    Ok(())
}
