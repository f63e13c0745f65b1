//! `delete` and `deletecollection`: preconditions, graceful deletion of pods, finalizers, and the removal itself.

use bytes::Bytes;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sluice_api::{ApiError, Kind, status};
use sluice_store::Expect;

use super::Call;
use super::options::{DeleteOptions, Propagation};
use super::registry::{self, At, Stored, Written};
use super::selection::Selection;
use crate::app::App;
use crate::codec;
use crate::keys;
use crate::object::{self, meta_mut};
use crate::respond::{self, Answer, View};

const ATTEMPTS: usize = 64;
const DEFAULT_GRACE: i64 = 30;
/// Kinds whose deletion answers with the object rather than with a Status (upstream's ReturnDeletedObject).
const RETURNED: [&str; 3] = ["pods", "serviceaccounts", "services"];
/// Namespaces that the cluster can't be without.
const IMMORTAL: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// How a deletion ended.
pub(crate) enum Deletion {
    /// The object is gone; this was its last state.
    Removed(Bytes),
    /// The object waits for its finalizers or for the end of its grace period.
    Marked(Bytes),
}

pub(super) async fn delete(call: &Call, body: Bytes) -> Result<Answer, ApiError> {
    let view = call.view()?;
    let options = DeleteOptions::read(&body, call.content_type(), &call.query)?;
    let at = At {
        kind: registry::storage_kind(call.target.kind),
        ..call.at()
    };
    match call.app.delete(at, &options).await? {
        Deletion::Marked(body) => view.object(StatusCode::OK, body),
        Deletion::Removed(body) if RETURNED.contains(&at.kind.plural) => {
            view.object(StatusCode::OK, body)
        }
        Deletion::Removed(body) => {
            let object = view.value(&body)?;
            let status = status::success(call.target.kind, at.name, object::uid(&object));
            Ok(respond::json_value(StatusCode::OK, &status))
        }
    }
}

