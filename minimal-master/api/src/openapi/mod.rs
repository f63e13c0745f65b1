//! OpenAPI v3: one document per group version, made once.

/// A document, serialised.
#[derive(Debug)]
pub struct Document {
    /// JSON text.
    pub json: Vec<u8>,
    /// Hash of the text, upper-case hex: the `hash` parameter in the index, and the ETag.
    pub hash: String,
}

/// `/openapi/v3`: paths of all documents with their hashes.
pub fn index() -> &'static Document {
    todo!()
}

/// The document of a path such as `api/v1` or `apis/apps/v1` (what follows `/openapi/v3/`).
pub fn document(path: &str) -> Option<&'static Document> {
    todo!("{path}")
}
