//! Field selectors (`spec.nodeName=node1,status.phase!=Failed`).

use std::borrow::Cow;

use serde_json::Value;

use crate::json::text_at;
use crate::{ApiError, Kind};

/// Comparisons that must all hold; none selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: &'static str,
    pointer: String,
    equal: bool,
    value: String,
}

/// The fields that objects of a kind can be selected by, as dotted paths. Whoever keeps only these fields of an object
/// (and, for `source`, `source.component` and `reportingComponent`) can still match selectors against it.
pub fn selectable(kind: &Kind) -> &'static [&'static str] {
    match (kind.group, kind.kind) {
        ("", "Pod") => &[
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "Node") => &["metadata.name", "spec.unschedulable"],
        ("", "Namespace") => &["metadata.name", "status.phase"],
        ("", "Secret") => &["metadata.name", "metadata.namespace", "type"],
        ("", "Service") => &[
            "metadata.name",
            "metadata.namespace",
            "spec.clusterIP",
            "spec.type",
        ],
        ("", "Event") => CORE_EVENT,
        ("events.k8s.io", "Event") => NEW_EVENT,
        ("apps", "ReplicaSet") => &["metadata.name", "metadata.namespace", "status.replicas"],
        _ if !kind.namespaced => &["metadata.name"],
        _ => &["metadata.name", "metadata.namespace"],
    }
}

const CORE_EVENT: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

const NEW_EVENT: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

impl FieldSelector {
    /// Reads the `fieldSelector` parameter. 400 for a broken one, and for fields that the kind can't be selected by.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, ApiError> {
        let terms = split_terms(text)
            .into_iter()
            .filter(|term| !term.is_empty())
            .map(|term| Term::parse(kind, text, &term))
            .collect::<Result<_, _>>()?;
        Ok(FieldSelector { terms })
    }

    /// Whether the object, in the form of the kind that the selector was parsed for, fulfils every comparison.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms
            .iter()
            .all(|term| (field_text(object, term) == term.value) == term.equal)
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `field` must have, if the selector asks for one: a list by `metadata.name` is a get, and pods by
    /// `spec.nodeName` can be served from an index.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|t| t.equal && t.field == field)
            .map(|t| t.value.as_str())
    }
}

impl Term {
    fn parse(kind: &Kind, selector: &str, term: &str) -> Result<Self, ApiError> {
        let broken = || {
            ApiError::bad_request(format!(
                "invalid selector: '{selector}'; can't understand '{term}'"
            ))
        };
        let at = term.find(['=', '!']).ok_or_else(broken)?;
        let (field, rest) = term.split_at(at);
        let (equal, value) = match rest {
            _ if rest.starts_with("!=") => (false, &rest[2..]),
            _ if rest.starts_with("==") => (true, &rest[2..]),
            _ if rest.starts_with('=') => (true, &rest[1..]),
            _ => return Err(broken()),
        };
        let value = unescape(value).ok_or_else(broken)?;
        let field = field.trim();
        let field = canonical(kind, field)
            .ok_or_else(|| ApiError::bad_request(format!("field label not supported: {field}")))?;
        let pointer = format!("/{}", field.replace('.', "/"));
        Ok(Term {
            field,
            pointer,
            equal,
            value,
        })
    }
}

/// The field as [`selectable`] names it. `name` is an old alias for namespaces' names.
fn canonical(kind: &Kind, field: &str) -> Option<&'static str> {
    let field = match (kind.kind, field) {
        ("Namespace", "name") => "metadata.name",
        ("Pod", "spec.host") => "spec.nodeName",
        (_, field) => field,
    };
    selectable(kind)
        .iter()
        .copied()
        .find(|known| *known == field)
}

/// What is compared: texts as they are, other values in print, false and 0 for what is missing there.
fn field_text<'a>(object: &'a Value, term: &Term) -> Cow<'a, str> {
    if term.field == "source" {
        return Cow::Borrowed(match text_at(object, "/source/component") {
            "" => text_at(object, "/reportingComponent"),
            component => component,
        });
    }
    match object.pointer(&term.pointer) {
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(value) if !value.is_null() => Cow::Owned(value.to_string()),
        _ => Cow::Borrowed(match term.field {
            "spec.unschedulable" | "spec.hostNetwork" => "false",
            "status.replicas" => "0",
            _ => "",
        }),
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match terms.last_mut() {
            Some(term) if escaped || c != ',' => term.push(c),
            _ => terms.push(String::new()),
        }
        escaped = c == '\\' && !escaped;
    }
    terms
}

/// Takes the backslashes off `\\`, `\,` and `\=`. None for other escapes and bare special characters.
fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('\\' | ',' | '=') => plain.push(c),
                _ => return None,
            },
            ',' | '=' => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    #[test]
    fn selects_pods_by_their_fields() {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"nodeName": "node1"},
            "status": {"phase": "Running"},
        });
        for (text, expected) in [
            ("", true),
            ("metadata.name=web", true),
            ("metadata.name==web,spec.nodeName=node1", true),
            ("spec.nodeName!=node1", false),
            ("status.phase!=Failed,status.phase!=Succeeded", true),
            ("spec.hostNetwork=false", true),
            ("status.podIP=", true),
        ] {
            let selector = FieldSelector::parse(&kinds::POD, text).expect(text);
            assert_eq!(selector.matches(&pod), expected, "{text}");
        }
        let selector = FieldSelector::parse(&kinds::POD, "spec.nodeName=node1").expect("valid");
        assert_eq!(selector.exact("spec.nodeName"), Some("node1"));
        assert_eq!(selector.exact("metadata.name"), None);
    }

    #[test]
    fn selects_events_by_source() {
        let event = json!({"source": {"component": "kubelet"}, "involvedObject": {"uid": "u1"}});
        let selector = FieldSelector::parse(&kinds::EVENT, "source=kubelet,involvedObject.uid=u1");
        assert!(selector.expect("valid").matches(&event));
    }

    #[test]
    fn escapes_and_errors() {
        let selector = FieldSelector::parse(&kinds::SECRET, r"type=a\,b\=c").expect("valid");
        assert!(selector.matches(&json!({"type": "a,b=c"})));
        let error = FieldSelector::parse(&kinds::POD, "spec.foo=x").expect_err("unknown field");
        assert_eq!(error.message, "field label not supported: spec.foo");
        for text in [
            "metadata.name",
            "a~b",
            "metadata.name=a=b",
            r"metadata.name=a\b",
        ] {
            assert_eq!(
                FieldSelector::parse(&kinds::POD, text)
                    .expect_err(text)
                    .code,
                400
            );
        }
    }
}
