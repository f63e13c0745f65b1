//! Reading and writing single objects: the loop of optimistic concurrency, and what every write goes through.

use bytes::Bytes;
use serde_json::Value;
use sluice_api::{ApiError, Kind, kinds, prepare, validate};
use sluice_store::{Expect, Outcome, Revision, StoreError, Txn, Write};

use crate::app::App;
use crate::codec;
use crate::keys;
use crate::object::{self, meta_mut};
use crate::respond::damaged;

/// How often a write without a resourceVersion is tried again after somebody else's came between.
const ATTEMPTS: usize = 64;

/// Which object.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

impl At<'_> {
    pub(crate) fn key(&self) -> Bytes {
        keys::object(self.kind, self.namespace, self.name)
    }

    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found(self.kind, self.name)
    }
}

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status.
    Object,
    /// The status only.
    Status,
    /// Anything: writes of the server itself, such as marks of deletion.
    Internal,
}

/// An object as it is stored.
pub(crate) struct Stored {
    /// With its resourceVersion.
    pub(crate) value: Value,
    pub(crate) revision: Revision,
}

/// What became of a write that waited for a condition.
pub(crate) enum Written {
    Done(Bytes),
    Changed,
}

/// The kind under which objects are stored, whichever group version showed them.
pub(crate) fn storage_kind(kind: &'static Kind) -> &'static Kind {
    let (group, plural) = kind.storage;
    let stored = kinds::all()
        .iter()
        .copied()
        .find(|other| (other.group, other.plural) == (group, plural));
    stored.unwrap_or(kind)
}

impl App {
    pub(crate) async fn stored(&self, at: At<'_>) -> Result<Option<Stored>, ApiError> {
        let found = self.store.get(&at.key()).await.map_err(store_error)?;
        found
            .map(|kv| {
                let value = codec::decode(&kv).map_err(damaged)?;
                Ok(Stored {
                    value,
                    revision: kv.mod_revision,
                })
            })
            .transpose()
    }

    pub(crate) async fn existing(&self, at: At<'_>) -> Result<Stored, ApiError> {
        self.stored(at).await?.ok_or_else(|| at.not_found())
    }

    /// Writes an object if its key fulfils the expectation. Returns its text with the new resourceVersion.
    pub(crate) async fn put(
        &self,
        at: At<'_>,
        object: &Value,
        expect: Expect,
    ) -> Result<Written, ApiError> {
        let value = codec::encode(object).map_err(ApiError::internal)?;
        let txn = Txn {
            key: at.key(),
            expect,
            write: Write::Put(value.clone()),
        };
        Ok(match self.store.txn(txn).await.map_err(store_error)? {
            Outcome::Committed { revision, .. } => {
                Written::Done(codec::with_revision(&value, revision))
            }
            Outcome::Conflict { .. } => Written::Changed,
        })
    }

    /// Removes an object if nobody changed it since. Returns its last state under the removal's revision.
    pub(crate) async fn remove(&self, at: At<'_>, stored: &Stored) -> Result<Written, ApiError> {
        let expect = Expect::Revision(stored.revision);
        let txn = Txn {
            key: at.key(),
            expect,
            write: Write::Delete,
        };
        Ok(match self.store.txn(txn).await.map_err(store_error)? {
            Outcome::Committed { revision, .. } => {
                self.services.release(at.kind, &stored.value);
                let body = codec::encode(&stored.value).map_err(ApiError::internal)?;
                Written::Done(codec::with_revision(&body, revision))
            }
            Outcome::Conflict { .. } => Written::Changed,
        })
    }

    /// Changes an object: `change` makes the new state from the stored one, again when somebody else wrote in between.
    /// A resourceVersion in the new state must be the stored one's; an empty one is not compared.
    pub(crate) async fn modify(
        &self,
        at: At<'_>,
        part: Part,
        dry_run: bool,
        mut change: impl FnMut(&Value) -> Result<Value, ApiError>,
    ) -> Result<Bytes, ApiError> {
        for _ in 0..ATTEMPTS {
            let stored = self.existing(at).await?;
            let mut new = change(&stored.value)?;
            check_preconditions(at, &new, &stored.value)?;
            keep_system_metadata(&mut new, &stored.value, part);
            prepare(at.kind, part, &mut new, &stored.value);
            let reserved = self
                .services
                .reserve_update(at.kind, &mut new, &stored.value)?;
            check(at, part, &new, &stored.value)?;
            if dry_run || same(&new, &stored.value) {
                codec::set_revision(&mut new, stored.revision);
                return codec::encode(&new)
                    .map(|text| codec::with_revision(&text, stored.revision))
                    .map_err(ApiError::internal);
            }
            let written = match is_finished(at.kind, &new) {
                true => {
                    self.remove(
                        at,
                        &Stored {
                            value: new,
                            revision: stored.revision,
                        },
                    )
                    .await?
                }
                false => {
                    self.put(at, &new, Expect::Revision(stored.revision))
                        .await?
                }
            };
            if let Written::Done(body) = written {
                reserved.commit();
                return Ok(body);
            }
        }
        Err(ApiError::conflict(at.kind, at.name))
    }
}

fn prepare(kind: &'static Kind, part: Part, new: &mut Value, old: &Value) {
    match part {
        Part::Object => prepare::for_update(kind, new, old),
        Part::Status => prepare::for_status_update(kind, new, old),
        Part::Internal => {}
    }
}

fn check(at: At<'_>, part: Part, new: &Value, old: &Value) -> Result<(), ApiError> {
    let errors = match part {
        Part::Object => validate::update(at.kind, new, old),
        Part::Status => validate::status_update(at.kind, new, old),
        Part::Internal => Vec::new(),
    };
    match errors.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid(at.kind, at.name, errors)),
    }
}

