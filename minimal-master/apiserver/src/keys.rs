//! Where objects are in the store: `/registry/PLURAL[/NAMESPACE]/NAME`, with the group in front of the plural
//! (`/registry/GROUP/PLURAL/...`) for all groups but the core one.

use bytes::Bytes;
use sluice_api::{Kind, kinds};

/// The prefix of everything.
pub(crate) const ROOT: &[u8] = b"/registry/";

/// The prefix of a kind's objects, or of those in one namespace. Ends with a slash.
pub(crate) fn prefix(kind: &Kind, namespace: Option<&str>) -> Bytes {
    let (group, plural) = kind.storage;
    let mut key = String::from("/registry/");
    if !group.is_empty() {
        key.push_str(group);
        key.push('/');
    }
    key.push_str(plural);
    key.push('/');
    if let Some(namespace) = namespace.filter(|_| kind.namespaced) {
        key.push_str(namespace);
        key.push('/');
    }
    key.into()
}

/// An object's key.
pub(crate) fn object(kind: &Kind, namespace: &str, name: &str) -> Bytes {
    let mut key = prefix(kind, Some(namespace)).to_vec();
    key.extend_from_slice(name.as_bytes());
    key.into()
}

/// The group and plural that a key belongs to; `None` for keys of no served kind.
pub(crate) fn resource(key: &[u8]) -> Option<(&'static str, &'static str)> {
    let rest = key.strip_prefix(ROOT)?;
    let mut parts = rest.split(|byte| *byte == b'/');
    let (first, second) = (parts.next()?, parts.next()?);
    kinds::all()
        .iter()
        .map(|kind| kind.storage)
        .find(|(group, plural)| match *group {
            "" => plural.as_bytes() == first,
            group => group.as_bytes() == first && plural.as_bytes() == second,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_their_resource() {
        for kind in kinds::all() {
            let key = object(kind, "default", "x");
            assert_eq!(resource(&key), Some(kind.storage), "{key:?}");
            assert!(key.starts_with(&prefix(kind, None)));
        }
        assert_eq!(
            &object(&kinds::POD, "ns", "web")[..],
            b"/registry/pods/ns/web"
        );
        assert_eq!(&object(&kinds::NODE, "", "n1")[..], b"/registry/nodes/n1");
        assert_eq!(
            &object(&kinds::LEASE, "a", "b")[..],
            b"/registry/coordination.k8s.io/leases/a/b"
        );
        assert_eq!(resource(b"/registry/unheard/of"), None);
    }
}
