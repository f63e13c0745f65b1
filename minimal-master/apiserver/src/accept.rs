//! Which form of an answer the client wants.

use http::HeaderMap;
use http::header::ACCEPT;
use sluice_api::ApiError;

/// The form of objects in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The objects as they are.
    Object,
    /// A meta.k8s.io Table of this version.
    Table(&'static str),
    /// A PartialObjectMetadata or a list of them.
    Metadata,
}

const ACCEPTED: &[&str] = &["application/json"];

/// The first form that the `Accept` header names and that is served; 406 when there is none.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form, ApiError> {
    let mut ranges = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|range| !range.is_empty())
        .peekable();
    if ranges.peek().is_none() {
        return Ok(Form::Object);
    }
    ranges
        .find_map(range)
        .ok_or_else(|| ApiError::not_acceptable(ACCEPTED))
}

/// Whether the client prefers aggregated discovery documents.
pub(crate) fn aggregated_discovery(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let first = accepted.split(',').map(str::trim).find_map(|range| {
        let parameters = Parameters::parse(range);
        match parameters.value("g") {
            Some("apidiscovery.k8s.io") => (parameters.value("v") == Some("v2")).then_some(true),
            _ => parameters.is_json().then_some(false),
        }
    });
    first == Some(true)
}

fn range(text: &str) -> Option<Form> {
    let parameters = Parameters::parse(text);
    if !parameters.is_json() {
        return None;
    }
    let version = parameters.value("v");
    match (parameters.value("as"), parameters.value("g")) {
        (None, _) => Some(Form::Object),
        (Some("Table"), Some("meta.k8s.io")) => match version {
            Some("v1") => Some(Form::Table("meta.k8s.io/v1")),
            Some("v1beta1") => Some(Form::Table("meta.k8s.io/v1beta1")),
            _ => None,
        },
        (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io")) => {
            matches!(version, Some("v1" | "v1beta1")).then_some(Form::Metadata)
        }
        _ => None,
    }
}

struct Parameters<'a> {
    media_type: &'a str,
    rest: &'a str,
}

impl<'a> Parameters<'a> {
    fn parse(text: &'a str) -> Self {
        let (media_type, rest) = text.split_once(';').unwrap_or((text, ""));
        Self {
            media_type: media_type.trim(),
            rest,
        }
    }

    fn is_json(&self) -> bool {
        matches!(
            self.media_type,
            "application/json" | "application/*" | "*/*"
        )
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        let pairs = self.rest.split(';').filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(key, value)| (key.trim(), value.trim()))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        headers
    }

    #[test]
    fn takes_the_first_form_that_is_served() {
        let cases = [
            ("application/json", Form::Object),
            ("*/*", Form::Object),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Form::Object,
            ),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Form::Table("meta.k8s.io/v1"),
            ),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
                Form::Metadata,
            ),
            (
                "application/json; as=Unknown; v=v1; g=meta.k8s.io, application/json",
                Form::Object,
            ),
        ];
        for (accept, expected) in cases {
            assert_eq!(form(&headers(accept)).unwrap(), expected, "{accept}");
        }
        assert_eq!(form(&HeaderMap::new()).unwrap(), Form::Object);
        assert_eq!(
            form(&headers("application/vnd.kubernetes.protobuf"))
                .unwrap_err()
                .code,
            406
        );
    }

    #[test]
    fn aggregated_discovery_is_served_where_it_comes_first() {
        let new = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        assert!(aggregated_discovery(&headers(&format!(
            "{new},application/json"
        ))));
        assert!(!aggregated_discovery(&headers(&format!(
            "application/json,{new}"
        ))));
        assert!(!aggregated_discovery(&headers(
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
        )));
    }
}
