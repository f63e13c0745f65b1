//! ConfigMaps and Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::check::Check;
use crate::field::Path;
use crate::json::{map, map_at, text};
use crate::{FieldError, equality, names};

/// Bytes of data that a ConfigMap or Secret may hold.
const MAX_SIZE: usize = 1 << 20;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";

pub(super) fn config_map(check: &mut Check, object: &Value) {
    let (data, binary) = (map(object, "data"), map(object, "binaryData"));
    let mut size = 0;
    let path = Path::root("data");
    for (key, value) in data {
        check.syntax(&path.key(key), key, names::config_key(key));
        if binary.contains_key(key) {
            let detail = "duplicate of key present in binaryData";
            check.add(FieldError::invalid_str(&path.key(key), key, detail));
        }
        size += value.as_str().map_or(0, str::len);
    }
    let path = Path::root("binaryData");
    for (key, value) in binary {
        check.syntax(&path.key(key), key, names::config_key(key));
        size += decoded_len(value);
    }
    if size > MAX_SIZE {
        check.add(FieldError::too_long(&Path::root(""), MAX_SIZE));
    }
}

fn decoded_len(value: &Value) -> usize {
    value.as_str().map_or(0, str::len) / 4 * 3
}

pub(super) fn config_map_update(check: &mut Check, new: &Value, old: &Value) {
    unchanged_when_immutable(check, new, old, &["data", "binaryData"]);
}

fn unchanged_when_immutable(check: &mut Check, new: &Value, old: &Value, fields: &[&str]) {
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        check.forbidden(&Path::root("immutable"), IMMUTABLE);
    }
    for field in fields {
        if !equality::equal(new.get(field), old.get(field)) {
            check.forbidden(&Path::root(field), IMMUTABLE);
        }
    }
}

pub(super) fn secret(check: &mut Check, object: &Value) {
    let data = map(object, "data");
    let path = Path::root("data");
    let mut size = 0;
    for (key, value) in data {
        check.syntax(&path.key(key), key, names::config_key(key));
        size += decoded_len(value);
    }
    if size > MAX_SIZE {
        check.add(FieldError::too_long(&path, MAX_SIZE));
    }
    match text(object, "type") {
        "kubernetes.io/service-account-token" => service_account_token(check, object),
        "kubernetes.io/dockercfg" => json_entry(check, data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_entry(check, data, ".dockerconfigjson"),
        "kubernetes.io/basic-auth"
            if !data.contains_key("username") && !data.contains_key("password") =>
        {
            entries(check, data, &["username", "password"]);
        }
        "kubernetes.io/ssh-auth" => entries(check, data, &["ssh-privatekey"]),
        "kubernetes.io/tls" => entries(check, data, &["tls.crt", "tls.key"]),
        _ => {}
    }
}

fn entries(check: &mut Check, data: &Map<String, Value>, keys: &[&str]) {
    for key in keys.iter().filter(|key| !data.contains_key(**key)) {
        check.required(&Path::root("data").key(key), "");
    }
}

fn service_account_token(check: &mut Check, object: &Value) {
    const NAME: &str = "kubernetes.io/service-account.name";
    let annotations = map_at(object, "/metadata/annotations");
    if annotations
        .get(NAME)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .is_empty()
    {
        let metadata = Path::root("metadata");
        check.required(&metadata.child("annotations").key(NAME), "");
    }
}

fn json_entry(check: &mut Check, data: &Map<String, Value>, key: &str) {
    let path = Path::root("data");
    let Some(encoded) = data.get(key).and_then(Value::as_str) else {
        check.required(&path.key(key), "");
        return;
    };
    let decoded = STANDARD.decode(encoded).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<Map<String, Value>>(&decoded) {
        let redacted = "<secret contents redacted>";
        check.add(FieldError::invalid_str(
            &path.key(key),
            redacted,
            error.to_string(),
        ));
    }
}

pub(super) fn secret_update(check: &mut Check, new: &Value, old: &Value) {
    check.immutable(&Path::root("type"), new.get("type"), old.get("type"));
    unchanged_when_immutable(check, new, old, &["data"]);
}
