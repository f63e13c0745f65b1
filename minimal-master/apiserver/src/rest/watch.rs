//! `watch`: a stream of changes as JSON lines, from any kept revision, with bookmarks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use rand::Rng;
use serde_json::{Value, json};
use sluice_api::ApiError;
use sluice_store::Revision;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Call;
use super::registry::{storage_kind, too_old};
use super::selection::Selection;
use crate::accept::Form;
use crate::cache::{self, Action, Change, Entry, Expired, Watcher};
use crate::keys;
use crate::metrics::Counted;
use crate::respond::{Answer, View};

const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
/// A watch without a limit of its own ends after half an hour to an hour, so that clients spread out (as upstream).
const SHORTEST: u64 = 1800;
/// A longer answer is sent in pieces.
const CHUNK: usize = 64 * 1024;

/// From where a watch begins.
enum Start {
    /// With the current objects, as ADDED events.
    State { end_marker: bool },
    /// After a revision.
    After(Revision),
}

pub(super) async fn watch(call: Call) -> Result<Answer, ApiError> {
    let kind = storage_kind(call.target.kind);
    let selection = Selection::parse(call.target.kind, &call.query)?;
    let start = start(&call).await?;
    let namespace = Some(call.target.namespace.as_str()).filter(|ns| !ns.is_empty());
    let prefix = keys::prefix(kind, namespace);
    let view = call.view()?;
    let timeout = call.query.timeout()?.unwrap_or_else(default_timeout);
    let mut stream = Stream {
        view,
        selection,
        prefix,
        watcher: None,
        pending: VecDeque::new(),
        bookmarks: call
            .query
            .flag("allowWatchBookmarks")
            .then(bookmark_interval),
        end: Instant::now() + timeout,
        stop: call.app.stopping.clone(),
        columns_sent: false,
        _open: Counted::new(&call.app.metrics.streams),
    };
    stream.begin(&call, start)?;
    let body = futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), stream))
    });
    let mut answer = Response::new(Body::from_stream(body));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

