//! What a Deployment reports: counts, availability and progress.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSetStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::view::{View, replicas};

/// What the sync did, as far as the Progressing condition is concerned.
#[derive(Clone, Debug, PartialEq)]
pub enum Rollout {
    /// Scaled or nothing: progress is what it was.
    Unchanged,
    /// A step of the rollout, or waiting for one.
    Progress,
    /// A new set was made.
    Created(String),
    /// No new set could be made.
    CreateFailed(String),
    /// The rollout is paused.
    Paused,
    /// The rollout was paused until now.
    Resumed,
}

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// The status that the sets amount to.
pub fn compute(view: &View<'_>, rollout: &Rollout, now: Timestamp) -> DeploymentStatus {
    let before = view.deployment.status.clone().unwrap_or_default();
    let sum = |field: fn(&ReplicaSetStatus) -> i32| -> i32 {
        view.all()
            .filter_map(|set| set.status.as_ref())
            .map(field)
            .sum()
    };
    let new = view.new_set.as_ref().and_then(|set| set.status.as_ref());
    let available = sum(|s| s.available_replicas.unwrap_or(0));
    let total: i32 = view.all().map(|set| replicas(set)).sum();
    let mut status = DeploymentStatus {
        observed_generation: view.deployment.metadata.generation,
        replicas: nonzero(sum(|s| s.replicas)),
        updated_replicas: nonzero(new.map_or(0, |s| s.replicas)),
        ready_replicas: nonzero(sum(|s| s.ready_replicas.unwrap_or(0))),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((total - available).max(0)),
        terminating_replicas: Some(sum(|s| s.terminating_replicas.unwrap_or(0))),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
    };
    let mut conditions = before.conditions.clone().unwrap_or_default();
    set(&mut conditions, availability(view, available), now);
    progress(view, rollout, &before, &status, &mut conditions, now);
    replica_failure(view, &mut conditions);
    status.conditions = Some(conditions);
    status
}

/// A merge patch that turns any status into this one.
pub fn patch(status: &DeploymentStatus) -> Value {
    json!({
        "observedGeneration": status.observed_generation,
        "replicas": status.replicas,
        "updatedReplicas": status.updated_replicas,
        "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas,
        "unavailableReplicas": status.unavailable_replicas,
        "terminatingReplicas": status.terminating_replicas,
        "collisionCount": status.collision_count,
        "conditions": status.conditions,
    })
}

/// Whether only pods of the current template run, all of them available.
pub fn is_complete(view: &View<'_>) -> bool {
    complete(
        view,
        &compute(view, &Rollout::Unchanged, Timestamp::UNIX_EPOCH),
    )
}

/// When to look again whether the progress deadline has passed.
pub fn stuck_in(view: &View<'_>, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let deadline = deadline(view)?;
    let condition = find(status.conditions.as_deref()?, PROGRESSING)?;
    if complete(view, status) || condition.reason.as_deref() == Some(TIMED_OUT) || view.paused() {
        return None;
    }
    let since = condition.last_update_time.as_ref()?.0;
    let left = deadline - now.duration_since(since);
    let left = left.max(SignedDuration::ZERO) + SignedDuration::from_secs(1);
    Duration::try_from(left).ok()
}

fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

fn complete(view: &View<'_>, status: &DeploymentStatus) -> bool {
    let wanted = view.replicas();
    let is = |count: Option<i32>| count.unwrap_or(0) == wanted;
    is(status.updated_replicas) && is(status.replicas) && is(status.available_replicas)
}

fn deadline(view: &View<'_>) -> Option<SignedDuration> {
    let seconds = view
        .spec
        .progress_deadline_seconds
        .filter(|s| *s != i32::MAX)?;
    Some(SignedDuration::from_secs(i64::from(seconds)))
}

fn find<'a>(conditions: &'a [DeploymentCondition], type_: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|c| c.type_ == type_)
}

fn condition(type_: &str, status: &str, reason: &str, message: String) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: None,
        last_update_time: None,
    }
}

/// Sets a condition unless status and reason are already so; the transition time moves only with the status.
fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition, now: Timestamp) {
    let old = find(conditions, &new.type_).cloned();
    if old
        .as_ref()
        .is_some_and(|old| old.status == new.status && old.reason == new.reason)
    {
        return;
    }
    new.last_update_time = Some(Time(now));
    new.last_transition_time = old
        .filter(|old| old.status == new.status)
        .and_then(|old| old.last_transition_time)
        .or(Some(Time(now)));
    conditions.retain(|c| c.type_ != new.type_);
    conditions.push(new);
}

fn availability(view: &View<'_>, available: i32) -> DeploymentCondition {
    if available >= view.replicas() - view.max_unavailable() {
        let message = "Deployment has minimum availability.".to_owned();
        condition("Available", "True", "MinimumReplicasAvailable", message)
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        condition("Available", "False", "MinimumReplicasUnavailable", message)
    }
}

fn progress(
    view: &View<'_>,
    rollout: &Rollout,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    conditions: &mut Vec<DeploymentCondition>,
    now: Timestamp,
) {
    if deadline(view).is_none() {
        conditions.retain(|c| c.type_ != PROGRESSING);
        return;
    }
    let new = match rollout {
        Rollout::Unchanged => return,
        Rollout::Paused => condition(
            PROGRESSING,
            "Unknown",
            "DeploymentPaused",
            "Deployment is paused".into(),
        ),
        Rollout::Resumed => condition(
            PROGRESSING,
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed".into(),
        ),
        Rollout::CreateFailed(message) => condition(
            PROGRESSING,
            "False",
            "ReplicaSetCreateError",
            message.clone(),
        ),
        Rollout::Created(name) => {
            let message = format!("Created new replica set \"{name}\"");
            condition(PROGRESSING, "True", "NewReplicaSetCreated", message)
        }
        Rollout::Progress => match step(view, before, status, conditions, now) {
            Some(step) => step,
            None => return,
        },
    };
    set(conditions, new, now);
}

