//! Errors about one field of an object, and the paths that name fields.
//!
//! Types, texts and their order are those of upstream's `field.Error`: kubectl prints them and clients match on the
//! causes' reasons.

use std::fmt;

use serde_json::{Value, json};

/// Where a field is: `spec.template.spec.containers[0].name`.
///
/// Built from the root downwards without allocating: most objects are valid, so the text is made only for errors.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A field of the object itself, such as `spec`.
    pub const fn root(name: &'a str) -> Self {
        Path {
            parent: None,
            step: Step::Field(name),
        }
    }

    /// A field below this one: `spec.name`.
    pub const fn child(&'a self, name: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    /// An element of this list: `ports[0]`.
    pub const fn index(&'a self, index: usize) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// An entry of this map: `data[name]`.
    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Key(key),
        }
    }
}

impl Path<'_> {
    /// The path without list indices and map keys, as Go's JSON decoder names fields: `spec.containers.image`.
    pub fn fields_only(&self) -> String {
        let mut text = self.parent.map(Path::fields_only).unwrap_or_default();
        if let Step::Field(name) = self.step {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(name);
        }
        text
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// A reference to something that is not there.
    NotFound,
    /// A value that must be given is missing.
    Required,
    /// A value that must be unique occurs twice.
    Duplicate,
    /// A value that does not follow the rules.
    Invalid,
    /// A value outside a fixed set.
    NotSupported,
    /// A value that follows the rules and is not allowed here.
    Forbidden,
    /// A text that is too long.
    TooLong,
    /// A list with too many elements.
    TooMany,
}

impl ErrorType {
    /// The reason of the cause in a Status, such as `FieldValueRequired`.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooMany => "FieldValueTooMany",
        }
    }

    fn text(self) -> &'static str {
        match self {
            ErrorType::NotFound => "Not found",
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooMany => "Too many",
        }
    }
}

/// One field that fails validation; prints as upstream's errors do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {}", self.body())]
pub struct FieldError {
    /// What is wrong.
    pub kind: ErrorType,
    /// Where it is wrong.
    pub field: String,
    /// The value in question, already in print form; empty where the type shows none.
    pub value: String,
    /// What was expected; may be empty.
    pub detail: String,
}

impl FieldError {
    fn new(kind: ErrorType, path: &Path<'_>, value: String, detail: impl Into<String>) -> Self {
        FieldError {
            kind,
            field: path.to_string(),
            value,
            detail: detail.into(),
        }
    }

    /// A missing value; `detail` may be empty.
    pub fn required(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Required, path, String::new(), detail)
    }

    /// A value that breaks a rule, said by `detail`.
    pub fn invalid(path: &Path<'_>, value: &Value, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, path, show(value), detail)
    }

    /// As [`FieldError::invalid`], for a text.
    pub fn invalid_str(path: &Path<'_>, value: &str, detail: impl Into<String>) -> Self {
        Self::invalid(path, &json!(value), detail)
    }

    /// A value that occurs twice.
    pub fn duplicate(path: &Path<'_>, value: &Value) -> Self {
        Self::new(ErrorType::Duplicate, path, show(value), "")
    }

    /// A value outside `supported`, which is listed in the order given.
    pub fn not_supported(path: &Path<'_>, value: &Value, supported: &[&str]) -> Self {
        let names: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail = format!("supported values: {}", names.join(", "));
        Self::new(ErrorType::NotSupported, path, show(value), detail)
    }

    /// A value that may not be given here.
    pub fn forbidden(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Forbidden, path, String::new(), detail)
    }

    /// A reference to something that is not there.
    pub fn not_found(path: &Path<'_>, value: &Value) -> Self {
        Self::new(ErrorType::NotFound, path, show(value), "")
    }

    /// A text above `max` bytes.
    pub fn too_long(path: &Path<'_>, max: usize) -> Self {
        Self::new(
            ErrorType::TooLong,
            path,
            String::new(),
            format!("may not be more than {max} bytes"),
        )
    }

    /// A list above `max` elements.
    pub fn too_many(path: &Path<'_>, actual: usize, max: usize) -> Self {
        let detail = format!(
            "must have at most {max} item{}",
            if max == 1 { "" } else { "s" }
        );
        Self::new(ErrorType::TooMany, path, actual.to_string(), detail)
    }

    /// The message without the field's name, as a cause in a Status carries it.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if !self.value.is_empty() {
            text.push_str(": ");
            text.push_str(&self.value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

/// A value as upstream prints it: texts quoted as Go does, missing values `null`, the rest as JSON.
fn show(value: &Value) -> String {
    value.to_string()
}
