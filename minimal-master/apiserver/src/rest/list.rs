//! `list`: from the cache where the newest or any recent state will do, from the store's history for exact revisions
//! and for the pages of a long list, which all show one revision.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_api::ApiError;
use sluice_api::table::ListMeta;
use sluice_store::{ListQuery, Revision, StoreError};

use super::Call;
use super::registry::{storage_kind, store_error};
use super::selection::Selection;
use crate::app::App;
use crate::codec;
use crate::keys;
use crate::query::Query;
use crate::respond::Answer;

/// Keys read from the store at once while a page is filled.
const CHUNK: usize = 500;

/// At which revision a list is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// The newest.
    Newest,
    /// Whatever is at hand.
    Any,
    /// This one or a newer one.
    NotOlderThan(Revision),
    /// This one.
    Exact(Revision),
}

/// Where a page begins.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: Revision,
    /// The last key of the page before, below the list's prefix.
    start: String,
}

impl App {
    pub(super) async fn revision(&self) -> Result<Revision, ApiError> {
        self.store.revision().await.map_err(store_error)
    }
}

pub(super) async fn list(call: &Call) -> Result<Answer, ApiError> {
    let kind = storage_kind(call.target.kind);
    let selection = Selection::parse(call.target.kind, &call.query)?;
    let namespace = Some(call.target.namespace.as_str()).filter(|ns| !ns.is_empty());
    let prefix = keys::prefix(kind, namespace);
    let limit = call
        .query
        .number("limit")?
        .filter(|limit| *limit > 0)
        .unwrap_or(0) as usize;
    if let Some(token) = call.query.get("continue") {
        let token = continued(token, &call.query)?;
        return page(
            call,
            &selection,
            &prefix,
            limit,
            token.rv,
            Some(token.start),
        )
        .await;
    }
    match wanted(&call.query, limit)? {
        Wanted::Exact(revision) => page(call, &selection, &prefix, limit, revision, None).await,
        Wanted::Newest => {
            let revision = call.app.revision().await?;
            call.app.cache.wait(revision).await?;
            cached(call, &selection, &prefix, limit).await
        }
        Wanted::NotOlderThan(revision) => {
            call.app.cache.wait(revision).await?;
            cached(call, &selection, &prefix, limit).await
        }
        Wanted::Any => cached(call, &selection, &prefix, 0).await,
    }
}

/// The rules of <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>.
fn wanted(query: &Query, limit: usize) -> Result<Wanted, ApiError> {
    let revision = query.revision()?;
    let matching = query.get("resourceVersionMatch");
    match (revision, matching) {
        (None, Some(_)) => Err(ApiError::bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        (None, None) => Ok(Wanted::Newest),
        (Some(0), Some("Exact")) => Err(ApiError::bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
        )),
        (Some(0), None | Some("NotOlderThan")) => Ok(Wanted::Any),
        (Some(revision), Some("Exact")) => Ok(Wanted::Exact(revision)),
        (Some(revision), Some("NotOlderThan")) => Ok(Wanted::NotOlderThan(revision)),
        (Some(revision), None) if limit > 0 => Ok(Wanted::Exact(revision)),
        (Some(revision), None) => Ok(Wanted::NotOlderThan(revision)),
        (Some(_), Some(other)) => Err(ApiError::bad_request(format!(
            "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
        ))),
    }
}

