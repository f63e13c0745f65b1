//! Sharing out replicas when a Deployment is scaled, in the middle of a rollout too.

use std::{cmp::Reverse, sync::Arc};

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{
    annotations,
    view::{View, available, replicas},
};

/// A ReplicaSet and the number of replicas it is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// The set.
    pub set: Arc<ReplicaSet>,
    /// Its new `spec.replicas`.
    pub to: i32,
}

/// Scaling that changes something: the number, or what the annotations say.
fn change(view: &View<'_>, set: &Arc<ReplicaSet>, to: i32) -> Option<Scaling> {
    let annotations = annotations::for_scale(view);
    let have = set.metadata.annotations.clone().unwrap_or_default();
    let noted = annotations
        .iter()
        .all(|(key, value)| have.get(key) == Some(value));
    (replicas(set) != to || !noted).then(|| Scaling {
        set: set.clone(),
        to,
    })
}

/// Gives each set its share after `spec.replicas` changed or while the rollout is paused.
pub fn proportional(view: &View<'_>) -> Vec<Scaling> {
    if let Some(only) = active_or_latest(view) {
        return change(view, only, view.replicas()).into_iter().collect();
    }
    if new_is_saturated(view) {
        return empty_old(view);
    }
    if view.recreates() {
        return Vec::new();
    }
    share_out(view)
}

/// All old sets to zero.
pub fn empty_old(view: &View<'_>) -> Vec<Scaling> {
    let old = view.old_sets.iter().filter(|set| replicas(set) > 0);
    old.filter_map(|set| change(view, set, 0)).collect()
}

/// The new set to the full number.
pub fn fill_new(view: &View<'_>) -> Vec<Scaling> {
    let new = view.new_set.iter();
    new.filter_map(|set| change(view, set, view.replicas()))
        .collect()
}

/// The one set that is scaled when there is no rollout under way.
fn active_or_latest<'a>(view: &'a View<'_>) -> Option<&'a Arc<ReplicaSet>> {
    match view.active()[..] {
        [] => view.new_set.as_ref().or(view.old_sets.last()),
        [only] => Some(only),
        _ => None,
    }
}

fn new_is_saturated(view: &View<'_>) -> bool {
    view.new_set.as_ref().is_some_and(|set| {
        let wanted = view.replicas();
        replicas(set) == wanted
            && annotations::desired(&set.metadata) == Some(wanted)
            && available(set) == wanted
    })
}

/// Adds or takes replicas in proportion to what each set has; what rounding leaves goes to the largest.
fn share_out(view: &View<'_>) -> Vec<Scaling> {
    let mut sets = view.active();
    let wanted = view.replicas();
    let allowed = if wanted > 0 {
        wanted + view.max_surge()
    } else {
        0
    };
    let change_by = allowed - sets.iter().map(|set| replicas(set)).sum::<i32>();
    // Larger first; of equals the newer grows first and the older shrinks first.
    sets.reverse();
    if change_by < 0 {
        sets.reverse();
    }
    sets.sort_by_key(|set| Reverse(replicas(set)));
    let mut shares: Vec<i32> = Vec::new();
    for set in &sets {
        let left = change_by - shares.iter().sum::<i32>();
        let share = fraction(view, set);
        shares.push(if change_by > 0 {
            share.clamp(0, left)
        } else {
            share.clamp(left, 0)
        });
    }
    let rest = change_by - shares.iter().sum::<i32>();
    if let Some(first) = shares.first_mut() {
        *first += rest;
    }
    let sized = sets.iter().zip(shares);
    sized
        .filter_map(|(set, share)| change(view, set, (replicas(set) + share).max(0)))
        .collect()
}

/// The change that keeps a set's share of the deployment.
fn fraction(view: &View<'_>, set: &ReplicaSet) -> i32 {
    let wanted = view.replicas();
    if wanted == 0 {
        return -replicas(set);
    }
    let before = annotations::max(&set.metadata).unwrap_or_else(|| {
        let status = view.deployment.status.as_ref();
        status.and_then(|s| s.replicas).unwrap_or(wanted)
    });
    if before == 0 {
        return 0;
    }
    let now = f64::from(wanted + view.max_surge());
    let scaled = f64::from(replicas(set)) * now / f64::from(before);
    scaled.round() as i32 - replicas(set)
}
