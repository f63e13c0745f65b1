//! `update`: replaces an object or its status.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use sluice_api::{ApiError, convert, defaults};

use super::Call;
use super::create::match_namespace;
use super::registry::{self, At, Part};
use crate::body;
use crate::object::{self, meta_mut};
use crate::respond::{self, Answer};

/// Kinds that an update creates when they are missing (upstream's AllowCreateOnUpdate).
const CREATED_BY_UPDATE: [&str; 4] = ["endpoints", "events", "leases", "services"];

pub(super) async fn update(call: &Call, body: Bytes, part: Part) -> Result<Answer, ApiError> {
    let view = call.view()?;
    let dry_run = call.query.dry_run()?;
    let kind = call.target.kind;
    let (mut object, warnings) =
        body::read(kind, &body, call.content_type(), call.field_validation()?)?;
    place(call.at(), &mut object)?;
    defaults::apply(kind, &mut object);
    let (code, text) = write(call, object, part, dry_run).await?;
    let mut answer = view.object(code, text)?;
    respond::warn(&mut answer, &warnings);
    Ok(answer)
}

async fn write(
    call: &Call,
    object: Value,
    part: Part,
    dry_run: bool,
) -> Result<(StatusCode, Bytes), ApiError> {
    let kind = call.target.kind;
    let mut stored_form = object.clone();
    convert::to_storage(kind, &mut stored_form);
    let at = At {
        kind: registry::storage_kind(kind),
        ..call.at()
    };
    let updated = call
        .app
        .modify(at, part, dry_run, |_| Ok(stored_form.clone()))
        .await;
    match updated {
        Err(error) if error.code == 404 && part == Part::Object && may_create(call, &object) => {
            let made = call
                .app
                .create(kind, &call.target.namespace, object, dry_run)
                .await?;
            Ok((StatusCode::CREATED, made))
        }
        other => Ok((StatusCode::OK, other?)),
    }
}

fn may_create(call: &Call, object: &Value) -> bool {
    CREATED_BY_UPDATE.contains(&call.target.kind.plural)
        && object::uid(object).is_empty()
        && object::meta(object, "resourceVersion").is_empty()
}

/// Checks the object against the path.
pub(super) fn place(at: At<'_>, object: &mut Value) -> Result<(), ApiError> {
    let own = object::name(object);
    if own.is_empty() {
        meta_mut(object).insert("name".to_owned(), json!(at.name));
    } else if own != at.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({})",
            at.name
        )));
    }
    match_namespace(at.kind, at.namespace, object)
}
