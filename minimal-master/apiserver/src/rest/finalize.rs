//! `namespaces/NAME/finalize`: the namespace controller's word that the contents are gone.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use sluice_api::ApiError;

use super::Call;
use super::registry::Part;
use super::update::place;
use crate::body;
use crate::object;
use crate::respond::Answer;

pub(super) async fn finalize(call: &Call, body: Bytes) -> Result<Answer, ApiError> {
    let view = call.view()?;
    let dry_run = call.query.dry_run()?;
    let (mut wanted, _) = body::read(
        call.target.kind,
        &body,
        call.content_type(),
        call.field_validation()?,
    )?;
    place(call.at(), &mut wanted)?;
    let text = call
        .app
        .modify(call.at(), Part::Internal, dry_run, |stored| {
            let mut new = stored.clone();
            new["spec"]["finalizers"] = match &wanted["spec"]["finalizers"] {
                Value::Null => Value::Array(Vec::new()),
                finalizers => finalizers.clone(),
            };
            for field in ["resourceVersion", "uid"] {
                let value = object::meta(&wanted, field);
                if !value.is_empty() {
                    new["metadata"][field] = value.into();
                }
            }
            Ok(new)
        })
        .await?;
    view.object(StatusCode::OK, text)
}
