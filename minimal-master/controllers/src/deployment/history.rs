//! Old ReplicaSets that are kept for rollback, and those beyond the limit.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{
    annotations,
    view::{View, replicas},
};

/// Old, empty sets beyond `revisionHistoryLimit`, the lowest revision first.
pub fn surplus(view: &View<'_>) -> Vec<Arc<ReplicaSet>> {
    let limit = view.spec.revision_history_limit.unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else {
        return Vec::new();
    };
    let alive = |set: &&Arc<ReplicaSet>| set.metadata.deletion_timestamp.is_none();
    let mut old: Vec<_> = view.old_sets.iter().filter(alive).cloned().collect();
    old.sort_by_key(|set| annotations::revision(&set.metadata));
    old.truncate(old.len().saturating_sub(limit));
    old.retain(|set| is_empty(set));
    old
}

/// Nothing runs, and the status is not older than the spec that says so.
fn is_empty(set: &ReplicaSet) -> bool {
    let status = set.status.as_ref();
    let observed = status.and_then(|s| s.observed_generation).unwrap_or(0);
    replicas(set) == 0
        && status.is_none_or(|s| s.replicas == 0)
        && observed >= set.metadata.generation.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_empty_sets_beyond_the_limit_go_and_the_oldest_first() {
        let set = |revision: u32, replicas: i32| -> Arc<ReplicaSet> {
            let value = json!({
                "metadata": {"name": format!("r{revision}"),
                    "annotations": {annotations::REVISION: revision.to_string()}},
                "spec": {"replicas": replicas, "selector": {}, "template": {"metadata": {"labels": {"v": "x"}}}},
                "status": {"replicas": replicas},
            });
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let deployment: Deployment = serde_json::from_value(json!({
            "spec": {"selector": {}, "template": {}, "revisionHistoryLimit": 2},
        }))
        .unwrap();
        let view = View::new(
            &deployment,
            vec![set(10, 0), set(9, 0), set(2, 0), set(1, 1)],
        );
        let names: Vec<_> = surplus(&view)
            .iter()
            .filter_map(|s| s.metadata.name.clone())
            .collect();
        assert_eq!(names, ["r2"]);
    }
}
