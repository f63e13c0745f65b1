//! `patch`: JSON patch, merge patch and strategic merge patch, applied to the stored object and then treated
//! like an update.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use sluice_api::{ApiError, Kind, convert, defaults, patch, schema};

use super::Call;
use super::registry::{self, At, Part};
use crate::respond::{self, Answer};

const MEDIA_TYPES: [&str; 3] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const APPLY: [&str; 2] = [
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];

/// A patch that was read and not yet applied.
pub(super) struct Patch {
    apply: fn(&Kind, &Value, &Value) -> Result<Value, ApiError>,
    body: Value,
}

impl Patch {
    pub(super) fn read(content_type: Option<&str>, body: &[u8]) -> Result<Self, ApiError> {
        let content_type = content_type.unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let apply = match media_type {
            "application/json-patch+json" => patch::json,
            "application/merge-patch+json" => patch::merge,
            "application/strategic-merge-patch+json" => patch::strategic,
            other if APPLY.contains(&other) => return Err(no_server_side_apply()),
            _ => return Err(ApiError::unsupported_media_type(&MEDIA_TYPES)),
        };
        let body = serde_json::from_slice(body)
            .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
        Ok(Self { apply, body })
    }

    pub(super) fn apply(&self, kind: &Kind, current: &Value) -> Result<Value, ApiError> {
        (self.apply)(kind, current, &self.body)
    }
}

fn no_server_side_apply() -> ApiError {
    let mut error = ApiError::unsupported_media_type(&MEDIA_TYPES);
    error.message = format!(
        "server-side apply is not supported; use client-side apply, or a patch of one of the types {}",
        MEDIA_TYPES.join(", ")
    );
    error
}

pub(super) async fn patch(call: &Call, body: Bytes, part: Part) -> Result<Answer, ApiError> {
    let view = call.view()?;
    let dry_run = call.query.dry_run()?;
    let kind = call.target.kind;
    let mode = call.field_validation()?;
    let patch = Patch::read(call.content_type(), &body)?;
    let mut warnings = Vec::new();
    let at = At {
        kind: registry::storage_kind(kind),
        ..call.at()
    };
    let text = call
        .app
        .modify(at, part, dry_run, |stored| {
            let mut current = stored.clone();
            convert::from_storage(kind, &mut current);
            let mut new = patch.apply(kind, &current)?;
            warnings = schema::decode(kind, &mut new, mode)?;
            defaults::apply(kind, &mut new);
            convert::to_storage(kind, &mut new);
            Ok(new)
        })
        .await?;
    let mut answer = view.object(StatusCode::OK, text)?;
    respond::warn(&mut answer, &warnings);
    Ok(answer)
}
