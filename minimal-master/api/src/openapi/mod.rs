//! OpenAPI v3: one document per group version, made once.
//!
//! kubectl takes from them what `explain` prints, how to compute strategic merge patches, and whether the server
//! validates fields and supports dry runs.

mod operations;
mod paths;
mod schemas;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::kinds;

/// A document, serialised.
#[derive(Debug)]
pub struct Document {
    /// JSON text.
    pub json: Vec<u8>,
    /// Hash of the text, upper-case hex: the `hash` parameter in the index, and the ETag.
    pub hash: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        let json = value.to_string().into_bytes();
        let hash = hash(&json);
        Document { json, hash }
    }
}

/// Names one content, so that clients can cache by it. Not cryptographic: client and server are not adversaries here.
fn hash(bytes: &[u8]) -> String {
    let parts: Vec<String> = (0_u8..4)
        .map(|salt| {
            let mut hasher = DefaultHasher::new();
            salt.hash(&mut hasher);
            bytes.hash(&mut hasher);
            format!("{:016X}", hasher.finish())
        })
        .collect();
    parts.concat()
}

static DOCUMENTS: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
    let versions = kinds::group_versions().into_iter();
    versions
        .map(|(group, version)| {
            (
                path(group, version),
                Document::new(&group_document(group, version)),
            )
        })
        .collect()
});

static INDEX: LazyLock<Document> = LazyLock::new(|| {
    let paths: Map<String, Value> = DOCUMENTS
        .iter()
        .map(|(path, document)| {
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            (path.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    Document::new(&json!({"paths": paths}))
});

/// `/openapi/v3`: paths of all documents with their hashes.
pub fn index() -> &'static Document {
    &INDEX
}

/// The document of a path such as `api/v1` or `apis/apps/v1` (what follows `/openapi/v3/`).
pub fn document(path: &str) -> Option<&'static Document> {
    DOCUMENTS.get(path)
}

fn path(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

fn group_document(group: &str, version: &str) -> Value {
    let kinds: Vec<&kinds::Kind> = kinds::all()
        .iter()
        .copied()
        .filter(|kind| (kind.group, kind.version) == (group, version))
        .collect();
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths::of_kinds(&kinds),
        "components": {"schemas": schemas::of_kinds(&kinds)},
    })
}

/// `/openapi/v2` as JSON: a document that describes nothing.
///
/// kubectl asks for version 2 when version 3 does not know a kind. With this answer it goes on and says that the server has
/// no such kind; without one it says that it could not download a schema.
pub const V2_JSON: &str =
    r#"{"swagger":"2.0","info":{"title":"Kubernetes","version":"v1.36.0"},"paths":{}}"#;

/// The same document as a protobuf message (`openapi.v2.Document` of gnostic), which is the form that kubectl asks for.
pub const V2_PROTOBUF: &[u8] = b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.36.0";

/// The media type of [`V2_PROTOBUF`], as `Accept` names it.
pub const V2_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
