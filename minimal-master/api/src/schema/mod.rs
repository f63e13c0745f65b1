//! Decoding: from bytes to an object that has the fields and types of its kind.
//!
//! What is decoded stays a JSON value. Fields that the kind does not have are reported and dropped, as a typed
//! server would drop them, and null fields vanish.

use serde_json::Value;

use crate::{ApiError, Kind};

/// What to do about unknown and duplicate fields: the `fieldValidation` parameter of writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Refuse the request.
    Strict,
    /// Warn the client and go on.
    #[default]
    Warn,
    /// Go on without a word.
    Ignore,
}

impl FieldValidation {
    /// Reads the query parameter; missing or empty means `Warn`, as upstream's default is.
    pub fn parse(parameter: Option<&str>) -> Result<Self, ApiError> {
        todo!("{parameter:?}")
    }
}

/// A body that was parsed and not yet decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The body; of duplicate fields the last one counts.
    pub value: Value,
    /// One text for each duplicate field, such as `duplicate field "spec.replicas"`.
    pub duplicates: Vec<String>,
}

/// Media types of bodies that [`parse`] takes.
pub const MEDIA_TYPES: &[&str] = &["application/json", "application/yaml"];

/// Parses a body by its `Content-Type` (JSON when there is none). 415 for other types, 400 for broken bodies.
pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document, ApiError> {
    todo!("{bytes:?} {content_type:?}")
}

/// Checks types and fields of `value` against the kind and drops what the kind does not have. Returns warnings
/// (none unless `Warn`). 400 for wrong types in every mode, and for unknown fields when `Strict`.
pub fn decode(
    kind: &Kind,
    value: &mut Value,
    mode: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    todo!("{kind:?} {value:?} {mode:?}")
}

/// Parses and decodes the body of a create or update: [`parse`], a check (or fill) of `apiVersion` and `kind`, and
/// [`decode`], with duplicate and unknown fields in one report. Returns the object and warnings for the client.
pub fn read(
    kind: &Kind,
    bytes: &[u8],
    content_type: Option<&str>,
    mode: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    todo!("{kind:?} {bytes:?} {content_type:?} {mode:?}")
}
