//! Objects need a namespace that exists and is not being deleted; namespaces need their contents deleted first.

use serde_json::{Value, json};
use sluice_api::status::{Cause, Details};
use sluice_api::{ApiError, kinds};

use crate::app::App;
use crate::object;
use crate::rest::At;

/// 404 for a namespace that is missing, 403 for one that is being deleted.
pub(super) async fn must_take_objects(app: &App, at: At<'_>) -> Result<(), ApiError> {
    let namespace = At {
        kind: &kinds::NAMESPACE,
        namespace: "",
        name: at.namespace,
    };
    let found = app.existing(namespace).await?;
    match object::is_deleting(&found.value) {
        true => Err(terminating(at)),
        false => Ok(()),
    }
}

fn terminating(at: At<'_>) -> ApiError {
    let why = format!(
        "unable to create new content in namespace {} because it is being terminated",
        at.namespace
    );
    let mut error = ApiError::forbidden(at.kind, at.name, why);
    let details = error
        .details
        .get_or_insert_with(|| Box::new(Details::default()));
    details.causes.push(Cause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {} is being terminated", at.namespace),
        field: "metadata.namespace".to_owned(),
    });
    error
}

/// The finalizer by which the namespace controller empties a namespace, and the label that selectors use.
pub(super) fn complete(namespace: &mut Value) {
    let mut finalizers = object::strings(&namespace["spec"]["finalizers"]);
    if !finalizers.iter().any(|name| name == "kubernetes") {
        finalizers.push("kubernetes".to_owned());
    }
    namespace["spec"]["finalizers"] = json!(finalizers);
    let name = object::name(namespace).to_owned();
    if !name.is_empty() {
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
    }
}
