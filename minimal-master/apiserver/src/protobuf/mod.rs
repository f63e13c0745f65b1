//! Kubernetes' protobuf bodies, read into the JSON form.
//!
//! kubectl's typed commands (`create deployment`, `auth can-i`, ...), stock kubelets and controllers send protobuf
//! without asking whether it is understood. Answers are JSON, which all of them accept.
//!
//! A body is the magic number `k8s\0` and a `runtime.Unknown`: the kind's name and the object's own message. What
//! the fields of a message are is in `messages.txt`.

mod messages;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use messages::{Kind, Message, Scalar, Type};
use wire::{Field, Fields};

/// The media type, as `Content-Type` names it.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// Deeper nesting than any kind has; hostile bodies end there.
const DEPTH: usize = 32;

/// Why a body can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    #[error("the body does not begin with the magic number of Kubernetes' protobuf form")]
    Magic,
    #[error("the body is cut short or damaged")]
    Damaged,
    #[error("a text in the body is not UTF-8")]
    Text,
    #[error("the body is nested too deeply")]
    TooDeep,
    #[error("no message is known for kind {kind:?} of {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
}

type Result<T> = std::result::Result<T, ProtobufError>;

/// Whether a body of this type is to be read here.
pub(crate) fn is_protobuf(content_type: Option<&str>) -> bool {
    let media_type = content_type
        .and_then(|text| text.split(';').next())
        .unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE)
}

/// The object in a body, in its JSON form.
pub(crate) fn decode(body: &[u8]) -> Result<Value> {
    let unknown = body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields::new(unknown) {
        match field? {
            (1, Field::Bytes(type_meta)) => (api_version, kind) = names(type_meta)?,
            (2, Field::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let message =
        messages::of_kind(&api_version, &kind).ok_or_else(|| ProtobufError::UnknownKind {
            api_version: api_version.clone(),
            kind: kind.clone(),
        })?;
    let mut object = Map::new();
    message_into(message, raw, &mut object, DEPTH)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
}

/// `apiVersion` and `kind` of a `runtime.TypeMeta`.
fn names(bytes: &[u8]) -> Result<(String, String)> {
    let (mut api_version, mut kind) = (String::new(), String::new());
    for field in Fields::new(bytes) {
        match field? {
            (1, Field::Bytes(bytes)) => api_version = text(bytes)?.to_owned(),
            (2, Field::Bytes(bytes)) => kind = text(bytes)?.to_owned(),
            _ => {}
        }
    }
    Ok((api_version, kind))
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Text)
}

/// Adds a message's fields to an object. Unknown fields are left out, as a server of another version does.
fn message_into(
    message: &Message,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<()> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
    for field in Fields::new(bytes) {
        let (number, field) = field?;
        let Some(known) = message.field(number) else {
            continue;
        };
        match &known.kind {
            Kind::Inline(inner) => {
                if let Some(inner) = messages::find(inner) {
                    message_into(inner, field.bytes()?, object, depth)?;
                }
            }
            Kind::One(ty) => {
                let value = value(ty, field, depth)?;
                match value {
                    Some(value) if known.keep_zero || !is_zero(&value) => {
                        object.insert(known.name.clone(), value);
                    }
                    _ => {}
                }
            }
            Kind::List(ty) => {
                let list = object.entry(&known.name).or_insert_with(|| json!([]));
                if let Some(list) = list.as_array_mut() {
                    elements(ty, field, list, depth)?;
                }
            }
            Kind::Map(ty) => {
                let (key, value) = entry(ty, field.bytes()?, depth)?;
                object.entry(&known.name).or_insert_with(|| json!({}))[key] = value;
            }
        }
    }
    Ok(())
}

/// What a missing field means as well. Empty objects stay: `emptyDir: {}` says something.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

fn value(ty: &Type, field: Field<'_>, depth: usize) -> Result<Option<Value>> {
    Ok(match ty {
        Type::Message(name) => {
            let mut object = Map::new();
            if let Some(message) = messages::find(name) {
                message_into(message, field.bytes()?, &mut object, depth)?;
            }
            Some(Value::Object(object))
        }
        Type::Scalar(scalar) => self::scalar(*scalar, field)?,
    })
}

fn scalar(scalar: Scalar, field: Field<'_>) -> Result<Option<Value>> {
    Ok(match scalar {
        Scalar::Text => Some(json!(text(field.bytes()?)?)),
        Scalar::Bytes => Some(json!(STANDARD.encode(field.bytes()?))),
        Scalar::Int => Some(json!(field.varint()? as i64)),
        Scalar::Bool => Some(json!(field.varint()? != 0)),
        Scalar::Double => Some(json!(f64::from_bits(field.fixed64()?))),
        Scalar::Time => time(field.bytes()?, "%Y-%m-%dT%H:%M:%SZ")?,
        Scalar::MicroTime => time(field.bytes()?, "%Y-%m-%dT%H:%M:%S.%6fZ")?,
        Scalar::Quantity => Some(json!(first_text(field.bytes()?)?)),
        Scalar::IntOrString => Some(int_or_string(field.bytes()?)?),
        Scalar::Texts => Some(texts(field.bytes()?)?),
        Scalar::Skip => None,
    })
}

/// One element, or several integers in one field (packed).
fn elements(ty: &Type, field: Field<'_>, list: &mut Vec<Value>, depth: usize) -> Result<()> {
    if let (Type::Scalar(Scalar::Int), Field::Bytes(packed)) = (ty, field) {
        for number in wire::packed(packed) {
            list.push(json!(number? as i64));
        }
        return Ok(());
    }
    list.extend(value(ty, field, depth)?);
    Ok(())
}

fn entry(ty: &Type, bytes: &[u8], depth: usize) -> Result<(String, Value)> {
    let (mut key, mut found) = (String::new(), None);
    for field in Fields::new(bytes) {
        match field? {
            (1, field) => key = text(field.bytes()?)?.to_owned(),
            (2, field) => found = value(ty, field, depth)?,
            _ => {}
        }
    }
    Ok((key, found.unwrap_or_else(|| json!(""))))
}

/// Seconds and nanoseconds since 1970; the zero time is an empty message.
fn time(bytes: &[u8], format: &str) -> Result<Option<Value>> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields::new(bytes) {
        match field? {
            (1, field) => seconds = field.varint()? as i64,
            (2, field) => nanos = field.varint()? as i32,
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Ok(None);
    }
    let time = Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Damaged)?;
    Ok(Some(json!(time.strftime(format).to_string())))
}

fn first_text(bytes: &[u8]) -> Result<&str> {
    for field in Fields::new(bytes) {
        if let (1, field) = field? {
            return text(field.bytes()?);
        }
    }
    Ok("")
}

fn int_or_string(bytes: &[u8]) -> Result<Value> {
    let (mut is_text, mut number, mut string) = (false, 0, "");
    for field in Fields::new(bytes) {
        match field? {
            (1, field) => is_text = field.varint()? == 1,
            (2, field) => number = field.varint()? as i32,
            (3, field) => string = text(field.bytes()?)?,
            _ => {}
        }
    }
    Ok(if is_text {
        json!(string)
    } else {
        json!(number)
    })
}

/// A message that is nothing but a list of texts.
fn texts(bytes: &[u8]) -> Result<Value> {
    let mut list = Vec::new();
    for field in Fields::new(bytes) {
        if let (1, field) = field? {
            list.push(json!(text(field.bytes()?)?));
        }
    }
    Ok(Value::Array(list))
}

#[cfg(test)]
mod tests;
