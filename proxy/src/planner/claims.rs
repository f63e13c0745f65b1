//! Who owns an address and port that several Services name.
//!
//! The answer must be the same on every node and whatever order events came in, so it follows from
//! the Services alone: cluster IPs come before addresses that users write themselves (else one
//! namespace could take over another's cluster IP, CVE-2020-8554), then the older Service, then the
//! name.

use std::collections::HashMap;

use super::{FrontendKind, ObjectName};
use crate::maps::FrontendKey;

/// A claim's order; the least one owns the key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// What the frontend would be.
    pub kind: FrontendKind,
    /// The Service's creation, in seconds since 1970.
    pub created: i64,
    /// The Service.
    pub service: ObjectName,
}

/// All claims to all keys. A key that one Service claims costs one entry and no list.
#[derive(Debug, Default)]
pub(super) struct Claims {
    owners: HashMap<FrontendKey, Rank>,
    /// Claims that lost, by key; keys with none are absent.
    waiting: HashMap<FrontendKey, Vec<Rank>>,
}

impl Claims {
    /// Files a claim. Returns the Services for which the key's owner is now another one.
    pub(super) fn add(&mut self, key: FrontendKey, rank: Rank) -> Vec<ObjectName> {
        let Some(owner) = self.owners.get_mut(&key) else {
            self.owners.insert(key, rank);
            return Vec::new();
        };
        if *owner < rank {
            self.waiting.entry(key).or_default().push(rank);
            return Vec::new();
        }
        let loser = std::mem::replace(owner, rank);
        self.waiting.entry(key).or_default().push(loser);
        self.waiters(&key)
    }

    /// Withdraws a Service's claim. Returns the Services for which the key's owner is now another one.
    pub(super) fn remove(&mut self, key: FrontendKey, service: &ObjectName) -> Vec<ObjectName> {
        if self
            .owners
            .get(&key)
            .is_none_or(|owner| owner.service != *service)
        {
            if let Some(list) = self.waiting.get_mut(&key) {
                list.retain(|rank| rank.service != *service);
                self.drop_empty(key);
            }
            return Vec::new();
        }
        let mut touched = self.waiters(&key);
        let next = self.waiting.get_mut(&key).and_then(|list| {
            let least = (0..list.len()).min_by_key(|i| &list[*i])?;
            Some(list.swap_remove(least))
        });
        self.drop_empty(key);
        match next {
            Some(next) => _ = self.owners.insert(key, next),
            None => _ = self.owners.remove(&key),
        }
        touched.retain(|other| other != service);
        touched
    }

    fn waiters(&self, key: &FrontendKey) -> Vec<ObjectName> {
        let waiting = self.waiting.get(key).into_iter().flatten();
        waiting.map(|rank| rank.service.clone()).collect()
    }

    /// Who owns a key.
    pub(super) fn owner(&self, key: &FrontendKey) -> Option<&ObjectName> {
        self.owners.get(key).map(|rank| &rank.service)
    }

    fn drop_empty(&mut self, key: FrontendKey) {
        if self.waiting.get(&key).is_some_and(Vec::is_empty) {
            self.waiting.remove(&key);
        }
    }
}