fn check_preconditions(at: At<'_>, new: &Value, old: &Value) -> Result<(), ApiError> {
    let (wanted, found) = (object::uid(new), object::uid(old));
    if !wanted.is_empty() && wanted != found {
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        );
        return Err(ApiError::conflict_because(at.kind, at.name, why));
    }
    let wanted = object::meta(new, "resourceVersion");
    if !wanted.is_empty() && wanted != "0" && wanted != object::meta(old, "resourceVersion") {
        return Err(ApiError::conflict(at.kind, at.name));
    }
    Ok(())
}

/// Metadata that only the server sets.
const SYSTEM: [&str; 4] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

fn keep_system_metadata(new: &mut Value, old: &Value, part: Part) {
    if part == Part::Internal {
        return;
    }
    let metadata = meta_mut(new);
    for field in SYSTEM {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    drop_unserved_metadata(new);
}

/// Field ownership is not tracked, and self links are history.
pub(crate) fn drop_unserved_metadata(object: &mut Value) {
    let metadata = meta_mut(object);
    metadata.remove("managedFields");
    metadata.remove("selfLink");
}

/// Whether a write changes nothing; it then gets no revision, and nobody is woken up.
fn same(new: &Value, old: &Value) -> bool {
    let without_revision = |object: &Value| {
        let mut metadata = object["metadata"].clone();
        if let Some(fields) = metadata.as_object_mut() {
            fields.remove("resourceVersion");
        }
        metadata
    };
    let fields = |object: &Value| object.as_object().map_or(0, serde_json::Map::len);
    fields(new) == fields(old)
        && new
            .as_object()
            .into_iter()
            .flatten()
            .all(|(name, value)| name == "metadata" || old.get(name) == Some(value))
        && without_revision(new) == without_revision(old)
}

/// Whether an object that is being deleted has nothing left to wait for.
pub(crate) fn is_finished(kind: &Kind, object: &Value) -> bool {
    let grace = object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0);
    object::is_deleting(object)
        && object::finalizers(object).is_empty()
        && grace == 0
        && (kind.storage != ("", "namespaces")
            || object::strings(&object["spec"]["finalizers"]).is_empty())
}

/// A store's failure as clients see it.
pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { requested, .. } => too_old(requested),
        StoreError::FutureRevision { requested, current } => ApiError::timeout(
            format_args!("Too large resource version: {requested}, current: {current}"),
            1,
        ),
        StoreError::TooLarge { .. } => ApiError::request_too_large(error.to_string()),
        other => {
            tracing::error!(error = %other, "the store failed");
            ApiError::service_unavailable("the store does not take requests; see the server's log")
        }
    }
}

/// 410 for a revision whose history is gone.
pub(crate) fn too_old(requested: Revision) -> ApiError {
    ApiError::gone(format!(
        "The resourceVersion for the provided watch or list is too old: {requested}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_real_changes_are_written() {
        let old = json!({"metadata": {"name": "x", "resourceVersion": "4"}, "data": {"a": "b"}});
        let mut new = json!({"metadata": {"name": "x"}, "data": {"a": "b"}});
        assert!(same(&new, &old));
        new["data"]["a"] = json!("c");
        assert!(!same(&new, &old));
        assert!(!same(&json!({"metadata": {"name": "x"}}), &old));
    }

    #[test]
    fn deletion_waits_for_finalizers_and_grace() {
        let pod = |metadata| json!({"metadata": metadata});
        let finished = |metadata| is_finished(&kinds::POD, &pod(metadata));
        assert!(!finished(json!({})));
        assert!(finished(
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})
        ));
        assert!(!finished(
            json!({"deletionTimestamp": "t", "deletionGracePeriodSeconds": 30})
        ));
        assert!(!finished(
            json!({"deletionTimestamp": "t", "finalizers": ["x"]})
        ));
        let namespace =
            json!({"metadata": {"deletionTimestamp": "t"}, "spec": {"finalizers": ["kubernetes"]}});
        assert!(!is_finished(&kinds::NAMESPACE, &namespace));
    }
}
