//! Label selectors, as text (`app=web,tier in (a,b),!canary`) and as `spec.selector` objects.

use serde_json::Value;

use crate::ApiError;

/// Requirements that must all hold; none selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// The requirements.
    pub requirements: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold.
    pub operator: Operator,
    /// Values to compare with, sorted; empty for `Exists` and `NotExists`.
    pub values: Vec<String>,
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// One of the values (`=`, `==` and `in`).
    In,
    /// None of the values, or no such label (`!=` and `notin`).
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    NotExists,
    /// An integer above the value.
    GreaterThan,
    /// An integer below the value.
    LessThan,
}

impl LabelSelector {
    /// Reads the `labelSelector` parameter; an empty text selects everything. 400 for a broken one.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        todo!("{text}")
    }

    /// Reads a meta/v1 LabelSelector (`matchLabels`, `matchExpressions`). An empty one selects everything; the
    /// caller decides what a missing one means.
    pub fn from_object(selector: &Value) -> Result<Self, ApiError> {
        todo!("{selector}")
    }

    /// Whether the object's `metadata.labels` fulfil every requirement.
    pub fn matches(&self, object: &Value) -> bool {
        todo!("{object}")
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}
