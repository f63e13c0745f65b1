//! Strategic merge patch: a merge patch that knows how lists merge.
//!
//! Upstream's `strategicpatch` package is the rule. In patches, keys that start with `$` are directives:
//! - `$patch: replace|delete` in a map replaces or empties it; in an element of a list with a merge key, `delete` removes
//!   the element with that key, and `replace` makes the patch's other elements the whole list;
//! - `$retainKeys: [..]` drops all other fields of the map;
//! - `$deleteFromPrimitiveList/FIELD: [..]` removes values from a list of texts or numbers;
//! - `$setElementOrder/FIELD: [..]` orders a merged list.

use serde_json::{Map, Value};

use super::order;
use crate::ApiError;
use crate::schema::extensions::{self, FieldExtension};
use crate::schema::types::{self, Type};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// Merges `patch` into `original`, both of type `ty`.
pub(super) fn merge_map(
    mut original: Object,
    mut patch: Object,
    ty: &'static Type,
) -> Result<Object, ApiError> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => Err(bad_directive(&directive)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    delete_from_lists(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, ty)?;
    for (key, value) in patch {
        let (field, extension) = child(ty, &key);
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let merged = match original.remove(&key) {
            None => without_directives(value)?,
            Some(old) => merge_value(old, value, field, extension)?,
        };
        original.insert(key, merged);
    }
    Ok(original)
}

/// The type of a field or entry, and how it merges.
fn child(ty: &'static Type, key: &str) -> (&'static Type, &'static FieldExtension) {
    match ty {
        Type::Struct(id) => match types::get(*id).fields.get(key) {
            Some(field) => (&field.ty, field.extension),
            None => (&Type::Any, &extensions::NONE),
        },
        Type::Map(item) => (item, &extensions::NONE),
        _ => (&Type::Any, &extensions::NONE),
    }
}

fn merge_value(
    old: Value,
    patch: Value,
    ty: &'static Type,
    extension: &FieldExtension,
) -> Result<Value, ApiError> {
    match (old, patch) {
        (Value::Object(old), Value::Object(patch)) => merge_map(old, patch, ty).map(Value::Object),
        (Value::Array(old), Value::Array(patch)) if extension.merges() => {
            merge_list(old, patch, item_type(ty), extension.merge_key).map(Value::Array)
        }
        (_, patch) => without_directives(patch),
    }
}

fn item_type(ty: &'static Type) -> &'static Type {
    match ty {
        Type::List(item) => item,
        _ => &Type::Any,
    }
}

/// `$retainKeys` names every field that the map shall have after the merge.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), ApiError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let bad = || {
        ApiError::bad_request(
            "$retainKeys must be a list of texts that contains every field of the patch",
        )
    };
    let keys: Vec<&str> = keys
        .as_array()
        .and_then(|keys| keys.iter().map(Value::as_str).collect())
        .ok_or_else(bad)?;
    if patch
        .keys()
        .any(|key| !key.starts_with('$') && !keys.contains(&key.as_str()))
    {
        return Err(bad());
    }
    original.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

fn take_prefixed(patch: &mut Object, prefix: &str) -> Vec<(String, Value)> {
    let keys: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(prefix))
        .cloned()
        .collect();
    keys.into_iter()
        .filter_map(|key| Some((key[prefix.len()..].to_owned(), patch.remove(&key)?)))
        .collect()
}

fn delete_from_lists(original: &mut Object, patch: &mut Object) -> Result<(), ApiError> {
    for (field, values) in take_prefixed(patch, DELETE_FROM) {
        let Value::Array(values) = values else {
            return Err(ApiError::bad_request(format!(
                "{DELETE_FROM}{field} must be a list"
            )));
        };
        if let Some(Value::Array(list)) = original.get_mut(&field) {
            list.retain(|item| !values.contains(item));
        }
    }
    Ok(())
}

/// Merges the lists whose order the patch gives, and takes them out of the patch.
fn merge_ordered_lists(
    original: &mut Object,
    patch: &mut Object,
    ty: &'static Type,
) -> Result<(), ApiError> {
    for (field, wanted) in take_prefixed(patch, SET_ORDER) {
        let Value::Array(wanted) = wanted else {
            return Err(ApiError::bad_request(format!(
                "{SET_ORDER}{field} must be a list"
            )));
        };
        if patch.get(&field).is_some_and(|value| !value.is_array()) {
            continue;
        }
        let (list_type, extension) = child(ty, &field);
        let key = extension.merge_key;
        let old = match original.remove(&field) {
            Some(Value::Array(old)) => old,
            Some(other) => {
                original.insert(field, other);
                continue;
            }
            None => Vec::new(),
        };
        let merged = match patch.remove(&field) {
            Some(Value::Array(new)) => {
                check_order(&field, &new, &wanted, key)?;
                merge_list(old.clone(), new, item_type(list_type), key)?
            }
            _ => old.clone(),
        };
        if !merged.is_empty() {
            original.insert(
                field,
                Value::Array(order::arrange(merged, &wanted, &old, key)),
            );
        }
    }
    Ok(())
}

