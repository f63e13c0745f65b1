//! `pods/NAME/binding`: the scheduler's decision.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::json;
use sluice_api::{ApiError, binding, kinds};

use super::Call;
use super::registry::Part;
use super::update::place;
use crate::body;
use crate::object;
use crate::respond::{self, Answer};

pub(super) async fn bind(call: &Call, body: Bytes) -> Result<Answer, ApiError> {
    let dry_run = call.query.dry_run()?;
    let mode = call.field_validation()?;
    let (mut wanted, warnings) = body::read(&kinds::BINDING, &body, call.content_type(), mode)?;
    place(call.at(), &mut wanted)?;
    let uid = object::uid(&wanted).to_owned();
    let bound = call.app.modify(call.at(), Part::Internal, dry_run, |pod| {
        let mut pod = pod.clone();
        if !uid.is_empty() {
            // Compared with the stored one by the write.
            pod["metadata"]["uid"] = json!(uid);
        }
        binding::bind(&mut pod, &wanted, Timestamp::now())?;
        Ok(pod)
    });
    bound.await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    let mut answer = respond::json_value(StatusCode::CREATED, &status);
    respond::warn(&mut answer, &warnings);
    Ok(answer)
}
