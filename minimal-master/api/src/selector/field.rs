//! Field selectors (`spec.nodeName=node1,status.phase!=Failed`).

use serde_json::Value;

use crate::{ApiError, Kind};

/// Comparisons that must all hold; none selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// Reads the `fieldSelector` parameter. 400 for a broken one, and for fields that the kind can't be selected by.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, ApiError> {
        todo!("{kind:?} {text}")
    }

    /// Whether the object fulfils every comparison.
    pub fn matches(&self, object: &Value) -> bool {
        todo!("{object}")
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