/// The order must name every element that the patch adds or changes.
fn check_order(field: &str, patch: &[Value], wanted: &[Value], key: &str) -> Result<(), ApiError> {
    let is_listed = |item: &Value| {
        let deleted = item.get(PATCH).is_some();
        deleted || wanted.iter().any(|w| order::same(w, item, key))
    };
    match patch.iter().all(is_listed) {
        true => Ok(()),
        false => Err(ApiError::bad_request(format!(
            "{SET_ORDER}{field} must contain every element of {field} in the patch"
        ))),
    }
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    item: &'static Type,
    key: &str,
) -> Result<Vec<Value>, ApiError> {
    if key.is_empty() {
        return Ok(merge_values(original, patch));
    }
    let Directed { mut list, patch } = apply_element_directives(original.clone(), patch, key)?;
    let wanted = patch.clone();
    for element in patch {
        let Value::Object(new) = element else {
            return Err(no_merge_key(&element, key));
        };
        let Some(id) = new.get(key) else {
            return Err(no_merge_key(&Value::Object(new), key));
        };
        match list.iter_mut().find(|old| old.get(key) == Some(id)) {
            Some(slot) => {
                let old = slot.as_object_mut().map(std::mem::take).unwrap_or_default();
                *slot = Value::Object(merge_map(old, new, item)?);
            }
            None => list.push(without_directives(Value::Object(new))?),
        }
    }
    Ok(order::arrange(list, &wanted, &original, key))
}

/// Lists of texts or numbers merge to their union.
fn merge_values(original: Vec<Value>, patch: Vec<Value>) -> Vec<Value> {
    let mut merged = original.clone();
    for value in &patch {
        if !merged.contains(value) {
            merged.push(value.clone());
        }
    }
    order::arrange(merged, &patch, &original, "")
}

/// What is left after the elements that are directives took effect.
struct Directed {
    list: Vec<Value>,
    patch: Vec<Value>,
}

fn apply_element_directives(
    mut list: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<Directed, ApiError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for element in patch {
        match element.get(PATCH) {
            None => plain.push(element),
            Some(directive) => match directive.as_str() {
                Some("replace") => replace = true,
                Some("delete") => {
                    let id = element
                        .get(key)
                        .ok_or_else(|| no_merge_key(&element, key))?;
                    list.retain(|old| old.get(key) != Some(id));
                }
                _ => return Err(bad_directive(directive)),
            },
        }
    }
    match replace {
        true => Ok(Directed {
            list: plain,
            patch: Vec::new(),
        }),
        false => Ok(Directed { list, patch: plain }),
    }
}

/// A part of the patch that meets nothing in the object: nulls and directives have nothing to do there.
fn without_directives(value: Value) -> Result<Value, ApiError> {
    match value {
        Value::Object(mut map) => {
            if let Some(directive) = map.remove(PATCH) {
                match directive.as_str() {
                    Some("replace") => {}
                    Some("delete") => return Ok(Value::Object(Object::new())),
                    _ => return Err(bad_directive(&directive)),
                }
            }
            let mut clean = Object::new();
            for (key, value) in map {
                if !value.is_null() && !is_directive(&key) {
                    clean.insert(key, without_directives(value)?);
                }
            }
            Ok(Value::Object(clean))
        }
        Value::Array(list) => {
            let elements = list.into_iter().filter(|item| item.get(PATCH).is_none());
            elements
                .map(without_directives)
                .collect::<Result<_, _>>()
                .map(Value::Array)
        }
        other => Ok(other),
    }
}

fn is_directive(key: &str) -> bool {
    key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER)
}

fn bad_directive(directive: &Value) -> ApiError {
    ApiError::bad_request(format!(
        "unknown patch type {directive}: it must be replace or delete"
    ))
}

fn no_merge_key(element: &Value, key: &str) -> ApiError {
    ApiError::unprocessable(format!(
        "map: {element} does not contain declared merge key: {key}"
    ))
}
