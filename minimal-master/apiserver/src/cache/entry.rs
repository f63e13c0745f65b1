//! One object in the cache, and one change of it. Both are shared by all who read them.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;
use sluice_store::{KeyValue, Revision};

use super::digest::{self, Fields};
use crate::codec;

/// An object at a revision.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Bytes,
    pub(crate) revision: Revision,
    /// The object's JSON, with its resourceVersion.
    pub(crate) body: Bytes,
    /// The fields that selectors look at.
    pub(crate) digest: Value,
}

impl Entry {
    pub(super) fn new(kv: &KeyValue, fields: &Fields) -> Arc<Self> {
        Arc::new(Self {
            key: kv.key.clone(),
            revision: kv.mod_revision,
            digest: digest::pick(&kv.value, fields),
            body: codec::body(kv),
        })
    }

    /// The same object under a later resourceVersion: how watchers see what was deleted.
    pub(crate) fn at(&self, revision: Revision) -> Arc<Self> {
        Arc::new(Self {
            key: self.key.clone(),
            revision,
            body: codec::with_revision(&self.body, revision),
            digest: self.digest.clone(),
        })
    }
}

/// What happened to an object, as far as all watchers agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Added,
    Modified,
    Deleted,
}

impl Action {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Action::Added => "ADDED",
            Action::Modified => "MODIFIED",
            Action::Deleted => "DELETED",
        }
    }
}

/// A change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: Revision,
    pub(crate) action: Action,
    /// The object after the change; for a deletion the last state, under the deletion's revision.
    pub(crate) entry: Arc<Entry>,
    pub(crate) previous: Option<Arc<Entry>>,
    line: OnceLock<Bytes>,
}

impl Change {
    pub(super) fn new(
        action: Action,
        entry: Arc<Entry>,
        previous: Option<Arc<Entry>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            revision: entry.revision,
            action,
            entry,
            previous,
            line: OnceLock::new(),
        })
    }

    /// The change as a line of a watch's answer: made by the first watcher that needs it.
    pub(crate) fn line(&self) -> Bytes {
        self.line
            .get_or_init(|| line(self.action, &self.entry.body))
            .clone()
    }
}

/// A watch event in JSON, with a newline.
pub(crate) fn line(action: Action, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len() + 40);
    out.put_slice(br#"{"type":""#);
    out.put_slice(action.name().as_bytes());
    out.put_slice(br#"","object":"#);
    out.put_slice(body);
    out.put_slice(b"}\n");
    out.freeze()
}
