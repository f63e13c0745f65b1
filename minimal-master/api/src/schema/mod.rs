//! Decoding: from bytes to an object that has the fields and types of its kind.
//!
//! What is decoded stays a JSON value. Fields that the kind does not have are reported and dropped, as a typed
//! server would drop them, and null fields vanish.

mod decode;
pub mod extensions;
mod parse;
pub mod types;

use serde_json::{Value, json};

use crate::json::text;
use crate::{ApiError, Kind};

pub use parse::{Document, ParseError};

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
        match parameter.unwrap_or_default() {
            "Strict" => Ok(Self::Strict),
            "Warn" | "" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            other => Err(ApiError::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// Media types of bodies that [`parse()`] takes.
pub const MEDIA_TYPES: &[&str] = &["application/json", "application/yaml"];

/// Parses a body by its `Content-Type` (JSON when there is none). 415 for other types, 400 for broken bodies.
pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document, ApiError> {
    parse::parse(bytes, content_type).map_err(|error| match error {
        ParseError::MediaType => ApiError::unsupported_media_type(MEDIA_TYPES),
        ParseError::Json(_) | ParseError::Yaml(_) => {
            ApiError::bad_request(format!("couldn't parse the body of the request: {error}"))
        }
    })
}

/// Checks types and fields of `value` against the kind and drops what the kind does not have. Returns warnings
/// (none unless `Warn`). 400 for wrong types in every mode, and for unknown fields when `Strict`.
pub fn decode(
    kind: &Kind,
    value: &mut Value,
    mode: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    decode_document(kind, value, Vec::new(), mode)
}

/// Parses and decodes the body of a create or update: [`parse()`], a check (or fill) of `apiVersion` and `kind`, and
/// [`decode`], with duplicate and unknown fields in one report. Returns the object and warnings for the client.
pub fn read(
    kind: &Kind,
    bytes: &[u8],
    content_type: Option<&str>,
    mode: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    let document = parse::parse(bytes, content_type).map_err(|error| match error {
        ParseError::MediaType => ApiError::unsupported_media_type(MEDIA_TYPES),
        error => unrecognized(kind, &error, bytes),
    })?;
    let Document {
        mut value,
        duplicates,
    } = document;
    if !value.is_object() {
        let error = ParseError::Json("the body is not an object".to_owned());
        return Err(unrecognized(kind, &error, bytes));
    }
    check_type(kind, &mut value)?;
    let warnings = decode_document(kind, &mut value, duplicates, mode)?;
    Ok((value, warnings))
}

fn decode_document(
    kind: &Kind,
    value: &mut Value,
    duplicates: Vec<String>,
    mode: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    let unknown = decode::decode(kind.schema, value).map_err(|why| cannot_handle(kind, &why))?;
    let mut problems = unknown;
    problems.extend(duplicates);
    match mode {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(problems),
        FieldValidation::Strict if problems.is_empty() => Ok(problems),
        FieldValidation::Strict => {
            let why = format!("strict decoding error: {}", problems.join(", "));
            Err(cannot_handle(kind, &why))
        }
    }
}

/// Fills a missing `apiVersion` and `kind`, and refuses those of another kind.
fn check_type(kind: &Kind, value: &mut Value) -> Result<(), ApiError> {
    let expected = kind.api_version();
    for (key, default) in [("apiVersion", expected.as_str()), ("kind", kind.kind)] {
        match value.get(key) {
            None | Some(Value::Null) => value[key] = json!(default),
            Some(Value::String(text)) if text.is_empty() => value[key] = json!(default),
            Some(_) => {}
        }
    }
    let (version, name) = (text(value, "apiVersion"), text(value, "kind"));
    if value["apiVersion"].is_string() && version != expected && !is_options(kind) {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    if value["kind"].is_string() && name != kind.kind {
        return Err(ApiError::bad_request(format!(
            "{name} in version {:?} cannot be handled as a {}: the kinds are different",
            kind.version, kind.kind
        )));
    }
    Ok(())
}

/// Options of meta/v1 are registered in every group: clients send them under the group of the object as well.
fn is_options(kind: &Kind) -> bool {
    kind.schema.contains(".meta.v1.")
}

fn cannot_handle(kind: &Kind, why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: {why}",
        kind.kind, kind.version, kind.kind
    ))
}

fn unrecognized(kind: &Kind, error: &ParseError, bytes: &[u8]) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; {error} ({})",
        kind.kind,
        summary(bytes)
    ))
}

/// The beginning of a body for an error message: as text where it is text, as hex otherwise.
fn summary(bytes: &[u8]) -> String {
    const MAX: usize = 30;
    let head = &bytes[..bytes.len().min(MAX)];
    let more = if bytes.len() > MAX { " ..." } else { "" };
    match std::str::from_utf8(head) {
        _ if head.is_empty() => "<empty>".to_owned(),
        Ok(text) if text.chars().all(|c| !c.is_control()) => format!("{text:?}{more}"),
        _ => {
            let hex: String = head.iter().map(|b| format!("{b:02x}")).collect();
            format!("{hex}{more}")
        }
    }
}
