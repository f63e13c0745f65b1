//! DeleteOptions, from a DELETE's body and query.

use serde_json::Value;
use sluice_api::schema::{self, FieldValidation};
use sluice_api::{ApiError, kinds};

use crate::body;
use crate::query::Query;

/// What happens to the objects that an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are deleted after it.
    Background,
    /// They are deleted before it.
    Foreground,
    /// They stay.
    Orphan,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub(super) grace: Option<i64>,
    pub(super) propagation: Option<Propagation>,
    pub(super) uid: Option<String>,
    pub(super) resource_version: Option<String>,
    pub(super) dry_run: bool,
}

impl DeleteOptions {
    /// The body counts where both name an option.
    pub(super) fn read(
        body: &[u8],
        content_type: Option<&str>,
        query: &Query,
    ) -> Result<Self, ApiError> {
        let mut options = Self {
            grace: query.number("gracePeriodSeconds")?,
            propagation: propagation(query.get("propagationPolicy"), orphan_flag(query))?,
            dry_run: query.dry_run()?,
            ..Self::default()
        };
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(options);
        }
        let mut body = body::parse(body, content_type)?;
        schema::decode(&kinds::DELETE_OPTIONS, &mut body, FieldValidation::Ignore)?;
        options.add(&body)?;
        Ok(options)
    }

    fn add(&mut self, body: &Value) -> Result<(), ApiError> {
        let text = |field: &Value| {
            field
                .as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        self.grace = body["gracePeriodSeconds"].as_i64().or(self.grace);
        let policy = body["propagationPolicy"].as_str();
        self.propagation =
            propagation(policy, body["orphanDependents"].as_bool())?.or(self.propagation);
        self.uid = text(&body["preconditions"]["uid"]);
        self.resource_version = text(&body["preconditions"]["resourceVersion"]);
        if let Some(values) = body["dryRun"].as_array() {
            if values.iter().any(|value| value != "All") {
                return Err(ApiError::bad_request(
                    "dryRun: the only supported value is \"All\"",
                ));
            }
            self.dry_run |= !values.is_empty();
        }
        Ok(())
    }
}

fn orphan_flag(query: &Query) -> Option<bool> {
    query
        .get("orphanDependents")
        .map(|_| query.flag("orphanDependents"))
}

fn propagation(
    policy: Option<&str>,
    orphan: Option<bool>,
) -> Result<Option<Propagation>, ApiError> {
    match (policy, orphan) {
        (Some(_), Some(_)) => Err(ApiError::bad_request(
            "orphanDependents and deletionPropagation cannot be both set",
        )),
        (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) => Ok(Some(Propagation::Background)),
        (None | Some(""), None) => Ok(None),
        (Some("Background"), None) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some("Orphan"), None) => Ok(Some(Propagation::Orphan)),
        (Some(other), None) => Err(ApiError::bad_request(format!(
            "propagationPolicy: Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
        ))),
    }
}
