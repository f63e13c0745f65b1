//! Which objects belong to a controller: those it owns and selects; orphans are adopted, strays released.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use sluice_client::{ignore_not_found, labels, owner};

/// Objects sorted by what is to be done with them.
pub struct Claims<K> {
    /// Owned and selected.
    pub owned: Vec<Arc<K>>,
    /// Selected and nobody's: to be taken.
    pub adopt: Vec<Arc<K>>,
    /// Owned but not selected any more: to be let go.
    pub release: Vec<Arc<K>>,
}

/// Sorts candidates for the owner with this uid and selector. An owner being deleted adopts and releases nothing.
pub fn claim<K: Resource>(
    owner_uid: &str,
    selector: &LabelSelector,
    deleting: bool,
    candidates: Vec<Arc<K>>,
) -> Claims<K> {
    let mut claims = Claims {
        owned: Vec::new(),
        adopt: Vec::new(),
        release: Vec::new(),
    };
    for object in candidates {
        let meta = object.meta();
        let labels = meta.labels.clone().unwrap_or_default();
        // An empty selector would claim the whole namespace; validation forbids it.
        let selected = !labels::is_empty(selector) && labels::matches(selector, &labels);
        match owner::controller_uid(meta) {
            Some(uid) if uid != owner_uid => {}
            Some(_) if selected => claims.owned.push(object),
            Some(_) if !deleting => claims.release.push(object),
            None if selected && !deleting && meta.deletion_timestamp.is_none() => {
                claims.adopt.push(object)
            }
            _ => {}
        }
    }
    claims
}

/// Makes `reference` the controlling owner; false when the object is gone.
pub async fn adopt<K>(api: &Api<K>, object: &K, reference: &OwnerReference) -> kube::Result<bool>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    patch_owner(api, object, json!([reference])).await
}

/// Takes away the reference to the owner with this uid.
pub async fn release<K>(api: &Api<K>, object: &K, owner_uid: &str) -> kube::Result<bool>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    patch_owner(api, object, json!([{"$patch": "delete", "uid": owner_uid}])).await
}

async fn patch_owner<K>(
    api: &Api<K>,
    object: &K,
    references: serde_json::Value,
) -> kube::Result<bool>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let meta = object.meta();
    // The uid makes sure that a new object under the old name is left alone.
    let patch = json!({"metadata": {"uid": meta.uid, "ownerReferences": references}});
    let name = meta.name.as_deref().unwrap_or_default();
    let patched = api
        .patch(name, &PatchParams::default(), &Patch::Strategic(&patch))
        .await;
    Ok(ignore_not_found(patched)?.is_some())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(name: &str, app: &str, owner: Option<&str>, deleting: bool) -> Arc<Pod> {
        let owners = owner.map(|uid| json!([{"apiVersion": "v1", "kind": "K", "name": "n", "uid": uid, "controller": true}]));
        let deleted = deleting.then_some("2024-01-01T00:00:00Z");
        let pod = json!({"metadata": {
            "name": name, "labels": {"app": app}, "ownerReferences": owners, "deletionTimestamp": deleted,
        }});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter()
            .filter_map(|p| p.metadata.name.as_deref())
            .collect()
    }

    fn candidates() -> Vec<Arc<Pod>> {
        vec![
            pod("mine", "web", Some("me"), false),
            pod("stray", "db", Some("me"), false),
            pod("orphan", "web", None, false),
            pod("dying-orphan", "web", None, true),
            pod("foreign", "web", Some("you"), false),
            pod("other", "db", None, false),
        ]
    }

    fn web() -> LabelSelector {
        serde_json::from_value(json!({"matchLabels": {"app": "web"}})).unwrap()
    }

    #[test]
    fn orphans_are_adopted_strays_released_and_others_left_alone() {
        let claims = claim("me", &web(), false, candidates());
        assert_eq!(names(&claims.owned), ["mine"]);
        assert_eq!(names(&claims.adopt), ["orphan"]);
        assert_eq!(names(&claims.release), ["stray"]);
    }

    #[test]
    fn an_owner_being_deleted_neither_adopts_nor_releases() {
        let claims = claim("me", &web(), true, candidates());
        assert_eq!(names(&claims.owned), ["mine"]);
        assert!(claims.adopt.is_empty() && claims.release.is_empty());
    }
}
