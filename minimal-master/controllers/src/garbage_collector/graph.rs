//! The graph of owners and dependents, and what follows from it for one object. Pure.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::DeleteParams;

/// The object waits until its blocking dependents are gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The object waits until its dependents have forgotten it.
pub const ORPHAN: &str = "orphan";

/// What the collector knows of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Group and kind.
    pub kind: (String, String),
    /// `None` for cluster-scoped objects.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: Option<String>,
    /// `metadata.ownerReferences`.
    pub owners: Vec<OwnerReference>,
    /// `metadata.finalizers`.
    pub finalizers: Vec<String>,
    /// It has a deletion timestamp.
    pub deleting: bool,
}

impl Object {
    /// Reads an object's metadata.
    pub fn new(kind: (String, String), meta: &ObjectMeta) -> Self {
        Self {
            kind,
            namespace: meta.namespace.clone().filter(|n| !n.is_empty()),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    /// It is being deleted in the foreground.
    pub fn is_foreground(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }

    /// Whether the collector may have anything to do with it.
    pub fn needs_look(&self) -> bool {
        if self.deleting {
            self.has(FOREGROUND) || self.has(ORPHAN)
        } else {
            !self.owners.is_empty()
        }
    }

    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }
}

/// How an owner stands, by the server's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// It exists: its dependents stay.
    Solid,
    /// It exists, but waits in foreground deletion for its dependents to go.
    Waiting,
    /// It does not exist.
    Absent,
}

/// What to do about one object.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Nothing yet: these dependents have to go first.
    Wait(Vec<String>),
    /// Delete it.
    Delete(DeleteParams),
    /// It has owners left: take away the references to these.
    DropReferences(Vec<String>),
    /// Its deletion may complete.
    RemoveFinalizer(&'static str),
    /// Its dependents are to forget it; then its deletion may complete.
    Orphan(Vec<String>),
}

/// See the module's documentation.
#[derive(Default)]
pub struct Graph {
    objects: HashMap<String, Object>,
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// One object, by uid.
    pub fn get(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    /// Takes in an object as it is now; returns whom to look at.
    pub fn upsert(&mut self, object: Object) -> Vec<String> {
        let uid = object.uid.clone();
        let old = self.objects.insert(uid.clone(), object.clone());
        let old_owners = old.map(|old| old.owners).unwrap_or_default();
        for owner in &old_owners {
            self.unlink(&owner.uid, &uid);
        }
        for owner in &object.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(uid.clone());
        }
        let mut affected = Vec::new();
        if object.needs_look() {
            affected.push(uid.clone());
        }
        if object.is_foreground() {
            affected.extend(self.dependents_of(&uid));
        }
        // An owner that waited for this object to let go may be free now.
        affected.extend(old_owners.into_iter().map(|owner| owner.uid));
        affected
    }

