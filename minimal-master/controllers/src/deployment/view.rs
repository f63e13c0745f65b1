//! A Deployment and its ReplicaSets, sorted by their part in the rollout.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, ReplicaSet},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{HASH_LABEL, annotations};

/// See the module's documentation.
pub struct View<'a> {
    /// The deployment.
    pub deployment: &'a Deployment,
    /// Its spec.
    pub spec: DeploymentSpec,
    /// The set with the deployment's current template.
    pub new_set: Option<Arc<ReplicaSet>>,
    /// All others, the oldest first.
    pub old_sets: Vec<Arc<ReplicaSet>>,
}

impl<'a> View<'a> {
    /// Sorts the sets that the deployment owns.
    pub fn new(deployment: &'a Deployment, mut sets: Vec<Arc<ReplicaSet>>) -> Self {
        let spec = deployment.spec.clone().unwrap_or_default();
        sets.sort_by_key(|set| {
            let created = set.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (created, set.metadata.name.clone())
        });
        let new = sets.iter().position(|set| {
            set.spec
                .as_ref()
                .and_then(|s| s.template.as_ref())
                .is_some_and(|t| same_template(t, &spec.template))
        });
        let new_set = new.map(|at| sets.remove(at));
        Self {
            deployment,
            spec,
            new_set,
            old_sets: sets,
        }
    }

    /// Old sets, then the new one.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old_sets.iter().chain(&self.new_set)
    }

    /// Sets that are asked for pods.
    pub fn active(&self) -> Vec<&Arc<ReplicaSet>> {
        self.all().filter(|set| replicas(set) > 0).collect()
    }

    /// How many pods the deployment wants.
    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    /// How many pods all sets together are asked for.
    pub fn total(&self) -> i32 {
        self.all().map(|set| replicas(set)).sum()
    }

    /// `spec.paused`.
    pub fn paused(&self) -> bool {
        self.spec.paused.unwrap_or(false)
    }

    /// Not paused any more, but the status still says so.
    pub fn resumed(&self) -> bool {
        let conditions = self
            .deployment
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten());
        let paused = conditions
            .into_iter()
            .any(|c| c.type_ == "Progressing" && c.reason.as_deref() == Some("DeploymentPaused"));
        paused && !self.paused()
    }

    /// The strategy is Recreate.
    pub fn recreates(&self) -> bool {
        let strategy = self.spec.strategy.as_ref();
        strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
    }

    /// Whether `spec.replicas` changed since the sets were last scaled: their share changes, not the template.
    pub fn was_scaled(&self) -> bool {
        let differs = |set: &&Arc<ReplicaSet>| {
            annotations::desired(&set.metadata).is_some_and(|desired| desired != self.replicas())
        };
        self.active().iter().any(differs)
    }

    /// Whether a set was made from the current template.
    pub fn has_template(&self, set: &ReplicaSet) -> bool {
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template.is_some_and(|template| same_template(template, &self.spec.template))
    }

    /// The revision of the new set: one more than that of any old one.
    pub fn next_revision(&self) -> u64 {
        let revisions = self
            .old_sets
            .iter()
            .map(|set| annotations::revision(&set.metadata));
        revisions.max().unwrap_or(0) + 1
    }

    /// `status.collisionCount`.
    pub fn collision_count(&self) -> i32 {
        let status = self.deployment.status.as_ref();
        status.and_then(|s| s.collision_count).unwrap_or(0)
    }

    /// How many pods more than wanted may exist during a rollout.
    pub fn max_surge(&self) -> i32 {
        self.limits().0
    }

    /// How many pods fewer than wanted may be available during a rollout.
    pub fn max_unavailable(&self) -> i32 {
        self.limits().1.min(self.replicas())
    }

    fn limits(&self) -> (i32, i32) {
        if self.recreates() {
            return (0, 0);
        }
        let rolling = self
            .spec
            .strategy
            .as_ref()
            .and_then(|s| s.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".into());
        let surge = rolling
            .and_then(|r| r.max_surge.as_ref())
            .unwrap_or(&quarter);
        let unavailable = rolling
            .and_then(|r| r.max_unavailable.as_ref())
            .unwrap_or(&quarter);
        let surge = resolve(surge, self.replicas(), true);
        let unavailable = resolve(unavailable, self.replicas(), false);
        // Both zero, by rounding, would never move.
        if surge == 0 && unavailable == 0 {
            (0, 1)
        } else {
            (surge, unavailable)
        }
    }
}

/// `spec.replicas` of a set.
pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// `status.availableReplicas` of a set.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|s| s.available_replicas)
        .unwrap_or(0)
}

fn resolve(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent * i64::from(total);
            let share = if up {
                (product + 99).div_euclid(100)
            } else {
                product.div_euclid(100)
            };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

/// Equal but for the hash label that the controller itself adds.
fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    without_hash(a) == without_hash(b)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let meta = template.metadata.get_or_insert_default();
    meta.creation_timestamp = None;
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
    }
    meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
    template
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surge_rounds_up_and_unavailable_down_but_never_both_to_zero() {
        let percent = |text: &str| IntOrString::String(text.into());
        assert_eq!(resolve(&percent("25%"), 6, true), 2);
        assert_eq!(resolve(&percent("25%"), 6, false), 1);
        assert_eq!(resolve(&IntOrString::Int(3), 6, true), 3);
        let deployment: Deployment = serde_json::from_value(serde_json::json!({"spec": {
            "replicas": 3, "selector": {}, "template": {},
            "strategy": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": "10%"}},
        }}))
        .unwrap();
        let view = View::new(&deployment, Vec::new());
        assert_eq!((view.max_surge(), view.max_unavailable()), (0, 1));
    }
}
