//! Answers: objects in the form that the client wants, and errors as Status objects.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_api::table::{self, IncludeObject, ListMeta};
use sluice_api::{ApiError, Kind, convert};

use crate::accept::Form;

pub(crate) type Answer = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A JSON text with a status code.
pub(crate) fn json_text(code: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::from(text.into()));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

pub(crate) fn json_value(code: StatusCode, value: &Value) -> Answer {
    json_text(code, value.to_string())
}

pub(crate) fn plain(code: StatusCode, text: impl Into<String>) -> Answer {
    let mut answer = Response::new(Body::from(text.into()));
    *answer.status_mut() = code;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

pub(crate) fn error(error: &ApiError) -> Answer {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json_value(code, &error.status());
    let seconds = error
        .details
        .as_ref()
        .map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

/// Adds warnings that kubectl prints (RFC 7234, section 5.5; code 299 as upstream).
pub(crate) fn warn(answer: &mut Answer, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(WARNING, value);
        }
    }
}

/// How a request wants its objects: the kind it asked for, the form, and what rows of a table carry.
#[derive(Clone, Copy)]
pub(crate) struct View {
    pub(crate) kind: &'static Kind,
    pub(crate) form: Form,
    pub(crate) include: IncludeObject,
}

impl View {
    /// Whether stored texts can be sent as they are.
    pub(crate) fn is_verbatim(&self) -> bool {
        self.form == Form::Object && !self.converts()
    }

    fn converts(&self) -> bool {
        (self.kind.group, self.kind.plural) != self.kind.storage
    }

    /// A stored object as a value of the requested kind.
    pub(crate) fn value(&self, body: &[u8]) -> Result<Value, ApiError> {
        let mut object = serde_json::from_slice(body).map_err(damaged)?;
        if self.converts() {
            convert::from_storage(self.kind, &mut object);
        }
        Ok(object)
    }

    /// One object.
    pub(crate) fn object(&self, code: StatusCode, body: Bytes) -> Result<Answer, ApiError> {
        match self.is_verbatim() {
            true => Ok(json_text(code, body)),
            false => Ok(json_value(code, &self.render(&body)?)),
        }
    }

    /// One object as a table of one row, as metadata, or as it is.
    pub(crate) fn render(&self, body: &[u8]) -> Result<Value, ApiError> {
        let object = self.value(body)?;
        Ok(match self.form {
            Form::Object => object,
            Form::Metadata => table::partial_metadata(&object),
            Form::Table(_) => {
                let meta = ListMeta {
                    resource_version: crate::object::meta(&object, "resourceVersion").to_owned(),
                    ..ListMeta::default()
                };
                self.table([&object], &meta)
            }
        })
    }

    /// A list of objects.
    pub(crate) fn list<'a>(
        &self,
        bodies: impl ExactSizeIterator<Item = &'a Bytes>,
        meta: &ListMeta,
    ) -> Result<Answer, ApiError> {
        if self.is_verbatim() {
            return Ok(json_text(StatusCode::OK, self.verbatim_list(bodies, meta)));
        }
        let objects = bodies
            .map(|body| self.value(body))
            .collect::<Result<Vec<_>, _>>()?;
        let list = match self.form {
            Form::Table(_) => self.table(&objects, meta),
            Form::Metadata => {
                let items: Vec<_> = objects.iter().map(table::partial_metadata).collect();
                list("PartialObjectMetadataList", "meta.k8s.io/v1", meta, items)
            }
            Form::Object => list(
                &self.kind.list_kind(),
                &self.kind.api_version(),
                meta,
                objects,
            ),
        };
        Ok(json_value(StatusCode::OK, &list))
    }

    fn verbatim_list<'a>(
        &self,
        bodies: impl Iterator<Item = &'a Bytes>,
        meta: &ListMeta,
    ) -> Vec<u8> {
        let head = list(
            &self.kind.list_kind(),
            &self.kind.api_version(),
            meta,
            Vec::new(),
        );
        let head = head.to_string();
        // The empty list's text ends `"items":[],...`: the items go between the brackets.
        let (before, after) = head.split_once("[]").unwrap_or((&head, ""));
        let mut out = before.as_bytes().to_vec();
        out.push(b'[');
        for (index, body) in bodies.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(body);
        }
        out.push(b']');
        out.extend_from_slice(after.as_bytes());
        out
    }

    fn table<'a>(&self, objects: impl IntoIterator<Item = &'a Value>, meta: &ListMeta) -> Value {
        let mut table = table::render(self.kind, objects, meta, self.include, Timestamp::now());
        if let Form::Table(version) = self.form {
            table["apiVersion"] = json!(version);
        }
        table
    }
}

fn list(kind: &str, api_version: &str, meta: &ListMeta, items: Vec<Value>) -> Value {
    json!({"kind": kind, "apiVersion": api_version, "metadata": meta.json(), "items": items})
}

/// A stored object that does not parse.
pub(crate) fn damaged(error: serde_json::Error) -> ApiError {
    ApiError::internal(format_args!("a stored object is damaged: {error}"))
}
