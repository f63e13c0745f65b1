//! The query of a request: decoded parameters, and the ones that every write or read shares.

use std::time::Duration;

use sluice_api::ApiError;
use sluice_store::Revision;

/// Parameters in the order they came; names may repeat (`command=ls&command=-l`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// The first value of a parameter; `None` when it is missing or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut found = self
            .0
            .iter()
            .filter(|(known, value)| known == name && !value.is_empty());
        found.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// A boolean as Go's converter reads it: `0` and `false` are false, anything else that is given is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .find(|(found, _)| found == name)
            .is_some_and(|(_, value)| !matches!(value.as_str(), "0" | "false" | "False" | "FALSE"))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::bad_request(format!(
                        "invalid value for {name}: {text:?} is not an integer"
                    ))
                })
            })
            .transpose()
    }

    /// Whether nothing is to be written: `dryRun=All` is the only value there is.
    pub(crate) fn dry_run(&self) -> Result<bool, ApiError> {
        match self
            .all("dryRun")
            .find(|value| *value != "All" && !value.is_empty())
        {
            Some(other) => Err(ApiError::bad_request(format!(
                "dryRun: Unsupported value: {other:?}: supported values: \"All\""
            ))),
            None => Ok(self.get("dryRun").is_some()),
        }
    }

    pub(crate) fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        let seconds = self
            .number("timeoutSeconds")?
            .filter(|seconds| *seconds > 0);
        Ok(seconds.map(|seconds| Duration::from_secs(seconds as u64)))
    }

    pub(crate) fn revision(&self) -> Result<Option<Revision>, ApiError> {
        self.get("resourceVersion").map(parse_revision).transpose()
    }

    /// The parameters as they go into another request's query.
    pub(crate) fn encode<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
        let mut text = String::new();
        for (name, value) in pairs {
            if !text.is_empty() {
                text.push('&');
            }
            encode(name, &mut text);
            text.push('=');
            encode(value, &mut text);
        }
        text
    }
}

/// A resourceVersion from a client.
pub(crate) fn parse_revision(text: &str) -> Result<Revision, ApiError> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: not a number"
        ))
    })
}

/// Undoes percent encoding, and `+` for a blank. What is not valid stays as it is.
fn decode(text: &str) -> String {
    percent_decode(&text.replace('+', " "))
}

pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = text
            .get(index + 1..index + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[index], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                index += 3;
            }
            (byte, _) => {
                out.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte.into());
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_repeated_and_encoded_parameters() {
        let query = Query::parse("command=sh&command=-c&command=a+b%26c&watch=1&x&e=%zz%");
        assert_eq!(
            query.all("command").collect::<Vec<_>>(),
            ["sh", "-c", "a b&c"]
        );
        assert!(query.flag("watch") && query.flag("x") && !query.flag("y"));
        assert_eq!(query.get("e"), Some("%zz%"));
        assert_eq!(query.get("x"), None);
    }

    #[test]
    fn encoding_comes_back() {
        let text = Query::encode([("a b", "ü&=+%"), ("c", "")]);
        let query = Query::parse(&text);
        assert_eq!(query.get("a b"), Some("ü&=+%"));
    }

    #[test]
    fn dry_run_knows_one_value() {
        assert!(Query::parse("dryRun=All").dry_run().unwrap());
        assert!(!Query::parse("").dry_run().unwrap());
        assert_eq!(Query::parse("dryRun=Some").dry_run().unwrap_err().code, 400);
    }
}
