//! An object that may not have the shape of its kind.
//!
//! One object that cannot be decoded must not fail the list or the watch that it comes in, so each is
//! decoded by itself. Fields that only humans and managers read are dropped before.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::planner::ObjectName;

/// An object of kind `K`, or why it is none.
#[derive(Clone, Debug)]
pub struct Guarded<K> {
    object: Result<K, String>,
    /// Where `object` is none: as much as could be read.
    meta: ObjectMeta,
}

impl<K: Resource> Guarded<K> {
    /// The object, or what is wrong with it.
    pub fn object(&self) -> Result<&K, &str> {
        self.object.as_ref().map_err(String::as_str)
    }

    /// The object's name.
    pub fn name(&self) -> ObjectName {
        let meta = self.meta();
        ObjectName::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("managedFields");
        }
        let object = K::deserialize(&value).map_err(|error| error.to_string());
        let meta = if object.is_err() {
            meta(&value)
        } else {
            ObjectMeta::default()
        };
        Ok(Self { object, meta })
    }
}

/// What the watch needs to know of an object that is none.
fn meta(value: &Value) -> ObjectMeta {
    let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
    ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        resource_version: text("resourceVersion"),
        ..ObjectMeta::default()
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.object.as_ref().map_or(&self.meta, Resource::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object
            .as_mut()
            .map_or(&mut self.meta, Resource::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::core::ObjectList;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_misshapen_object_does_not_fail_its_list() {
        let list = json!({
            "apiVersion": "v1",
            "kind": "ServiceList",
            "metadata": {"resourceVersion": "7"},
            "items": [
                {"metadata": {"namespace": "a", "name": "bad", "resourceVersion": "5"}, "spec": {"ports": "none"}},
                {"metadata": {"namespace": "a", "name": "good", "managedFields": [{"manager": "x"}]}},
            ],
        });
        let list: ObjectList<Guarded<Service>> = serde_json::from_str(&list.to_string()).unwrap();
        let [bad, good] = &list.items[..] else {
            panic!()
        };
        assert!(bad.object().unwrap_err().contains("invalid type"));
        assert_eq!(bad.name().as_str(), "a/bad");
        assert_eq!(bad.meta().resource_version.as_deref(), Some("5"));
        assert_eq!(good.name().as_str(), "a/good");
        assert_eq!(good.meta().managed_fields, None);
    }
}
