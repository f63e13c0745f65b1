//! Which objects of a resource a list, a watch or a collective deletion is about.

use serde_json::Value;
use sluice_api::selector::{FieldSelector, LabelSelector};
use sluice_api::{ApiError, Kind, convert};

use crate::cache::Entry;
use crate::query::Query;

/// Label and field selectors of a request.
pub(super) struct Selection {
    kind: &'static Kind,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(super) fn parse(kind: &'static Kind, query: &Query) -> Result<Self, ApiError> {
        Ok(Self {
            kind,
            labels: LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?,
            fields: FieldSelector::parse(kind, query.get("fieldSelector").unwrap_or_default())?,
        })
    }

    pub(super) fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that is selected, if the selector asks for one.
    pub(super) fn name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    pub(super) fn matches(&self, entry: &Entry) -> bool {
        if !self.labels.matches(&entry.digest) {
            return false;
        }
        self.fields.is_empty()
            || match self.is_converted() {
                true => self.fields.matches(&self.converted(entry)),
                false => self.fields.matches(&entry.digest),
            }
    }

    /// Whether a whole object is selected.
    pub(super) fn matches_object(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    fn is_converted(&self) -> bool {
        (self.kind.group, self.kind.plural) != self.kind.storage
    }

    fn converted(&self, entry: &Entry) -> Value {
        let mut object = serde_json::from_slice(&entry.body).unwrap_or_default();
        convert::from_storage(self.kind, &mut object);
        object
    }
}
