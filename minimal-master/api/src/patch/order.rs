//! The order of merged lists.
//!
//! Elements that the patch names come in the patch's order, the others in the order they had; where the two meet, the
//! order that the list had before decides, as upstream's `normalizeElementOrder` does.

use serde_json::Value;

/// Whether two elements are the same one: by their merge key or, without one, by value.
pub(super) fn same(a: &Value, b: &Value, key: &str) -> bool {
    match key {
        "" => a == b,
        key => a.get(key).is_some() && a.get(key) == b.get(key),
    }
}

fn position(list: &[Value], item: &Value, key: &str) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

/// Orders `merged`: what `wanted` names by `wanted`, the rest by `before`.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    before: &[Value],
    key: &str,
) -> Vec<Value> {
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| position(wanted, item, key).is_some());
    named.sort_by_key(|item| position(wanted, item, key));
    others.sort_by_key(|item| position(before, item, key).unwrap_or(usize::MAX));
    weave(others, named, before, key)
}

/// Takes from `others` as long as its head stood before the head of `named`.
fn weave(others: Vec<Value>, named: Vec<Value>, before: &[Value], key: &str) -> Vec<Value> {
    let mut result = Vec::with_capacity(others.len() + named.len());
    let mut others = others.into_iter().peekable();
    let mut named = named.into_iter().peekable();
    while let (Some(other), Some(name)) = (others.peek(), named.peek()) {
        let stood_before = match (position(before, other, key), position(before, name, key)) {
            (Some(other), Some(name)) => other < name,
            _ => false,
        };
        result.extend(if stood_before {
            others.next()
        } else {
            named.next()
        });
    }
    result.extend(named);
    result.extend(others);
    result
}
