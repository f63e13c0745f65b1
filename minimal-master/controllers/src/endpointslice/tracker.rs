//! Remembers what was written, so that a cache that is behind is recognised and not acted on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use sluice_client::Key;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// At least this revision must be in the cache. Revisions are comparable within one resource (KEP-5504).
    Revision(u64),
    Deletion,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Tracker {
    written: Mutex<HashMap<Key, HashMap<String, Written>>>,
}

impl Tracker {
    /// Whether the cached slices of a Service miss something that was written.
    pub fn is_stale(&self, service: &Key, cached: &[Arc<EndpointSlice>]) -> bool {
        let written = self.lock();
        let Some(written) = written.get(service) else {
            return false;
        };
        let revisions: HashMap<String, u64> =
            cached.iter().map(|s| (s.name_any(), revision(s))).collect();
        written
            .iter()
            .any(|(name, what)| match (what, revisions.get(name)) {
                (Written::Revision(wrote), Some(have)) => have < wrote,
                (Written::Revision(_), None) | (Written::Deletion, Some(_)) => true,
                (Written::Deletion, None) => false,
            })
    }

    /// A slice was created or updated.
    pub fn wrote(&self, service: &Key, slice: &EndpointSlice) {
        self.note(
            service,
            &slice.name_any(),
            Written::Revision(revision(slice)),
        );
    }

    /// A slice is about to be deleted.
    pub fn deleting(&self, service: &Key, name: &str) {
        self.note(service, name, Written::Deletion);
    }

    /// The cache saw that a slice is gone, whoever deleted it.
    pub fn gone(&self, service: &Key, name: &str) {
        if let Some(written) = self.lock().get_mut(service) {
            written.remove(name);
        }
    }

    /// The Service is gone.
    pub fn forget(&self, service: &Key) {
        self.lock().remove(service);
    }

    fn note(&self, service: &Key, name: &str, what: Written) {
        let mut written = self.lock();
        written
            .entry(service.clone())
            .or_default()
            .insert(name.to_owned(), what);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, HashMap<String, Written>>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn revision(slice: &EndpointSlice) -> u64 {
    let version = slice.metadata.resource_version.as_deref();
    version.and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, version: &str) -> EndpointSlice {
        let mut slice = EndpointSlice::default();
        slice.metadata.name = Some(name.into());
        slice.metadata.resource_version = Some(version.into());
        slice
    }

    #[test]
    fn a_cache_is_stale_until_it_shows_every_write() {
        let (tracker, key) = (Tracker::default(), Key::new("ns", "s"));
        tracker.wrote(&key, &slice("a", "10"));
        assert!(tracker.is_stale(&key, &[]));
        assert!(tracker.is_stale(&key, &[Arc::new(slice("a", "9"))]));
        assert!(!tracker.is_stale(&key, &[Arc::new(slice("a", "10"))]));
        tracker.deleting(&key, "a");
        assert!(tracker.is_stale(&key, &[Arc::new(slice("a", "11"))]));
        assert!(!tracker.is_stale(&key, &[]));
    }

    #[test]
    fn a_slice_deleted_by_somebody_else_is_not_waited_for() {
        let (tracker, key) = (Tracker::default(), Key::new("ns", "s"));
        tracker.wrote(&key, &slice("a", "10"));
        tracker.gone(&key, "a");
        assert!(!tracker.is_stale(&key, &[]));
    }
}
