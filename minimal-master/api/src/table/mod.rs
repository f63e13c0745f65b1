//! Server-side tables: what `kubectl get` prints.

use jiff::Timestamp;
use serde_json::Value;

use crate::{ApiError, Kind};

/// What each row carries beside its cells: the `includeObject` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A PartialObjectMetadata.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter; missing or empty means `Metadata`.
    pub fn parse(parameter: Option<&str>) -> Result<Self, ApiError> {
        todo!("{parameter:?}")
    }
}

/// The metadata of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListMeta {
    /// The store's revision that the list was read at.
    pub resource_version: String,
    /// The token for the next page; empty on the last one.
    pub continue_token: String,
    /// How many objects later pages hold, where known.
    pub remaining_item_count: Option<u64>,
}

impl ListMeta {
    /// The `metadata` of a list.
    pub fn json(&self) -> Value {
        todo!()
    }
}

/// The meta.k8s.io/v1 Table of `objects`, with ages as of `now`. Columns with priority 1 are shown by `-o wide`.
///
/// A watch renders each event's object by itself and leaves out the column definitions after the first.
pub fn render<'a>(
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    meta: &ListMeta,
    include_object: IncludeObject,
    now: Timestamp,
) -> Value {
    let _ = (kind, objects.into_iter().count(), meta, include_object, now);
    todo!()
}

/// The PartialObjectMetadata of an object.
pub fn partial_metadata(object: &Value) -> Value {
    todo!("{object}")
}
