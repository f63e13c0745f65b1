//! One step of a rolling update: the new set up by what surge allows, the old ones down by what
//! availability allows.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use sluice_client::pod;

use super::{
    scale::{self, Scaling},
    view::{View, available, replicas},
};

/// Up if possible, else down; nothing when the rollout waits for pods.
pub fn steps(view: &View<'_>) -> Vec<Scaling> {
    let Some(new) = &view.new_set else {
        return Vec::new();
    };
    let to = new_set_replicas(view);
    if replicas(new) != to {
        return vec![Scaling {
            set: new.clone(),
            to,
        }];
    }
    scale_down_old(view, new)
}

/// How many replicas the new set may be asked for now.
pub fn new_set_replicas(view: &View<'_>) -> i32 {
    let wanted = view.replicas();
    if view.recreates() {
        return wanted;
    }
    let current = view.new_set.as_ref().map_or(0, |set| replicas(set));
    if current > wanted {
        return wanted;
    }
    let room = wanted + view.max_surge() - view.total();
    current + room.clamp(0, wanted - current)
}

fn scale_down_old(view: &View<'_>, new: &ReplicaSet) -> Vec<Scaling> {
    let min_available = view.replicas() - view.max_unavailable();
    let new_unavailable = (replicas(new) - available(new)).max(0);
    let mut budget = view.total() - min_available - new_unavailable;
    let mut sizes: Vec<(&Arc<ReplicaSet>, i32)> = view
        .old_sets
        .iter()
        .map(|set| (set, replicas(set)))
        .collect();
    // Pods that serve nothing cost no availability: they go first.
    for (set, size) in &mut sizes {
        let unhealthy = (*size - available(set)).clamp(0, budget.max(0));
        *size -= unhealthy;
        budget -= unhealthy;
    }
    let all_available: i32 = view.all().map(|set| available(set)).sum();
    let mut spare = (all_available - min_available).max(0);
    for (_, size) in &mut sizes {
        let down = (*size).min(spare);
        *size -= down;
        spare -= down;
    }
    let changed = sizes
        .into_iter()
        .filter(|(set, size)| replicas(set) != *size);
    changed
        .map(|(set, to)| Scaling {
            set: set.clone(),
            to,
        })
        .collect()
}

/// Recreate: whether the old pods are all gone, so that the new set may be made.
pub fn may_create(view: &View<'_>, pods_of: &dyn Fn(&ReplicaSet) -> Vec<Arc<Pod>>) -> bool {
    let running = |set: &Arc<ReplicaSet>| pods_of(set).iter().any(|p| !pod::is_terminal(p));
    scale::empty_old(view).is_empty() && !view.old_sets.iter().any(running)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn deployment(replicas: i32, surge: i32, unavailable: i32) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "d"},
            "spec": {
                "replicas": replicas, "selector": {}, "template": {"metadata": {"labels": {"v": "new"}}},
                "strategy": {"type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            },
        }))
        .unwrap()
    }

    fn set(version: &str, replicas: i32, available: i32) -> Arc<ReplicaSet> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": version},
                "spec": {"replicas": replicas, "selector": {}, "template": {"metadata": {"labels": {"v": version}}}},
                "status": {"replicas": replicas, "availableReplicas": available},
            }))
            .unwrap(),
        )
    }

    fn sizes(deployment: &Deployment, sets: Vec<Arc<ReplicaSet>>) -> Vec<(String, i32)> {
        let view = View::new(deployment, sets);
        let steps = steps(&view).into_iter();
        steps
            .map(|s| (s.set.metadata.name.clone().unwrap(), s.to))
            .collect()
    }

    #[test]
    fn the_new_set_grows_by_the_surge_first() {
        let steps = sizes(
            &deployment(6, 2, 1),
            vec![set("old", 6, 6), set("new", 0, 0)],
        );
        assert_eq!(steps, [("new".into(), 2)]);
    }

    #[test]
    fn old_sets_shrink_only_by_what_is_available_beyond_the_minimum() {
        let steps = sizes(
            &deployment(6, 2, 1),
            vec![set("old", 6, 6), set("new", 2, 0)],
        );
        assert_eq!(steps, [("old".into(), 5)]);
        let waiting = sizes(
            &deployment(6, 2, 1),
            vec![set("old", 5, 5), set("new", 3, 0)],
        );
        assert!(waiting.is_empty());
    }

    #[test]
    fn unhealthy_old_pods_go_first() {
        let steps = sizes(
            &deployment(4, 1, 1),
            vec![set("bad", 2, 0), set("good", 2, 2), set("new", 1, 1)],
        );
        assert_eq!(steps, [("bad".into(), 0)]);
    }

    proptest! {
        /// Pods become available and go away at random; the rollout keeps its promises and ends.
        #[test]
        fn a_rollout_keeps_to_its_limits_and_ends(
            wanted in 1..12i32, surge in 0..4i32, unavailable in 0..4i32,
            order in proptest::collection::vec(any::<bool>(), 400),
        ) {
            prop_assume!(surge + unavailable > 0);
            let deployment = deployment(wanted, surge, unavailable);
            let (mut old, mut new) = ((wanted, wanted), (0, 0));
            for ready in order {
                let view = View::new(&deployment, vec![set("old", old.0, old.1), set("new", new.0, new.1)]);
                for step in steps(&view) {
                    let which = if step.set.metadata.name.as_deref() == Some("new") { &mut new } else { &mut old };
                    which.0 = step.to;
                    which.1 = which.1.min(step.to);
                }
                prop_assert!(old.0 + new.0 <= wanted + surge, "{:?} {:?}", old, new);
                prop_assert!(old.1 + new.1 >= wanted - unavailable.min(wanted), "{:?} {:?}", old, new);
                if ready && new.1 < new.0 {
                    new.1 += 1;
                }
            }
            prop_assert_eq!((old.0, new.0), (0, wanted));
        }
    }
}
