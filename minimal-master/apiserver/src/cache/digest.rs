//! The few fields of an object by which it can be selected, picked out of its text without building the rest.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use sluice_api::Kind;

/// Which fields to pick: inner nodes descend, leaves take the whole value.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(&'static str, Fields)>);

impl Fields {
    fn add(&mut self, path: &'static str) {
        let mut node = self;
        for part in path.split('.') {
            let index = node
                .0
                .iter()
                .position(|(name, _)| *name == part)
                .unwrap_or_else(|| {
                    node.0.push((part, Fields::default()));
                    node.0.len() - 1
                });
            node = &mut node.0[index].1;
        }
    }

    fn child(&self, name: &str) -> Option<&Fields> {
        self.0
            .iter()
            .find(|(field, _)| *field == name)
            .map(|(_, fields)| fields)
    }
}

const COMMON: &[&str] = &["metadata.name", "metadata.namespace", "metadata.labels"];

/// The fields of a kind that selectors may name (upstream's field label conversion functions).
pub(crate) fn selectable(kind: &Kind) -> Fields {
    let own: &[&str] = match kind.storage {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "events") => &[
            "involvedObject",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("apps", "replicasets") => &["status.replicas"],
        _ => &[],
    };
    let mut fields = Fields::default();
    COMMON.iter().chain(own).for_each(|path| fields.add(path));
    fields
}

/// The picked fields of an object's text, as an object of the same shape.
pub(crate) fn pick(text: &[u8], fields: &Fields) -> Value {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    Pick(fields)
        .deserialize(&mut deserializer)
        .unwrap_or(Value::Null)
}

struct Pick<'a>(&'a Fields);

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.0.0.is_empty() {
            true => serde::Deserialize::deserialize(deserializer),
            false => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut picked = Map::new();
        while let Some(name) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            match self.0.child(&name) {
                Some(fields) => {
                    let value = map.next_value_seed(Pick(fields))?;
                    picked.insert(name.into_owned(), value);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(picked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sluice_api::kinds;

    #[test]
    fn picks_only_what_can_be_selected_by() {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"a": "b"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "conditions": []},
        });
        let picked = pick(pod.to_string().as_bytes(), &selectable(&kinds::POD));
        let expected = json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running"},
        });
        assert_eq!(picked, expected);
    }
}
