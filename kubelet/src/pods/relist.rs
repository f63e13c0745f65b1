//! Notices what happens in the runtime: lists sandboxes and containers every second, and at once when the runtime
//! sends an event (containerd has events since 1.7; older ones do not, so the list alone must do). Workers of pods
//! that changed are woken; pods that nobody asked for are cleaned up.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::labels;
use super::manager::Manager;
use crate::cri::{self, Runtime, Scope, v1};

/// Time between two lists.
const PERIOD: Duration = Duration::from_secs(1);
/// Time between two tries to get events from a runtime that has them.
const EVENTS_RETRY: Duration = Duration::from_secs(5);
/// A node whose last list is older than this is not ready (upstream's relist threshold).
const HEALTHY: i64 = 180;

/// What can be seen of a pod in a list: its sandboxes and containers with their states.
type Fingerprint = BTreeSet<(String, i32)>;

/// When the last list succeeded.
#[derive(Debug, Default)]
pub struct Relisted(AtomicI64);

impl Relisted {
    /// Whether the runtime answers.
    ///
    /// # Errors
    /// Says since when it does not.
    pub fn check(&self) -> Result<(), String> {
        let age = Timestamp::now().as_second() - self.0.load(Ordering::Relaxed);
        if age <= HEALTHY {
            Ok(())
        } else {
            Err(format!(
                "PLEG is not healthy: pleg was last seen active {age}s ago"
            ))
        }
    }

    fn mark(&self) {
        self.0
            .store(Timestamp::now().as_second(), Ordering::Relaxed);
    }
}

/// Lists until `stop`.
pub async fn run(manager: Arc<Manager>, relisted: Arc<Relisted>, stop: CancellationToken) {
    let happened = Arc::new(Notify::new());
    let runtime = Arc::clone(&manager.host().runtime);
    let events = tokio::spawn(listen(Arc::downgrade(&runtime), Arc::clone(&happened)));
    let mut known = HashMap::new();
    relisted.mark();
    let forever = async {
        loop {
            let started = tokio::time::Instant::now();
            match list(&*runtime).await {
                Ok(now) => {
                    relisted.mark();
                    manager.host().metrics.relisted(started.elapsed());
                    manager.observed(changed(&known, &now), now.keys().cloned().collect());
                    known = now;
                }
                Err(error) => tracing::warn!(%error, "cannot list containers; trying again"),
            }
            let _ = tokio::time::timeout(PERIOD, happened.notified()).await;
        }
    };
    stop.run_until_cancelled(forever).await;
    events.abort();
}

/// Passes events on until the runtime says that it has none.
async fn listen(runtime: Weak<dyn Runtime>, happened: Arc<Notify>) {
    while let Some(runtime) = runtime.upgrade() {
        match runtime.container_events().await {
            Err(cri::Error::Unimplemented(_)) => return,
            Err(_) => {}
            Ok(mut stream) => {
                while let Some(Ok(_)) = stream.next().await {
                    happened.notify_one();
                }
            }
        }
        drop(runtime);
        tokio::time::sleep(EVENTS_RETRY).await;
    }
}

async fn list(runtime: &dyn Runtime) -> cri::Result<HashMap<String, Fingerprint>> {
    let (sandboxes, containers) = tokio::try_join!(
        runtime.list_pod_sandboxes(Scope::All),
        runtime.list_containers(Scope::All)
    )?;
    let mut pods: HashMap<String, Fingerprint> = HashMap::new();
    let mut add = |labels: &HashMap<String, String>, id: String, state: i32| {
        // What carries no uid was not made by a kubelet.
        if let Some(uid) = labels.get(labels::POD_UID) {
            pods.entry(uid.clone()).or_default().insert((id, state));
        }
    };
    for v1::PodSandbox {
        labels, id, state, ..
    } in sandboxes
    {
        add(&labels, id, state);
    }
    for v1::Container {
        labels, id, state, ..
    } in containers
    {
        add(&labels, id, state);
    }
    Ok(pods)
}

fn changed(
    before: &HashMap<String, Fingerprint>,
    now: &HashMap<String, Fingerprint>,
) -> Vec<String> {
    let differs = |uid: &&String| before.get(*uid) != now.get(*uid);
    let gone = before.keys().filter(|uid| !now.contains_key(*uid));
    now.keys().filter(differs).chain(gone).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_came_changed_or_went_are_told() {
        let pod = |state| Fingerprint::from([("id".to_owned(), state)]);
        let before = HashMap::from([
            ("same".to_owned(), pod(0)),
            ("went".into(), pod(0)),
            ("ended".into(), pod(1)),
        ]);
        let now = HashMap::from([
            ("same".to_owned(), pod(0)),
            ("came".into(), pod(0)),
            ("ended".into(), pod(2)),
        ]);
        let mut found = changed(&before, &now);
        found.sort();
        assert_eq!(found, ["came", "ended", "went"]);
        assert!(changed(&now, &now).is_empty());
    }
}
