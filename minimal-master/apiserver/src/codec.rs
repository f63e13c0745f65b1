//! How objects are stored, and how a revision gets into them.
//!
//! The store assigns the revision, so a stored object can't hold its own resourceVersion. It is written with apiVersion, kind
//! and metadata in front; the resourceVersion is then spliced in as metadata's first field without parsing the
//! object. What watchers and readers get is that text: an object is encoded once per change, not once per reader.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serializer;
use serde::ser::SerializeMap;
use serde_json::Value;
use sluice_store::{KeyValue, Revision};

const METADATA: &[u8] = br#""metadata":{"#;
const REVISION: &[u8] = br#""resourceVersion":""#;
const LEADING: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// The stored form of an object. Its own resourceVersion is left out.
pub(crate) fn encode(object: &Value) -> Result<Bytes, serde_json::Error> {
    let mut out = Vec::with_capacity(1024);
    let mut serializer = serde_json::Serializer::new(&mut out);
    let mut map = serializer.serialize_map(None)?;
    for field in LEADING {
        match object.get(field) {
            Some(Value::Object(metadata)) if field == "metadata" => {
                let mut metadata = metadata.clone();
                metadata.remove("resourceVersion");
                map.serialize_entry(field, &metadata)?;
            }
            Some(value) => map.serialize_entry(field, value)?,
            None => {}
        }
    }
    for (field, value) in object.as_object().into_iter().flatten() {
        if !LEADING.contains(&field.as_str()) {
            map.serialize_entry(field, value)?;
        }
    }
    SerializeMap::end(map)?;
    Ok(out.into())
}

/// The object's text with this revision as its resourceVersion, in place of the one it may hold already.
pub(crate) fn with_revision(text: &[u8], revision: Revision) -> Bytes {
    // apiVersion and kind come before and never hold this text.
    let Some(start) = text
        .windows(METADATA.len())
        .position(|window| window == METADATA)
    else {
        return Bytes::copy_from_slice(text);
    };
    let (head, rest) = text.split_at(start + METADATA.len());
    let rest = skip_revision(rest);
    let mut out = BytesMut::with_capacity(text.len() + 48);
    out.put_slice(head);
    out.put_slice(REVISION);
    out.put_slice(revision.to_string().as_bytes());
    out.put_slice(if rest.first() == Some(&b'}') {
        b"\""
    } else {
        b"\","
    });
    out.put_slice(rest);
    out.freeze()
}

fn skip_revision(rest: &[u8]) -> &[u8] {
    let Some(after) = rest.strip_prefix(REVISION) else {
        return rest;
    };
    let digits = after
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let after = &after[digits..];
    after
        .strip_prefix(b"\",")
        .or_else(|| after.strip_prefix(b"\""))
        .unwrap_or(rest)
}

/// What a key holds, as clients see it.
pub(crate) fn body(kv: &KeyValue) -> Bytes {
    with_revision(&kv.value, kv.mod_revision)
}

/// What a key holds, as a value with its resourceVersion.
pub(crate) fn decode(kv: &KeyValue) -> Result<Value, serde_json::Error> {
    let mut object: Value = serde_json::from_slice(&kv.value)?;
    set_revision(&mut object, kv.mod_revision);
    Ok(object)
}

pub(crate) fn set_revision(object: &mut Value, revision: Revision) {
    object["metadata"]["resourceVersion"] = Value::String(revision.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decoded(text: &[u8]) -> Value {
        serde_json::from_slice(text).unwrap()
    }

    #[test]
    fn metadata_comes_first_and_the_revision_is_spliced_in() {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "data": {"a": "\"metadata\":{"}, "metadata": {"name": "x", "resourceVersion": "9"}});
        let stored = encode(&map).unwrap();
        assert!(stored.starts_with(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"#));
        assert!(
            decoded(&stored)["metadata"]
                .get("resourceVersion")
                .is_none()
        );
        let mut expected = map;
        expected["metadata"]["resourceVersion"] = json!("12");
        assert_eq!(decoded(&with_revision(&stored, 12)), expected);
    }

    #[test]
    fn a_revision_is_replaced() {
        let stored = encode(&json!({"metadata": {"name": "x"}})).unwrap();
        let first = with_revision(&stored, 7);
        assert_eq!(
            decoded(&with_revision(&first, 8)),
            json!({"metadata": {"name": "x", "resourceVersion": "8"}})
        );
        let bare = encode(&json!({"metadata": {}})).unwrap();
        let twice = with_revision(&with_revision(&bare, 1), 2);
        assert_eq!(
            decoded(&twice),
            json!({"metadata": {"resourceVersion": "2"}})
        );
    }
}
