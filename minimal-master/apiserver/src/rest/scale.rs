//! The `scale` subresource.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use sluice_api::{ApiError, kinds, scale, schema};

use super::Call;
use super::patch::Patch;
use super::registry::Part;
use super::update::place;
use crate::body;
use crate::respond::{self, Answer, damaged};

pub(super) async fn get(call: &Call) -> Result<Answer, ApiError> {
    let stored = call.app.existing(call.at()).await?;
    Ok(respond::json_value(
        StatusCode::OK,
        &scale::get(&stored.value),
    ))
}

pub(super) async fn update(call: &Call, body: Bytes) -> Result<Answer, ApiError> {
    let mode = call.field_validation()?;
    let (mut scale, warnings) = body::read(&kinds::SCALE, &body, call.content_type(), mode)?;
    place(call.at(), &mut scale)?;
    let mut answer = write(call, |_| Ok(scale.clone())).await?;
    respond::warn(&mut answer, &warnings);
    Ok(answer)
}

pub(super) async fn patch(call: &Call, body: Bytes) -> Result<Answer, ApiError> {
    let mode = call.field_validation()?;
    let patch = Patch::read(call.content_type(), &body)?;
    write(call, |current| {
        let mut scale = patch.apply(&kinds::SCALE, &scale::get(current))?;
        schema::decode(&kinds::SCALE, &mut scale, mode)?;
        Ok(scale)
    })
    .await
}

async fn write(
    call: &Call,
    mut wanted: impl FnMut(&Value) -> Result<Value, ApiError>,
) -> Result<Answer, ApiError> {
    let dry_run = call.query.dry_run()?;
    let kind = call.target.kind;
    let text = call
        .app
        .modify(call.at(), Part::Object, dry_run, |stored| {
            let mut new = stored.clone();
            scale::set(kind, &mut new, &wanted(stored)?)?;
            Ok(new)
        })
        .await?;
    let object = serde_json::from_slice(&text).map_err(damaged)?;
    Ok(respond::json_value(StatusCode::OK, &scale::get(&object)))
}
