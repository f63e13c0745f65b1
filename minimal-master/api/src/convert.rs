//! Kinds that show the same stored objects under two group versions: core/v1 and events.k8s.io/v1 Events.

use serde_json::Value;

use crate::{Kind, kinds};

/// Fields by their names in events.k8s.io/v1 and in core/v1. Those with equal names need no mention.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedSource", "source"),
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
];

/// Turns an object of `kind` into its stored form (core/v1 Event). Other kinds are stored as they are.
pub fn to_storage(kind: &Kind, object: &mut Value) {
    if *kind == kinds::EVENTS_EVENT {
        rename(object, EVENT_FIELDS, "v1");
    }
}

/// Turns a stored object into the form of `kind`. Other kinds are served as they are.
pub fn from_storage(kind: &Kind, object: &mut Value) {
    if *kind == kinds::EVENTS_EVENT {
        rename(
            object,
            EVENT_FIELDS.map(|(new, core)| (core, new)),
            "events.k8s.io/v1",
        );
    }
}

fn rename(object: &mut Value, fields: [(&str, &str); 7], api_version: &str) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    for (from, to) in fields {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
    map.insert("apiVersion".to_owned(), Value::from(api_version));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_survives_both_ways() {
        let event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": "web.1", "namespace": "default"},
            "eventTime": "2026-01-02T03:04:05.000006Z",
            "note": "Started container",
            "reason": "Started",
            "regarding": {"kind": "Pod", "name": "web"},
            "reportingController": "kubelet",
            "reportingInstance": "node1",
            "type": "Normal",
        });
        let mut stored = event.clone();
        to_storage(&kinds::EVENTS_EVENT, &mut stored);
        assert_eq!(stored["apiVersion"], "v1");
        assert_eq!(stored["message"], "Started container");
        assert_eq!(stored["involvedObject"]["name"], "web");
        assert_eq!(stored["reportingComponent"], "kubelet");
        from_storage(&kinds::EVENTS_EVENT, &mut stored);
        assert_eq!(stored, event);
    }
}
