//! Checks a value against its type, in place, with the errors that Go's JSON decoder gives.

use serde_json::{Map, Value, json};

use super::types::{self, Field, Struct, Type};
use crate::field::Path;
use crate::quantity;

/// Checks `value` against the type named `schema`; drops unknown fields, nulls and empty optional lists and maps.
/// Returns one text for each unknown field, or the first wrong type.
pub(super) fn decode(schema: &str, value: &mut Value) -> Result<Vec<String>, String> {
    let Some(Type::Struct(id)) = types::find(schema) else {
        return Err(format!("no type {schema} is known"));
    };
    let root = types::get(*id);
    let mut decoder = Decoder::default();
    match value {
        Value::Object(map) => decoder.fields(root, map, None)?,
        other => {
            let found = describe(other);
            return Err(format!(
                "json: cannot unmarshal {found} into Go value of type {}",
                root.go_name()
            ));
        }
    }
    Ok(decoder.unknown)
}

#[derive(Default)]
struct Decoder {
    unknown: Vec<String>,
}

impl Decoder {
    fn fields(
        &mut self,
        owner: &Struct,
        map: &mut Map<String, Value>,
        path: Option<&Path<'_>>,
    ) -> Result<(), String> {
        let mut drop = Vec::new();
        for (name, value) in map.iter_mut() {
            let path = step(path, name);
            match owner.fields.get(name) {
                None => {
                    self.unknown.push(format!("unknown field \"{path}\""));
                    drop.push(name.clone());
                }
                Some(_) if value.is_null() => drop.push(name.clone()),
                Some(field) => {
                    self.value(&field.ty, value, &path, owner)?;
                    if is_empty_optional(field, value) {
                        drop.push(name.clone());
                    }
                }
            }
        }
        for name in drop {
            map.remove(&name);
        }
        Ok(())
    }

    fn value(
        &mut self,
        ty: &Type,
        value: &mut Value,
        path: &Path<'_>,
        owner: &Struct,
    ) -> Result<(), String> {
        match (ty, &mut *value) {
            (Type::Any, _)
            | (Type::Text, Value::String(_))
            | (Type::Bool, Value::Bool(_))
            | (Type::Number, Value::Number(_)) => Ok(()),
            (Type::Struct(id), Value::Object(map)) => self.fields(types::get(*id), map, Some(path)),
            (Type::List(item), Value::Array(list)) => self.list(item, list, path, owner),
            (Type::Map(item), Value::Object(map)) => self.map(item, map, path, owner),
            (Type::Int32, Value::Number(n)) if fits_int32(n) => Ok(()),
            (Type::Int64, Value::Number(n)) if n.is_i64() => Ok(()),
            (Type::IntOrString, Value::String(_)) => Ok(()),
            (Type::IntOrString, Value::Number(n)) if fits_int32(n) => Ok(()),
            (Type::Bytes, Value::String(text)) => check_base64(text),
            (Type::Time, Value::String(text)) => check_time(text),
            (Type::Quantity, Value::String(_) | Value::Number(_)) => make_canonical(value),
            _ => Err(mismatch(ty, value, path, owner)),
        }
    }

    fn list(
        &mut self,
        item: &Type,
        list: &mut [Value],
        path: &Path<'_>,
        owner: &Struct,
    ) -> Result<(), String> {
        for (index, value) in list.iter_mut().enumerate() {
            self.element(item, value, &path.index(index), owner)?;
        }
        Ok(())
    }

    fn map(
        &mut self,
        item: &Type,
        map: &mut Map<String, Value>,
        path: &Path<'_>,
        owner: &Struct,
    ) -> Result<(), String> {
        for (key, value) in map.iter_mut() {
            self.element(item, value, &path.key(key), owner)?;
        }
        Ok(())
    }

    /// An element of a list or map: there, null stands for the type's empty value.
    fn element(
        &mut self,
        ty: &Type,
        value: &mut Value,
        path: &Path<'_>,
        owner: &Struct,
    ) -> Result<(), String> {
        if value.is_null() {
            *value = zero(ty);
        }
        self.value(ty, value, path, owner)
    }
}

fn step<'a>(parent: Option<&'a Path<'a>>, name: &'a str) -> Path<'a> {
    match parent {
        Some(parent) => parent.child(name),
        None => Path::root(name),
    }
}

/// Whether upstream would not write the field because the list or map in it is empty.
fn is_empty_optional(field: &Field, value: &Value) -> bool {
    let empty = match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty() && matches!(field.ty, Type::Map(_)),
        _ => false,
    };
    empty && !field.required
}

fn fits_int32(number: &serde_json::Number) -> bool {
    number.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
}

fn zero(ty: &Type) -> Value {
    match ty {
        Type::Any | Type::Time => Value::Null,
        Type::Text | Type::Bytes => json!(""),
        Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => json!(0),
        Type::Bool => json!(false),
        Type::Quantity => json!("0"),
        Type::List(_) => json!([]),
        Type::Map(_) | Type::Struct(_) => json!({}),
    }
}

fn check_base64(text: &str) -> Result<(), String> {
    use base64::{DecodeError, Engine, engine::general_purpose::STANDARD};
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let position = match STANDARD.decode(&compact) {
        Ok(_) => return Ok(()),
        Err(DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _)) => at,
        Err(DecodeError::InvalidLength(_) | DecodeError::InvalidPadding) => compact.len(),
    };
    Err(format!("illegal base64 data at input byte {position}"))
}

fn check_time(text: &str) -> Result<(), String> {
    match text.parse::<jiff::Timestamp>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": it must be an RFC 3339 time"
        )),
    }
}

fn make_canonical(value: &mut Value) -> Result<(), String> {
    let text = match &*value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    let quantity: quantity::Quantity = text
        .parse()
        .map_err(|error: quantity::ParseError| error.to_string())?;
    *value = Value::String(quantity.to_string());
    Ok(())
}

fn mismatch(ty: &Type, value: &Value, path: &Path<'_>, owner: &Struct) -> String {
    // Numbers that do not fit are shown; where no number fits, "number" says enough.
    let found = match (ty, value) {
        (Type::Int32 | Type::Int64 | Type::IntOrString, Value::Number(n)) => format!("number {n}"),
        _ => describe(value).to_owned(),
    };
    format!(
        "json: cannot unmarshal {found} into Go struct field {}.{} of type {}",
        owner.short_name(),
        path.fields_only(),
        go_type(ty)
    )
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn go_type(ty: &Type) -> String {
    match ty {
        Type::Any => "interface {}".to_owned(),
        Type::Text | Type::IntOrString => "string".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Time => "time.Time".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Number => "float64".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::List(item) => format!("[]{}", go_type(item)),
        Type::Map(item) => format!("map[string]{}", go_type(item)),
        Type::Struct(id) => types::get(*id).go_name().to_owned(),
    }
}