fn continued(token: &str, query: &Query) -> Result<Token, ApiError> {
    if query
        .get("resourceVersion")
        .is_some_and(|revision| revision != "0")
    {
        return Err(ApiError::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    if query.get("resourceVersionMatch").is_some() {
        return Err(ApiError::bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
        ));
    }
    let bad = || ApiError::bad_request("continue key is not valid: it is not one of this server");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    serde_json::from_slice(&bytes).map_err(|_| bad())
}

/// A list from the cache. One that is longer than the limit is read from the store instead, at the same revision, so
/// that its further pages show that revision too.
async fn cached(
    call: &Call,
    selection: &Selection,
    prefix: &Bytes,
    limit: usize,
) -> Result<Answer, ApiError> {
    let shard = call.app.cache.shard(call.target.kind)?;
    let mut snapshot = match selection.name().filter(|_| prefix_is_exact(call)) {
        Some(name) => {
            let revision = call.app.cache.revision();
            let key = [prefix, name.as_bytes()].concat().into();
            crate::cache::Snapshot {
                revision,
                entries: shard.get(&key).into_iter().collect(),
            }
        }
        None => shard.snapshot(prefix, call.app.cache.revision()),
    };
    snapshot.entries.retain(|entry| selection.matches(entry));
    if limit > 0 && snapshot.entries.len() > limit {
        return page(call, selection, prefix, limit, snapshot.revision, None).await;
    }
    let meta = ListMeta {
        resource_version: snapshot.revision.to_string(),
        ..ListMeta::default()
    };
    call.view()?
        .list(snapshot.entries.iter().map(|entry| &entry.body), &meta)
}

/// Whether the list's prefix and a name make a key.
fn prefix_is_exact(call: &Call) -> bool {
    !call.target.kind.namespaced || !call.target.namespace.is_empty()
}

/// A page of the store at one revision.
async fn page(
    call: &Call,
    selection: &Selection,
    prefix: &Bytes,
    limit: usize,
    revision: Revision,
    start: Option<String>,
) -> Result<Answer, ApiError> {
    let view = call.view()?;
    let mut after = start.map(|start| Bytes::from([prefix, start.as_bytes()].concat()));
    let mut bodies = Vec::new();
    let mut remaining;
    loop {
        let room = if limit == 0 {
            0
        } else {
            CHUNK.min(limit - bodies.len())
        };
        let query = ListQuery {
            prefix: prefix.clone(),
            after: after.clone(),
            limit: room,
            revision: Some(revision),
        };
        let found = call.app.store.list(query).await.map_err(expired)?;
        remaining = found.remaining;
        after = found.items.last().map(|kv| kv.key.clone()).or(after);
        for kv in &found.items {
            let body = codec::body(kv);
            if selection.is_all() || selection.matches_object(&view.value(&body)?) {
                bodies.push(body);
            }
        }
        if remaining == 0 || (limit > 0 && bodies.len() >= limit) {
            break;
        }
    }
    let more = remaining > 0;
    let meta = ListMeta {
        resource_version: revision.to_string(),
        continue_token: after
            .filter(|_| more)
            .map(|key| token(revision, prefix, &key))
            .unwrap_or_default(),
        remaining_item_count: (more && selection.is_all()).then_some(remaining as u64),
    };
    view.list(bodies.iter(), &meta)
}

fn token(revision: Revision, prefix: &Bytes, key: &Bytes) -> String {
    let start = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
    let token = Token {
        v: "meta.k8s.io/v1".to_owned(),
        rv: revision,
        start,
    };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

fn expired(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { .. } => ApiError::gone(
            "The provided continue parameter is too old to display a consistent list result, or the exact revision \
             is not kept any more. You must start a new list without the continue parameter.",
        ),
        other => store_error(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_versions_mean_what_upstream_says() {
        let cases = [
            ("", 0, Wanted::Newest),
            ("resourceVersion=0", 0, Wanted::Any),
            ("resourceVersion=0", 5, Wanted::Any),
            ("resourceVersion=7", 0, Wanted::NotOlderThan(7)),
            ("resourceVersion=7", 5, Wanted::Exact(7)),
            (
                "resourceVersion=7&resourceVersionMatch=Exact",
                0,
                Wanted::Exact(7),
            ),
            (
                "resourceVersion=7&resourceVersionMatch=NotOlderThan",
                5,
                Wanted::NotOlderThan(7),
            ),
        ];
        for (query, limit, expected) in cases {
            assert_eq!(
                wanted(&Query::parse(query), limit).unwrap(),
                expected,
                "{query}"
            );
        }
        for query in [
            "resourceVersionMatch=Exact",
            "resourceVersion=0&resourceVersionMatch=Exact",
            "resourceVersion=7&resourceVersionMatch=Sometimes",
            "resourceVersion=seven",
        ] {
            assert_eq!(
                wanted(&Query::parse(query), 0).unwrap_err().code,
                400,
                "{query}"
            );
        }
    }
}