    /// Takes in that an object is gone; returns whom to look at.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut affected = self.dependents_of(uid);
        if let Some(object) = self.objects.remove(uid) {
            for owner in &object.owners {
                self.unlink(&owner.uid, uid);
                affected.push(owner.uid.clone());
            }
        }
        affected
    }

    /// What to do about an object with these owners.
    pub fn judge(&self, object: &Object, owners: &[(OwnerReference, OwnerState)]) -> Verdict {
        if object.deleting {
            return self.judge_deleting(object);
        }
        let in_state = |state: OwnerState| {
            owners
                .iter()
                .filter(move |(_, s)| *s == state)
                .map(|(o, _)| o)
        };
        if owners.is_empty() {
            return Verdict::Keep;
        }
        if in_state(OwnerState::Solid).next().is_some() {
            let lost = in_state(OwnerState::Absent).chain(in_state(OwnerState::Waiting));
            let lost: Vec<String> = lost.map(|owner| owner.uid.clone()).collect();
            return if lost.is_empty() {
                Verdict::Keep
            } else {
                Verdict::DropReferences(lost)
            };
        }
        let waiting = in_state(OwnerState::Waiting).next().is_some();
        if waiting && !self.dependents_of(&object.uid).is_empty() {
            return Verdict::Delete(DeleteParams::foreground());
        }
        Verdict::Delete(match object {
            object if object.has(ORPHAN) => DeleteParams::orphan(),
            object if object.has(FOREGROUND) => DeleteParams::foreground(),
            _ => DeleteParams::background(),
        })
    }

    fn judge_deleting(&self, object: &Object) -> Verdict {
        if object.has(ORPHAN) {
            return Verdict::Orphan(self.dependents_of(&object.uid));
        }
        if !object.has(FOREGROUND) {
            return Verdict::Keep;
        }
        let blocking = self.blocking(&object.uid);
        if blocking.is_empty() {
            Verdict::RemoveFinalizer(FOREGROUND)
        } else {
            Verdict::Wait(blocking)
        }
    }

    fn blocking(&self, uid: &str) -> Vec<String> {
        let blocks = |dependent: &String| {
            let owners = self.objects.get(dependent).map(|object| &object.owners);
            owners.is_some_and(|owners| {
                owners
                    .iter()
                    .any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
            })
        };
        let mut blocking = self.dependents_of(uid);
        blocking.retain(blocks);
        blocking
    }

    fn dependents_of(&self, uid: &str) -> Vec<String> {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::api::PropagationPolicy;

    use super::*;

    fn reference(uid: &str, block: bool) -> OwnerReference {
        OwnerReference {
            uid: uid.into(),
            block_owner_deletion: Some(block),
            ..OwnerReference::default()
        }
    }

    fn object(uid: &str, owners: &[OwnerReference]) -> Object {
        Object {
            kind: (String::new(), "ConfigMap".into()),
            namespace: Some("ns".into()),
            name: uid.into(),
            uid: uid.into(),
            resource_version: None,
            owners: owners.to_vec(),
            finalizers: Vec::new(),
            deleting: false,
        }
    }

    fn deleting(mut object: Object, finalizer: &str) -> Object {
        object.deleting = true;
        object.finalizers = vec![finalizer.into()];
        object
    }

    fn policy(verdict: &Verdict) -> Option<PropagationPolicy> {
        match verdict {
            Verdict::Delete(params) => params.propagation_policy.clone(),
            _ => None,
        }
    }

    #[test]
    fn an_object_is_deleted_only_when_its_last_owner_is_absent() {
        let graph = Graph::default();
        let (a, b) = (reference("a", false), reference("b", false));
        let child = object("c", &[a.clone(), b.clone()]);
        let judge = |x, y| graph.judge(&child, &[(a.clone(), x), (b.clone(), y)]);
        assert!(matches!(
            judge(OwnerState::Solid, OwnerState::Solid),
            Verdict::Keep
        ));
        assert!(
            matches!(judge(OwnerState::Solid, OwnerState::Absent), Verdict::DropReferences(u) if u == ["b"])
        );
        let gone = judge(OwnerState::Absent, OwnerState::Absent);
        assert!(matches!(policy(&gone), Some(PropagationPolicy::Background)));
    }

    #[test]
    fn the_dependents_of_a_removed_owner_are_looked_at() {
        let mut graph = Graph::default();
        graph.upsert(object("a", &[]));
        assert_eq!(graph.upsert(object("c", &[reference("a", false)])), ["c"]);
        assert_eq!(graph.remove("a"), ["c"]);
        assert_eq!(graph.remove("c"), ["a"]);
        assert!(graph.dependents.is_empty());
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents_only() {
        let mut graph = Graph::default();
        let owner = deleting(object("a", &[]), FOREGROUND);
        graph.upsert(object("blocks", &[reference("a", true)]));
        graph.upsert(object("free", &[reference("a", false)]));
        let affected = graph.upsert(owner.clone());
        assert!(affected.contains(&"blocks".to_owned()));
        assert!(matches!(graph.judge(&owner, &[]), Verdict::Wait(w) if w == ["blocks"]));
        assert_eq!(graph.remove("blocks"), ["a"]);
        assert!(matches!(
            graph.judge(&owner, &[]),
            Verdict::RemoveFinalizer(FOREGROUND)
        ));
    }

    #[test]
    fn a_dependent_of_a_waiting_owner_is_deleted_in_the_foreground_when_it_has_dependents_itself() {
        let mut graph = Graph::default();
        let middle = object("m", &[reference("top", true)]);
        graph.upsert(middle.clone());
        let owners = [(reference("top", true), OwnerState::Waiting)];
        let leaf = graph.judge(&middle, &owners);
        assert!(matches!(policy(&leaf), Some(PropagationPolicy::Background)));
        graph.upsert(object("leaf", &[reference("m", true)]));
        let inner = graph.judge(&middle, &owners);
        assert!(matches!(
            policy(&inner),
            Some(PropagationPolicy::Foreground)
        ));
    }

    #[test]
    fn an_orphaning_owner_is_forgotten_by_its_dependents() {
        let mut graph = Graph::default();
        graph.upsert(object("c", &[reference("a", true)]));
        let owner = deleting(object("a", &[]), ORPHAN);
        graph.upsert(owner.clone());
        assert!(matches!(graph.judge(&owner, &[]), Verdict::Orphan(d) if d == ["c"]));
    }
}
