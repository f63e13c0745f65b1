//! `create`: names, system metadata, admission, validation, and the write that only succeeds for a new key.

use bytes::Bytes;
use http::StatusCode;
use rand::Rng;
use serde_json::{Value, json};
use sluice_api::{ApiError, Kind, convert, defaults, prepare, validate};
use sluice_store::Expect;
use uuid::Uuid;

use super::Call;
use super::registry::{self, At, Written};
use crate::admission;
use crate::app::App;
use crate::body;
use crate::codec;
use crate::object::{self, meta_mut};
use crate::respond::{self, Answer};

/// How many names are tried for a `generateName`.
const NAMES: usize = 8;
const SUFFIX_LENGTH: usize = 5;
/// Without vowels and look-alikes, as upstream, so that no words come out.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// A generated name's prefix is cut so that prefix and suffix fit into a label.
const PREFIX_LIMIT: usize = 63 - SUFFIX_LENGTH;

pub(super) async fn create(call: &Call, body: Bytes) -> Result<Answer, ApiError> {
    let view = call.view()?;
    let dry_run = call.query.dry_run()?;
    let kind = call.target.kind;
    let mode = call.field_validation()?;
    let (object, warnings) = body::read(kind, &body, call.content_type(), mode)?;
    let made = call
        .app
        .create(kind, &call.target.namespace, object, dry_run)
        .await?;
    let mut answer = view.object(StatusCode::CREATED, made)?;
    respond::warn(&mut answer, &warnings);
    Ok(answer)
}

impl App {
    /// Creates a decoded object in a namespace (empty for kinds without). Returns its text as stored.
    pub(crate) async fn create(
        &self,
        kind: &'static Kind,
        namespace: &str,
        mut object: Value,
        dry_run: bool,
    ) -> Result<Bytes, ApiError> {
        place(kind, namespace, &mut object)?;
        defaults::apply(kind, &mut object);
        convert::to_storage(kind, &mut object);
        let kind = registry::storage_kind(kind);
        let generated = object::name(&object).is_empty();
        stamp(&mut object);
        for _ in 0..NAMES {
            if generated {
                generate_name(&mut object);
            }
            if let Some(body) = self
                .insert(kind, namespace, object.clone(), dry_run)
                .await?
            {
                return Ok(body);
            }
            if !generated {
                return Err(ApiError::already_exists(kind, object::name(&object)));
            }
        }
        Err(ApiError::generate_name_conflict(
            kind,
            object::name(&object),
        ))
    }

    /// `None` when the name is in use.
    async fn insert(
        &self,
        kind: &'static Kind,
        namespace: &str,
        mut object: Value,
        dry_run: bool,
    ) -> Result<Option<Bytes>, ApiError> {
        let name = object::name(&object).to_owned();
        let at = At {
            kind,
            namespace,
            name: &name,
        };
        prepare::for_create(kind, &mut object);
        admission::create(self, at, &mut object).await?;
        if !name.is_empty() && self.stored(at).await?.is_some() {
            return Ok(None);
        }
        let reserved = self.services.reserve_create(kind, &mut object)?;
        let errors = validate::create(kind, &object);
        if !errors.is_empty() {
            return Err(ApiError::invalid(kind, &name, errors));
        }
        if dry_run {
            return codec::encode(&object).map(Some).map_err(ApiError::internal);
        }
        match self.put(at, &object, Expect::Absent).await? {
            Written::Done(body) => {
                reserved.commit();
                Ok(Some(body))
            }
            Written::Changed => Ok(None),
        }
    }
}

/// Checks the object against the path, and fills in the namespace.
fn place(kind: &Kind, namespace: &str, object: &mut Value) -> Result<(), ApiError> {
    if !object::meta(object, "resourceVersion").is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    match_namespace(kind, namespace, object)?;
    if kind.namespaced && namespace.is_empty() {
        return Err(ApiError::bad_request("Namespace parameter required."));
    }
    Ok(())
}

pub(super) fn match_namespace(
    kind: &Kind,
    namespace: &str,
    object: &mut Value,
) -> Result<(), ApiError> {
    let own = object::namespace(object);
    if !own.is_empty() && own != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if kind.namespaced {
        meta_mut(object).insert("namespace".to_owned(), json!(namespace));
    }
    Ok(())
}

/// Sets the metadata that belongs to the server.
fn stamp(object: &mut Value) {
    registry::drop_unserved_metadata(object);
    let metadata = meta_mut(object);
    metadata.remove("deletionTimestamp");
    metadata.remove("deletionGracePeriodSeconds");
    metadata.insert("uid".to_owned(), json!(Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), json!(object::now()));
}

/// Names an object by its `generateName`. Without one the name stays empty, which validation reports.
fn generate_name(object: &mut Value) {
    let prefix = object::meta(object, "generateName");
    if prefix.is_empty() {
        return;
    }
    let end = prefix
        .char_indices()
        .map(|(at, char)| at + char.len_utf8())
        .take_while(|end| *end <= PREFIX_LIMIT)
        .last();
    let mut name = prefix[..end.unwrap_or(0)].to_owned();
    let mut random = rand::rng();
    for _ in 0..SUFFIX_LENGTH {
        name.push(SUFFIX_LETTERS[random.random_range(0..SUFFIX_LETTERS.len())].into());
    }
    meta_mut(object).insert("name".to_owned(), json!(name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_keep_their_prefix_and_fit_a_label() {
        let mut object = json!({"metadata": {"generateName": "web-"}});
        generate_name(&mut object);
        let name = object::name(&object);
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        let mut long = json!({"metadata": {"generateName": "x".repeat(100)}});
        generate_name(&mut long);
        assert_eq!(object::name(&long).len(), 63);
    }
}
