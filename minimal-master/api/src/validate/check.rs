//! Collecting errors: the checks that most fields need.

use serde_json::{Value, json};

use crate::field::Path;
use crate::json::{int, text};
use crate::{FieldError, equality, names};

pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub(super) const IMMUTABLE: &str = "field is immutable";

/// A syntax: the messages about a text that does not follow it.
pub(super) type Rule = fn(&str) -> Vec<String>;

/// The errors found so far.
#[derive(Default)]
pub(super) struct Check {
    pub errors: Vec<FieldError>,
}

impl Check {
    pub fn add(&mut self, error: FieldError) {
        self.errors.push(error);
    }

    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.add(FieldError::required(path, detail));
    }

    pub fn invalid(&mut self, path: &Path<'_>, value: &Value, detail: impl Into<String>) {
        self.add(FieldError::invalid(path, value, detail));
    }

    pub fn forbidden(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.add(FieldError::forbidden(path, detail));
    }

    pub fn duplicate(&mut self, path: &Path<'_>, value: &Value) {
        self.add(FieldError::duplicate(path, value));
    }

    /// One error for each message about a text.
    pub fn syntax(&mut self, path: &Path<'_>, value: &str, messages: Vec<String>) {
        for message in messages {
            self.add(FieldError::invalid_str(path, value, message));
        }
    }

    /// One error for each message about a number.
    pub fn number(&mut self, path: &Path<'_>, value: i64, messages: Vec<String>) {
        for message in messages {
            self.invalid(path, &json!(value), message);
        }
    }

    /// A text that must be given, with a syntax.
    pub fn required_syntax(
        &mut self,
        path: &Path<'_>,
        value: &str,
        rule: impl Fn(&str) -> Vec<String>,
    ) {
        match value {
            "" => self.required(path, ""),
            value => self.syntax(path, value, rule(value)),
        }
    }

    /// A text that must be one of `supported`.
    pub fn one_of(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        match value {
            "" => self.required(path, ""),
            value if supported.contains(&value) => {}
            value => self.add(FieldError::not_supported(path, &json!(value), supported)),
        }
    }

    /// A text that is missing or one of `supported`.
    pub fn optional_one_of(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        if !value.is_empty() {
            self.one_of(path, value, supported);
        }
    }

    /// The integers of `object` named by `fields` may not be negative.
    pub fn not_negative(&mut self, path: &Path<'_>, object: &Value, fields: &[&str]) {
        for field in fields {
            if let Some(value) = int(object, field).filter(|value| *value < 0) {
                self.invalid(&path.child(field), &json!(value), NOT_NEGATIVE);
            }
        }
    }

    /// A port, by number or by name.
    pub fn port(&mut self, path: &Path<'_>, port: Option<&Value>) {
        match port {
            Some(Value::String(name)) => self.syntax(path, name, names::port_name(name)),
            port => {
                let number = port.and_then(Value::as_i64).unwrap_or_default();
                self.number(path, number, names::port(number));
            }
        }
    }

    /// A field that may not change.
    pub fn immutable(&mut self, path: &Path<'_>, new: Option<&Value>, old: Option<&Value>) {
        if !equality::equal(new, old) {
            self.invalid(path, new.unwrap_or(&Value::Null), IMMUTABLE);
        }
    }

    /// The keys and values of labels.
    pub fn labels(&mut self, path: &Path<'_>, labels: &serde_json::Map<String, Value>) {
        for (key, value) in labels {
            self.syntax(path, key, names::qualified_name(key));
            let value = value.as_str().unwrap_or_default();
            self.syntax(path, value, names::label_value(value));
        }
    }

    /// A field of `object` that must be given.
    pub fn required_text(&mut self, path: &Path<'_>, object: &Value, field: &str) {
        if text(object, field).is_empty() {
            self.required(&path.child(field), "");
        }
    }
}