pub(super) async fn delete_collection(call: &Call, body: Bytes) -> Result<Answer, ApiError> {
    let view = call.view()?;
    let options = DeleteOptions::read(&body, call.content_type(), &call.query)?;
    let kind = registry::storage_kind(call.target.kind);
    let selection = Selection::parse(call.target.kind, &call.query)?;
    let shard = call.app.cache.shard(kind)?;
    call.app.cache.wait(call.app.revision().await?).await?;
    let prefix = keys::prefix(
        kind,
        Some(&call.target.namespace)
            .filter(|ns| !ns.is_empty())
            .map(String::as_str),
    );
    let snapshot = shard.snapshot(&prefix, call.app.cache.revision());
    let mut bodies = Vec::new();
    for entry in snapshot
        .entries
        .iter()
        .filter(|entry| selection.matches(entry))
    {
        let (namespace, name) = (
            object::namespace(&entry.digest),
            object::name(&entry.digest),
        );
        match call
            .app
            .delete(
                At {
                    kind,
                    namespace,
                    name,
                },
                &options,
            )
            .await
        {
            Ok(Deletion::Removed(body) | Deletion::Marked(body)) => bodies.push(body),
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    list(&view, &bodies, call.app.cache.revision())
}

fn list(view: &View, bodies: &[Bytes], revision: u64) -> Result<Answer, ApiError> {
    let meta = sluice_api::table::ListMeta {
        resource_version: revision.to_string(),
        ..Default::default()
    };
    view.list(bodies.iter(), &meta)
}

impl App {
    pub(crate) async fn delete(
        &self,
        at: At<'_>,
        options: &DeleteOptions,
    ) -> Result<Deletion, ApiError> {
        if at.kind.storage == ("", "namespaces") && IMMORTAL.contains(&at.name) {
            return Err(ApiError::forbidden(
                at.kind,
                at.name,
                "this namespace may not be deleted",
            ));
        }
        for _ in 0..ATTEMPTS {
            let stored = self.existing(at).await?;
            check_preconditions(at, options, &stored.value)?;
            let marked = mark(at.kind, &stored.value, options);
            if options.dry_run {
                let text = codec::encode(&marked).map_err(ApiError::internal)?;
                return Ok(Deletion::Marked(codec::with_revision(
                    &text,
                    stored.revision,
                )));
            }
            if let Some(done) = self.apply_mark(at, stored, marked).await? {
                return Ok(done);
            }
        }
        Err(ApiError::conflict(at.kind, at.name))
    }

    /// `None` when somebody else changed the object in between.
    async fn apply_mark(
        &self,
        at: At<'_>,
        stored: Stored,
        marked: Value,
    ) -> Result<Option<Deletion>, ApiError> {
        if registry::is_finished(at.kind, &marked) {
            let stored = Stored {
                value: marked,
                ..stored
            };
            return Ok(match self.remove(at, &stored).await? {
                Written::Done(body) => Some(Deletion::Removed(body)),
                Written::Changed => None,
            });
        }
        if marked == stored.value {
            let text = codec::encode(&marked).map_err(ApiError::internal)?;
            return Ok(Some(Deletion::Marked(codec::with_revision(
                &text,
                stored.revision,
            ))));
        }
        Ok(
            match self
                .put(at, &marked, Expect::Revision(stored.revision))
                .await?
            {
                Written::Done(body) => Some(Deletion::Marked(body)),
                Written::Changed => None,
            },
        )
    }
}

fn check_preconditions(
    at: At<'_>,
    options: &DeleteOptions,
    object: &Value,
) -> Result<(), ApiError> {
    let fail = |what: &str, wanted: &str, found: &str| {
        let why = format!(
            "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
        );
        Err(ApiError::conflict_because(at.kind, at.name, why))
    };
    let (uid, revision) = (object::uid(object), object::meta(object, "resourceVersion"));
    match (options.uid.as_deref(), options.resource_version.as_deref()) {
        (Some(wanted), _) if wanted != uid => fail("UID", wanted, uid),
        (_, Some(wanted)) if wanted != revision => fail("ResourceVersion", wanted, revision),
        _ => Ok(()),
    }
}

/// The object with the marks of its deletion. The grace period of a later request can only shorten an earlier one.
fn mark(kind: &Kind, object: &Value, options: &DeleteOptions) -> Value {
    let mut marked = object.clone();
    let grace = grace(kind, object, options);
    set_finalizers(&mut marked, options.propagation);
    let earlier = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let deleting = object::is_deleting(object);
    if !deleting || earlier.is_some_and(|earlier| grace < earlier) {
        let end = Timestamp::now() + SignedDuration::from_secs(grace);
        let metadata = meta_mut(&mut marked);
        metadata.insert(
            "deletionTimestamp".to_owned(),
            json!(object::time_text(end)),
        );
        metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        if !deleting {
            raise_generation(&mut marked);
        }
    }
    if kind.storage == ("", "namespaces") {
        marked["status"]["phase"] = json!("Terminating");
    }
    marked
}

/// Upstream counts a beginning deletion as a change of the desired state.
fn raise_generation(object: &mut Value) {
    if let Some(generation) = object["metadata"]["generation"].as_i64().filter(|g| *g > 0) {
        object["metadata"]["generation"] = json!(generation + 1);
    }
}

/// Only a pod that a kubelet runs has anything to end gracefully.
fn grace(kind: &Kind, object: &Value, options: &DeleteOptions) -> i64 {
    if kind.storage != ("", "pods") {
        return 0;
    }
    let bound = object["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty());
    let over = matches!(
        object["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if !bound || over {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    match options.grace.or(own).unwrap_or(DEFAULT_GRACE) {
        negative if negative < 0 => 1,
        grace => grace,
    }
}

/// The finalizers of the garbage collector that the policy asks for; an object keeps those it has without a policy.
fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else {
        return;
    };
    let wanted = match propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some("foregroundDeletion"),
        Propagation::Orphan => Some("orphan"),
    };
    let mut finalizers = object::finalizers(object);
    let before = finalizers.len();
    finalizers.retain(|name| !matches!(name.as_str(), "foregroundDeletion" | "orphan"));
    finalizers.extend(wanted.map(str::to_owned));
    if finalizers.is_empty() && before == 0 {
        return;
    }
    meta_mut(object).insert("finalizers".to_owned(), json!(finalizers));
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_api::kinds;

    fn pod(spec: Value, phase: &str) -> Value {
        json!({"metadata": {"name": "p"}, "spec": spec, "status": {"phase": phase}})
    }

    fn seconds(object: &Value, grace: Option<i64>) -> i64 {
        let options = DeleteOptions {
            grace,
            ..DeleteOptions::default()
        };
        let marked = mark(&kinds::POD, object, &options);
        marked["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap()
    }

    #[test]
    fn only_running_pods_get_time_to_end() {
        let bound = json!({"nodeName": "n", "terminationGracePeriodSeconds": 7});
        assert_eq!(seconds(&pod(bound.clone(), "Running"), None), 7);
        assert_eq!(seconds(&pod(bound.clone(), "Running"), Some(0)), 0);
        assert_eq!(seconds(&pod(bound.clone(), "Running"), Some(-1)), 1);
        assert_eq!(seconds(&pod(bound, "Failed"), None), 0);
        assert_eq!(seconds(&pod(json!({}), "Pending"), None), 0);
        assert_eq!(
            seconds(&pod(json!({"nodeName": "n"}), "Running"), None),
            DEFAULT_GRACE
        );
    }

    #[test]
    fn a_second_deletion_can_only_shorten_the_first() {
        let options = |grace| DeleteOptions {
            grace: Some(grace),
            ..DeleteOptions::default()
        };
        let first = mark(
            &kinds::POD,
            &pod(json!({"nodeName": "n"}), "Running"),
            &options(20),
        );
        assert_eq!(mark(&kinds::POD, &first, &options(40)), first);
        let shorter = mark(&kinds::POD, &first, &options(0));
        assert!(registry::is_finished(&kinds::POD, &shorter));
    }

    #[test]
    fn policies_leave_one_finalizer_at_most() {
        let mut object = json!({"metadata": {"finalizers": ["mine", "orphan"]}});
        set_finalizers(&mut object, Some(Propagation::Foreground));
        assert_eq!(object::finalizers(&object), ["mine", "foregroundDeletion"]);
        set_finalizers(&mut object, None);
        assert_eq!(object::finalizers(&object), ["mine", "foregroundDeletion"]);
        set_finalizers(&mut object, Some(Propagation::Background));
        assert_eq!(object::finalizers(&object), ["mine"]);
    }
}
