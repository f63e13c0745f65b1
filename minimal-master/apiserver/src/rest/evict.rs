//! `pods/NAME/eviction`: deletes a pod on behalf of `kubectl drain`. There are no disruption budgets to ask.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use sluice_api::{ApiError, kinds};

use super::Call;
use super::options::DeleteOptions;
use super::update::place;
use crate::body;
use crate::respond::{self, Answer};

pub(super) async fn evict(call: &Call, body: Bytes) -> Result<Answer, ApiError> {
    let mode = call.field_validation()?;
    let (mut eviction, _) = body::read(&kinds::EVICTION, &body, call.content_type(), mode)?;
    place(call.at(), &mut eviction)?;
    let options = match &eviction["deleteOptions"] {
        Value::Null => Bytes::new(),
        options => options.to_string().into(),
    };
    let options = DeleteOptions::read(&options, None, &call.query)?;
    call.app.delete(call.at(), &options).await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(respond::json_value(StatusCode::CREATED, &status))
}