async fn start(call: &Call) -> Result<Start, ApiError> {
    let revision = call.query.revision()?;
    let matching = call.query.get("resourceVersionMatch");
    let initial = call
        .query
        .get("sendInitialEvents")
        .map(|_| call.query.flag("sendInitialEvents"));
    match (initial, matching) {
        (None, Some(_)) => {
            return Err(ApiError::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        (Some(_), matching) if matching != Some("NotOlderThan") => {
            return Err(ApiError::bad_request(
                "resourceVersionMatch: Required value: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        _ => {}
    }
    let revision = match revision {
        None => {
            let newest = call.app.revision().await?;
            call.app.cache.wait(newest).await?;
            0
        }
        Some(revision) => {
            call.app.cache.wait(revision).await?;
            revision
        }
    };
    Ok(match initial {
        Some(true) => Start::State { end_marker: true },
        Some(false) if revision == 0 => Start::After(call.app.cache.revision()),
        None if revision == 0 => Start::State { end_marker: false },
        _ => Start::After(revision),
    })
}

fn default_timeout() -> Duration {
    Duration::from_secs(rand::rng().random_range(SHORTEST..2 * SHORTEST))
}

fn bookmark_interval() -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The state of one watch. A watch without a watcher has failed and ends once its last words are sent.
struct Stream {
    view: View,
    selection: Selection,
    prefix: Bytes,
    watcher: Option<Watcher>,
    pending: VecDeque<Bytes>,
    bookmarks: Option<Interval>,
    end: Instant,
    stop: CancellationToken,
    columns_sent: bool,
    /// Counts this watch for as long as it lasts.
    _open: Counted,
}

enum Wake {
    Changes(Result<Vec<Arc<Change>>, Expired>),
    Bookmark,
    End,
}

impl Stream {
    fn begin(&mut self, call: &Call, start: Start) -> Result<(), ApiError> {
        let shard = call.app.cache.shard(call.target.kind)?.clone();
        let after = match start {
            Start::After(revision) => revision,
            Start::State { end_marker } => {
                let snapshot = shard.snapshot(&self.prefix, call.app.cache.revision());
                for entry in &snapshot.entries {
                    if self.selection.matches(entry) {
                        self.send(Action::Added, entry)?;
                    }
                }
                if end_marker {
                    self.bookmark(snapshot.revision, true);
                }
                snapshot.revision
            }
        };
        match Watcher::new(call.app.cache.clone(), shard, after) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(expired) => self.fail(&too_old_watch(expired)),
        }
        Ok(())
    }

    /// The next piece of the answer; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.pending.is_empty() {
                return Some(self.take());
            }
            let wake = self.wait().await?;
            match wake {
                Wake::Changes(Ok(changes)) => self.changes(&changes),
                Wake::Changes(Err(expired)) => self.fail(&too_old_watch(expired)),
                Wake::Bookmark => self.progress(),
                Wake::End => {
                    if self.bookmarks.is_some() {
                        self.progress();
                    }
                    self.watcher = None;
                }
            }
        }
    }

    async fn wait(&mut self) -> Option<Wake> {
        let watcher = self.watcher.as_mut()?;
        let tick = async {
            match &mut self.bookmarks {
                Some(interval) => drop(interval.tick().await),
                None => std::future::pending().await,
            }
        };
        Some(tokio::select! {
            biased;
            () = self.stop.cancelled() => Wake::End,
            () = tokio::time::sleep_until(self.end) => Wake::End,
            () = tick => Wake::Bookmark,
            changes = watcher.next() => Wake::Changes(changes),
        })
    }

    /// Everything that waits to be sent, up to a size; one large event is sent without a copy.
    fn take(&mut self) -> Bytes {
        let first = self.pending.pop_front().unwrap_or_default();
        let fits = |so_far: usize, next: Option<&Bytes>| {
            next.is_some_and(|next| so_far + next.len() <= CHUNK)
        };
        if !fits(first.len(), self.pending.front()) {
            return first;
        }
        let mut chunk = first.to_vec();
        while fits(chunk.len(), self.pending.front()) {
            chunk.extend_from_slice(&self.pending.pop_front().unwrap_or_default());
        }
        chunk.into()
    }

    fn changes(&mut self, changes: &[Arc<Change>]) {
        for change in changes {
            if !change.entry.key.starts_with(&self.prefix) {
                continue;
            }
            if let Err(error) = self.change(change) {
                self.fail(&error);
                return;
            }
        }
    }

    /// A watcher with a selector sees an object come and go as it begins and ceases to match.
    fn change(&mut self, change: &Change) -> Result<(), ApiError> {
        let was = change
            .previous
            .as_ref()
            .filter(|entry| self.selection.matches(entry));
        let is = change.action != Action::Deleted && self.selection.matches(&change.entry);
        match (was, is) {
            (None, false) => Ok(()),
            (Some(_), false) if change.action == Action::Deleted => self.send_change(change),
            (Some(previous), false) => self.send(Action::Deleted, &previous.at(change.revision)),
            (None, true) if change.action == Action::Modified => {
                self.send(Action::Added, &change.entry)
            }
            (_, true) => self.send_change(change),
        }
    }

    fn send_change(&mut self, change: &Change) -> Result<(), ApiError> {
        if !self.view.is_verbatim() {
            return self.send(change.action, &change.entry);
        }
        self.pending.push_back(change.line());
        Ok(())
    }

    fn send(&mut self, action: Action, entry: &Entry) -> Result<(), ApiError> {
        let line = match self.view.is_verbatim() {
            true => cache::line(action, &entry.body),
            false => {
                let object = self.rendered(&entry.body)?;
                cache::line(action, object.to_string().as_bytes())
            }
        };
        self.pending.push_back(line);
        Ok(())
    }

    /// Tables carry their column definitions in the first event only.
    fn rendered(&mut self, body: &[u8]) -> Result<Value, ApiError> {
        let mut object = self.view.render(body)?;
        if matches!(self.view.form, Form::Table(_)) {
            if self.columns_sent
                && let Some(table) = object.as_object_mut()
            {
                table.insert("columnDefinitions".to_owned(), Value::Null);
            }
            self.columns_sent = true;
        }
        Ok(object)
    }

    fn progress(&mut self) {
        let revision = self.watcher.as_mut().and_then(Watcher::progress);
        if let Some(revision) = revision {
            self.bookmark(revision, false);
        }
    }

    fn bookmark(&mut self, revision: Revision, initial_events_end: bool) {
        let mut object = json!({
            "kind": self.view.kind.kind,
            "apiVersion": self.view.kind.api_version(),
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
        });
        if initial_events_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        if matches!(self.view.form, Form::Table(_)) {
            match self.rendered(object.to_string().as_bytes()) {
                Ok(table) => object = table,
                Err(_) => return,
            }
        }
        self.push(&json!({"type": "BOOKMARK", "object": object}));
    }

    fn fail(&mut self, error: &ApiError) {
        self.push(&json!({"type": "ERROR", "object": error.status()}));
        self.watcher = None;
    }

    fn push(&mut self, event: &Value) {
        self.pending.push_back(format!("{event}\n").into());
    }
}

fn too_old_watch(expired: Expired) -> ApiError {
    let mut error = too_old(expired.requested);
    error.message = format!(
        "too old resource version: {} ({})",
        expired.requested, expired.oldest
    );
    error
}