fn step(
    view: &View<'_>,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    conditions: &mut [DeploymentCondition],
    now: Timestamp,
) -> Option<DeploymentCondition> {
    let subject = match &view.new_set {
        Some(set) => format!("ReplicaSet \"{}\"", set.name_any()),
        None => format!("Deployment \"{}\"", view.deployment.name_any()),
    };
    if complete(view, status) {
        let message = format!("{subject} has successfully progressed.");
        return Some(condition(PROGRESSING, "True", AVAILABLE, message));
    }
    let known = find(conditions, PROGRESSING).cloned();
    let was_complete = known
        .as_ref()
        .is_some_and(|c| c.reason.as_deref() == Some(AVAILABLE));
    if has_progressed(before, status) {
        // Each sign of progress restarts the deadline.
        if let Some(old) = conditions
            .iter_mut()
            .find(|c| c.type_ == PROGRESSING && c.status == "True")
        {
            old.reason = Some("ReplicaSetUpdated".into());
            old.message = Some(format!("{subject} is progressing."));
            old.last_update_time = Some(Time(now));
            return None;
        }
        let message = format!("{subject} is progressing.");
        return Some(condition(PROGRESSING, "True", "ReplicaSetUpdated", message));
    }
    // A finished rollout whose pods fail later is not a rollout that hangs.
    let Some(known) = known.filter(|_| !was_complete) else {
        let found = format!(
            "Found new replica set \"{}\"",
            view.new_set.as_ref()?.name_any()
        );
        let missing = find(conditions, PROGRESSING).is_none();
        return missing.then(|| condition(PROGRESSING, "True", "FoundNewReplicaSet", found));
    };
    let since = known.last_update_time.as_ref()?.0;
    let late = now.duration_since(since) > deadline(view)?;
    let message = format!("{subject} has timed out progressing.");
    late.then(|| condition(PROGRESSING, "False", TIMED_OUT, message))
}

fn has_progressed(before: &DeploymentStatus, status: &DeploymentStatus) -> bool {
    let of = |count: Option<i32>| count.unwrap_or(0);
    let old = |s: &DeploymentStatus| of(s.replicas) - of(s.updated_replicas);
    of(status.updated_replicas) > of(before.updated_replicas)
        || old(status) < old(before)
        || of(status.ready_replicas) > of(before.ready_replicas)
        || of(status.available_replicas) > of(before.available_replicas)
}

/// Hands up that a set can't create its pods.
fn replica_failure(view: &View<'_>, conditions: &mut Vec<DeploymentCondition>) {
    let sets = view.new_set.iter().chain(&view.old_sets);
    let failed = sets
        .filter_map(|set| set.status.as_ref()?.conditions.as_ref())
        .flatten()
        .find(|c| c.type_ == "ReplicaFailure");
    conditions.retain(|c| c.type_ != "ReplicaFailure");
    if let Some(failed) = failed {
        conditions.push(DeploymentCondition {
            type_: failed.type_.clone(),
            status: failed.status.clone(),
            reason: failed.reason.clone(),
            message: failed.message.clone(),
            last_update_time: failed.last_transition_time.clone(),
            last_transition_time: failed.last_transition_time.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

    use super::*;

    fn deployment(conditions: Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "generation": 2},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 600, "selector": {}, "template": {}},
            "status": {"replicas": 2, "updatedReplicas": 2, "conditions": conditions},
        }))
        .unwrap()
    }

    fn set(available: i32) -> Vec<Arc<ReplicaSet>> {
        let value = json!({
            "metadata": {"name": "d-1"}, "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": {"replicas": 2, "readyReplicas": available, "availableReplicas": available},
        });
        vec![Arc::new(serde_json::from_value(value).unwrap())]
    }

    fn reason(status: &DeploymentStatus) -> &str {
        let progressing = find(status.conditions.as_deref().unwrap(), PROGRESSING);
        progressing.and_then(|c| c.reason.as_deref()).unwrap()
    }

    fn progressing(at: &str) -> Value {
        json!([{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
            "lastUpdateTime": at, "lastTransitionTime": at}])
    }

    #[test]
    fn a_rollout_is_complete_when_all_updated_pods_are_available() {
        let deployment = deployment(progressing("2024-01-01T00:00:00Z"));
        let view = View::new(&deployment, set(2));
        let now = "2024-01-01T00:01:00Z".parse().unwrap();
        let status = compute(&view, &Rollout::Progress, now);
        assert_eq!(reason(&status), AVAILABLE);
        assert_eq!(status.unavailable_replicas, None);
        assert!(is_complete(&view));
    }

    #[test]
    fn without_progress_the_deadline_passes_and_each_step_restarts_it() {
        let deployment = deployment(progressing("2024-01-01T00:00:00Z"));
        let stuck = View::new(&deployment, set(0));
        let before: Timestamp = "2024-01-01T00:09:00Z".parse().unwrap();
        let status = compute(&stuck, &Rollout::Progress, before);
        assert_eq!(reason(&status), "ReplicaSetUpdated");
        assert_eq!(
            stuck_in(&stuck, &status, before),
            Some(Duration::from_secs(61))
        );
        let after = "2024-01-01T00:10:01Z".parse().unwrap();
        let late = compute(&stuck, &Rollout::Progress, after);
        assert_eq!(reason(&late), TIMED_OUT);
        let moving = View::new(&deployment, set(1));
        let status = compute(&moving, &Rollout::Progress, after);
        assert_eq!(reason(&status), "ReplicaSetUpdated");
    }
}
