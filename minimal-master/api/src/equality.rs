//! Equality as upstream means it when it asks whether a field changed.

use serde_json::{Map, Value};

/// Whether two values mean the same: a missing field equals null, false, 0, an empty text, list or map.
pub fn equal(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(value), None) | (None, Some(value)) => is_empty(value),
        (Some(Value::Object(a)), Some(Value::Object(b))) => maps_equal(a, b),
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(Some(a), Some(b)))
        }
        (Some(a), Some(b)) => a == b || (is_empty(a) && is_empty(b)),
    }
}

fn maps_equal(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.iter().all(|(key, value)| equal(Some(value), b.get(key)))
        && b.iter()
            .all(|(key, value)| a.contains_key(key) || is_empty(value))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn empty_values_equal_missing_ones() {
        let same = |a: Value, b: Value| equal(Some(&a), Some(&b));
        assert!(same(
            json!({"a": 1}),
            json!({"a": 1, "b": "", "c": [], "d": {}, "e": false, "f": null})
        ));
        assert!(!same(json!({"a": 1}), json!({"a": 2})));
        assert!(!same(json!({"a": 1}), json!({"a": 1, "b": true})));
        assert!(same(json!([{"a": 1}]), json!([{"a": 1, "b": 0}])));
        assert!(!same(json!(["a", "b"]), json!(["b", "a"])));
        assert!(equal(None, Some(&json!({"x": {"y": ""}}))));
    }
}
