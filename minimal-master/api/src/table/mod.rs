//! Server-side tables: what `kubectl get` prints.
//!
//! Columns and cells are those of upstream's printers (`pkg/printers/internalversion`), wide ones included.

mod cells;
mod columns;
mod endpoints;
mod node;
mod pod;
mod service;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

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
        match parameter.unwrap_or_default() {
            "None" => Ok(Self::None),
            "Metadata" | "" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => Err(ApiError::bad_request(format!(
                "unrecognized includeObject value: {other:?}"
            ))),
        }
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
        let mut map = Map::new();
        if !self.resource_version.is_empty() {
            map.insert("resourceVersion".to_owned(), json!(self.resource_version));
        }
        if !self.continue_token.is_empty() {
            map.insert("continue".to_owned(), json!(self.continue_token));
        }
        if let Some(count) = self.remaining_item_count {
            map.insert("remainingItemCount".to_owned(), json!(count));
        }
        Value::Object(map)
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
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| row(kind, object, include_object, now))
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta.json(),
        "columnDefinitions": columns::definitions(kind),
        "rows": rows,
    })
}

fn row(kind: &Kind, object: &Value, include_object: IncludeObject, now: Timestamp) -> Value {
    let mut row = json!({"cells": cells::cells(kind, object, now)});
    if kind.kind == "Pod"
        && let Some(condition) = pod::finished(object)
    {
        row["conditions"] = json!([condition]);
    }
    match include_object {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = partial_metadata(object),
        IncludeObject::Object => row["object"] = object.clone(),
    }
    row
}

/// The PartialObjectMetadata of an object.
pub fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}
