//! Short accessors for objects kept as JSON values.

use serde_json::{Map, Value};

static NO_FIELDS: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

/// The text at `key`, or an empty one.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The text at a JSON pointer, or an empty one.
pub fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The integer at `key`.
pub fn int(value: &Value, key: &str) -> Option<i64> {
    value.get(key).and_then(Value::as_i64)
}

/// The integer at a JSON pointer, or 0.
pub fn int_at(value: &Value, pointer: &str) -> i64 {
    value
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// The boolean at `key`, or false.
pub fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// The elements of the list at `key`; none where it is missing.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The elements of the list at a JSON pointer; none where it is missing.
pub fn list_at<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The entries of the map at `key`; none where it is missing.
pub fn map<'a>(value: &'a Value, key: &str) -> &'a Map<String, Value> {
    value
        .get(key)
        .and_then(Value::as_object)
        .unwrap_or(&NO_FIELDS)
}

/// The entries of the map at a JSON pointer; none where it is missing.
pub fn map_at<'a>(value: &'a Value, pointer: &str) -> &'a Map<String, Value> {
    value
        .pointer(pointer)
        .and_then(Value::as_object)
        .unwrap_or(&NO_FIELDS)
}

/// The object at `key`, made when it is missing. None when `value` or the field is of another type.
pub fn object_mut<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    value
        .as_object_mut()?
        .entry(key)
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
}

/// The elements of the list at `key`, to be changed; none where it is missing.
pub fn list_mut<'a>(value: &'a mut Value, key: &str) -> &'a mut [Value] {
    value
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .map(Vec::as_mut_slice)
        .unwrap_or_default()
}

/// Sets `key` where it is missing or null.
pub fn default(value: &mut Value, key: &str, default: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        let slot = map.entry(key).or_insert(Value::Null);
        if slot.is_null() {
            *slot = default.into();
        }
    }
}

/// As [`default`], also where the text is empty: in upstream's structs an empty text is a missing one.
pub fn default_text(value: &mut Value, key: &str, text: &str) {
    if let Some(map) = value.as_object_mut() {
        let slot = map.entry(key).or_insert(Value::Null);
        if slot.is_null() || slot.as_str() == Some("") {
            *slot = Value::from(text);
        }
    }
}

/// Sets `key`, or removes it for `None`.
pub fn set(value: &mut Value, key: &str, new: Option<Value>) {
    if let Some(map) = value.as_object_mut() {
        match new {
            Some(new) => {
                map.insert(key.to_owned(), new);
            }
            None => {
                map.remove(key);
            }
        }
    }
}

/// The object's name.
pub fn name(object: &Value) -> &str {
    text_at(object, "/metadata/name")
}
