//! What a path names: a kind, a namespace, an object, a subresource.

use http::Method;
use sluice_api::ApiError;
use sluice_api::kinds::{self, Kind};

use crate::query::percent_decode;

/// A resource path, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: &'static Kind,
    /// Empty for kinds without namespaces, and for lists across all namespaces.
    pub(crate) namespace: String,
    /// Empty for collections.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
}

impl Target {
    /// Reads `/api/v1/...` or `/apis/GROUP/VERSION/...`; 404 for what is not served.
    pub(crate) fn parse(path: &str) -> Result<Self, ApiError> {
        let parts: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(percent_decode)
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts[..] {
            ["api", version, ref rest @ ..] => Self::of(("", version), rest),
            ["apis", group, version, ref rest @ ..] => Self::of((group, version), rest),
            _ => None,
        }
        .ok_or_else(ApiError::no_such_path)
    }

    fn of(group_version: (&str, &str), rest: &[&str]) -> Option<Self> {
        // A namespace is an object too, with subresources of its own.
        match *rest {
            ["namespaces", namespace, plural, ref rest @ ..]
                if !matches!(plural, "status" | "finalize") =>
            {
                let kind = lookup(group_version, plural).filter(|kind| kind.namespaced)?;
                Self::within(kind, namespace, rest)
            }
            [plural, ref rest @ ..] => {
                let kind = lookup(group_version, plural)?;
                let collection = rest.is_empty();
                (collection || !kind.namespaced).then(|| Self::within(kind, "", rest))?
            }
            [] => None,
        }
    }

    fn within(kind: &'static Kind, namespace: &str, rest: &[&str]) -> Option<Self> {
        let (name, subresource) = match *rest {
            [] => ("", ""),
            [name] => (name, ""),
            [name, subresource] => (name, subresource),
            _ => return None,
        };
        let target = Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        };
        target.is_served().then_some(target)
    }

    fn is_served(&self) -> bool {
        self.subresource.is_empty()
            || self.kind.subresource(&self.subresource).is_some()
            || (self.kind.plural, self.subresource.as_str()) == ("serviceaccounts", "token")
    }

    /// The verb of a request, as upstream names it in discovery, messages and metrics.
    pub(crate) fn verb(&self, method: &Method, watch: bool) -> Result<&'static str, ApiError> {
        let on_object = !self.name.is_empty();
        Ok(match (method.as_str(), on_object) {
            ("GET" | "HEAD", true) => "get",
            ("GET" | "HEAD", false) if watch => "watch",
            ("GET" | "HEAD", false) => "list",
            ("POST", false) => "create",
            ("POST", true) if !self.subresource.is_empty() => "create",
            ("PUT", true) => "update",
            ("PATCH", true) => "patch",
            ("DELETE", true) if self.subresource.is_empty() => "delete",
            ("DELETE", false) => "deletecollection",
            _ => return Err(ApiError::method_not_allowed()),
        })
    }
}

fn lookup((group, version): (&str, &str), plural: &str) -> Option<&'static Kind> {
    kinds::lookup(group, version, plural)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Option<(&'static str, String, String, String)> {
        let target = Target::parse(path).ok()?;
        Some((
            target.kind.plural,
            target.namespace,
            target.name,
            target.subresource,
        ))
    }

    fn strings(
        plural: &'static str,
        rest: [&str; 3],
    ) -> Option<(&'static str, String, String, String)> {
        let [namespace, name, subresource] = rest.map(str::to_owned);
        Some((plural, namespace, name, subresource))
    }

    #[test]
    fn takes_paths_apart() {
        let cases = [
            ("/api/v1/pods", strings("pods", ["", "", ""])),
            ("/api/v1/namespaces/a/pods", strings("pods", ["a", "", ""])),
            (
                "/api/v1/namespaces/a/pods/b",
                strings("pods", ["a", "b", ""]),
            ),
            (
                "/api/v1/namespaces/a/pods/b/log",
                strings("pods", ["a", "b", "log"]),
            ),
            ("/api/v1/namespaces", strings("namespaces", ["", "", ""])),
            ("/api/v1/namespaces/a", strings("namespaces", ["", "a", ""])),
            (
                "/api/v1/namespaces/a/finalize",
                strings("namespaces", ["", "a", "finalize"]),
            ),
            (
                "/api/v1/nodes/n1/status",
                strings("nodes", ["", "n1", "status"]),
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                strings("deployments", ["a", "d", "scale"]),
            ),
            (
                "/api/v1/namespaces/a/serviceaccounts/s/token",
                strings("serviceaccounts", ["a", "s", "token"]),
            ),
        ];
        for (path, expected) in cases {
            assert_eq!(parts(path), expected, "{path}");
        }
    }

    #[test]
    fn refuses_what_is_not_served() {
        for path in [
            "/api/v1",
            "/api/v2/pods",
            "/api/v1/pods/web",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/pods/b/nothing",
            "/api/v1/namespaces/a/pods/b/log/more",
            "/apis/apps/v1/pods",
            "/apis/nothing.io/v1/things",
        ] {
            assert_eq!(Target::parse(path).unwrap_err().code, 404, "{path}");
        }
    }

    #[test]
    fn verbs_follow_method_and_path() {
        let object = Target::parse("/api/v1/namespaces/a/pods/b").unwrap();
        let collection = Target::parse("/api/v1/namespaces/a/pods").unwrap();
        assert_eq!(object.verb(&Method::GET, false).unwrap(), "get");
        assert_eq!(collection.verb(&Method::GET, true).unwrap(), "watch");
        assert_eq!(
            collection.verb(&Method::DELETE, false).unwrap(),
            "deletecollection"
        );
        assert_eq!(object.verb(&Method::POST, false).unwrap_err().code, 405);
        assert_eq!(collection.verb(&Method::PUT, false).unwrap_err().code, 405);
    }
}
