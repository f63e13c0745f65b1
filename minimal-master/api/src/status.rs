//! Errors as the API answers them: the Status object, worded as upstream words it.

use serde_json::{Map, Value, json};

use crate::field::FieldError;
use crate::kinds::Kind;

/// A failed request. [`ApiError::status`] is the body of the answer, [`ApiError::code`] its HTTP status.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, such as `NotFound`.
    pub reason: &'static str,
    /// What kubectl prints.
    pub message: String,
    /// What the error is about; boxed because errors are rare and results are everywhere.
    pub details: Option<Box<Details>>,
}

/// The `details` of a Status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The object's name.
    pub name: String,
    /// The API group.
    pub group: String,
    /// The resource's plural or, for invalid objects, the kind.
    pub kind: String,
    /// The object's uid.
    pub uid: String,
    /// Single causes, such as fields.
    pub causes: Vec<Cause>,
    /// When to try again, seconds; 0 for no advice.
    pub retry_after_seconds: u32,
}

/// One cause in a Status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable reason, such as `FieldValueRequired`.
    pub reason: String,
    /// The cause in words.
    pub message: String,
    /// The field it is about.
    pub field: String,
}

impl ApiError {
    /// An error without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: kind.group.to_owned(),
            kind: kind.plural.to_owned(),
            ..Details::default()
        }));
        self
    }

    fn with_cause(mut self, cause: Cause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// 404: `pods "web" not found`.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.resource());
        Self::new(404, "NotFound", message).about(kind, name)
    }

    /// 404 for a path that names nothing that is served.
    pub fn no_such_path() -> Self {
        let mut error = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.details = Some(Box::default());
        error
    }

    /// 409: `pods "web" already exists`.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", kind.resource());
        Self::new(409, "AlreadyExists", message).about(kind, name)
    }

    /// 409 after every name made from `generateName` was in use.
    pub fn generate_name_conflict(kind: &Kind, name: &str) -> Self {
        let message = format!(
            "{} {name:?} already exists, the server was not able to generate a unique name for the object",
            kind.resource()
        );
        Self::new(409, "AlreadyExists", message)
            .about(kind, name)
            .with_retry_after(1)
    }

    /// 409 for a write to an older state of the object.
    pub fn conflict(kind: &Kind, name: &str) -> Self {
        Self::conflict_because(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409: `Operation cannot be fulfilled on pods "web": why`.
    pub fn conflict_because(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            kind.resource()
        );
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// 422 with one cause a field: `Pod "web" is invalid: spec.containers: Required value`.
    ///
    /// Equal errors are reported once, in the order of their first appearance.
    pub fn invalid(kind: &Kind, name: &str, errors: Vec<FieldError>) -> Self {
        let mut unique: Vec<FieldError> = Vec::with_capacity(errors.len());
        for error in errors {
            if !unique.contains(&error) {
                unique.push(error);
            }
        }
        let message = format!(
            "{} {name:?} is invalid: {}",
            kind.group_kind(),
            aggregate(&unique)
        );
        let mut error = Self::new(422, "Invalid", message);
        error.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: kind.group.to_owned(),
            kind: kind.kind.to_owned(),
            causes: unique.iter().map(Cause::from).collect(),
            ..Details::default()
        }));
        error
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 410: the revision asked for is compacted, or a `continue` token is too old. The reason is `Expired`, as
    /// upstream's; clients list anew.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: `pods "web" is forbidden: why`; without a name, `pods is forbidden: why`.
    pub fn forbidden(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Self {
        let message = match name {
            "" => format!("{} is forbidden: {why}", kind.resource()),
            name => format!("{} {name:?} is forbidden: {why}", kind.resource()),
        };
        Self::new(403, "Forbidden", message).about(kind, name)
    }

    /// 405 for a verb that the resource does not have (`delete`, `deletecollection`, `list`, ...).
    pub fn method_not_supported(kind: &Kind, verb: &str) -> Self {
        let message = format!(
            "{verb} is not supported on resources of kind \"{}\"",
            kind.resource()
        );
        Self::new(405, "MethodNotAllowed", message).about(kind, "")
    }

    /// 405 for an HTTP method that the path does not have.
    pub fn method_not_allowed() -> Self {
        let mut error = Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        error.details = Some(Box::default());
        error
    }

    /// 415 with the media types that bodies may have.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 406 with the media types that answers may have.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!(
            "only the following media types are accepted: {}",
            accepted.join(", ")
        );
        Self::new(406, "NotAcceptable", message)
    }

    /// 413.
    pub fn request_too_large(message: impl Into<String>) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity is too large: {}", message.into()),
        )
    }

    /// 429 with the time after which to try again.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message).with_retry_after(retry_after_seconds)
    }

    /// 504: the server gave up; trying again is safe.
    pub fn timeout(message: impl std::fmt::Display, retry_after_seconds: u32) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {message}"))
            .with_retry_after(retry_after_seconds)
    }

    /// 503.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 500; `cause` is shown to the client.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {cause}"),
        )
        .with_cause(Cause {
            message: cause.to_string(),
            ..Cause::default()
        })
    }

    /// 422 for a patch that does not fit the object. kubectl prints the message only where there are no causes.
    pub fn unprocessable(cause: impl std::fmt::Display) -> Self {
        let message =
            format!("the server rejected our request due to an error in our request: {cause}");
        let mut error = Self::new(422, "Invalid", message);
        error.details = Some(Box::default());
        error
    }

    /// The Status object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = details.json();
        }
        status
    }
}

/// The Status of a request that succeeded and has no object to return, such as a finished deletion.
pub fn success(kind: &Kind, name: &str, uid: &str) -> Value {
    let details = Details {
        name: name.to_owned(),
        group: kind.group.to_owned(),
        kind: kind.plural.to_owned(),
        uid: uid.to_owned(),
        ..Details::default()
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details.json()})
}

impl Details {
    fn json(&self) -> Value {
        let mut map = Map::new();
        insert_text(&mut map, "name", &self.name);
        insert_text(&mut map, "group", &self.group);
        insert_text(&mut map, "kind", &self.kind);
        insert_text(&mut map, "uid", &self.uid);
        if !self.causes.is_empty() {
            map.insert(
                "causes".to_owned(),
                self.causes.iter().map(Cause::json).collect(),
            );
        }
        if self.retry_after_seconds > 0 {
            map.insert(
                "retryAfterSeconds".to_owned(),
                json!(self.retry_after_seconds),
            );
        }
        Value::Object(map)
    }
}

impl Cause {
    fn json(&self) -> Value {
        let mut map = Map::new();
        insert_text(&mut map, "reason", &self.reason);
        insert_text(&mut map, "message", &self.message);
        insert_text(&mut map, "field", &self.field);
        Value::Object(map)
    }
}

impl From<&FieldError> for Cause {
    fn from(error: &FieldError) -> Self {
        Cause {
            reason: error.kind.reason().to_owned(),
            message: error.body(),
            field: error.field.clone(),
        }
    }
}

fn insert_text(map: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        map.insert(key.to_owned(), Value::from(text));
    }
}

/// One error as it is, several as `[a, b]`.
fn aggregate(errors: &[FieldError]) -> String {
    match errors {
        [one] => one.to_string(),
        many => {
            let texts: Vec<String> = many.iter().map(FieldError::to_string).collect();
            format!("[{}]", texts.join(", "))
        }
    }
}
