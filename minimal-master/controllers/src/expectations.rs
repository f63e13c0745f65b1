//! What a controller did that its cache doesn't show yet.
//!
//! Without this a controller that looks at a stale cache creates its pods twice. Deletions are
//! tracked by uid, so that seeing one twice (marked, then gone) counts once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sluice_client::Key;
use tokio::time::Instant;

/// An event that didn't come in this time won't come: go on with what the cache shows (upstream's value).
const EXPIRY: Duration = Duration::from_secs(300);

struct Expected {
    creations: usize,
    deletions: HashSet<String>,
    since: Instant,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Expectations {
    by_key: Mutex<HashMap<Key, Expected>>,
}

impl Expectations {
    /// Whether the cache shows everything that was done for this key.
    pub fn satisfied(&self, key: &Key) -> bool {
        self.lock().get(key).is_none_or(|expected| {
            (expected.creations == 0 && expected.deletions.is_empty())
                || expected.since.elapsed() > EXPIRY
        })
    }

    /// Announces writes; call before writing.
    pub fn expect(&self, key: &Key, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let expected = Expected {
            creations,
            deletions: deletions.into_iter().collect(),
            since: Instant::now(),
        };
        self.lock().insert(key.clone(), expected);
    }

    /// A created object was seen, or won't be because creating it failed.
    pub fn created(&self, key: &Key) {
        if let Some(expected) = self.lock().get_mut(key) {
            expected.creations = expected.creations.saturating_sub(1);
        }
    }

    /// An object was seen to be deleted or marked so, or won't be because deleting it failed.
    pub fn deleted(&self, key: &Key, uid: &str) {
        if let Some(expected) = self.lock().get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    /// The key's object is gone.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Expected>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_satisfied_once_every_write_was_seen() {
        let expectations = Expectations::default();
        let key = Key::new("ns", "rs");
        assert!(expectations.satisfied(&key));
        expectations.expect(&key, 1, ["u1".to_owned()]);
        expectations.created(&key);
        expectations.deleted(&key, "u2");
        assert!(!expectations.satisfied(&key));
        expectations.deleted(&key, "u1");
        expectations.deleted(&key, "u1");
        assert!(expectations.satisfied(&key));
    }
}
