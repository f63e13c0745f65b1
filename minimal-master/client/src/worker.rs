//! Runs a reconcile function over a work queue, with several workers.

use std::{fmt::Display, future::Future, hash::Hash, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{WorkQueue, is_conflict};

/// What a reconcile wants next for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing until the next change.
    Done,
    /// Look again after this time, whatever happens.
    After(Duration),
}

impl From<Option<Duration>> for Outcome {
    fn from(delay: Option<Duration>) -> Self {
        delay.map_or(Self::Done, Self::After)
    }
}

/// Works the queue until cancelled; a failed key is logged and retried with back-off.
///
/// Conflicts are the normal sign of a stale cache, so they are logged at debug only.
pub async fn run<T, F, Fut>(
    controller: &'static str,
    queue: Arc<WorkQueue<T>>,
    workers: usize,
    stop: CancellationToken,
    reconcile: F,
) where
    T: Clone + Eq + Hash + Display,
    F: Fn(T) -> Fut,
    Fut: Future<Output = kube::Result<Outcome>>,
{
    let work =
        futures::future::join_all((0..workers).map(|_| work(controller, &queue, &reconcile)));
    let close = async {
        stop.cancelled().await;
        queue.close();
    };
    futures::join!(work, close);
}

async fn work<T, F, Fut>(controller: &'static str, queue: &WorkQueue<T>, reconcile: &F)
where
    T: Clone + Eq + Hash + Display,
    F: Fn(T) -> Fut,
    Fut: Future<Output = kube::Result<Outcome>>,
{
    while let Some(key) = queue.next().await {
        let result = reconcile(key.clone()).await;
        queue.done(&key);
        match result {
            Ok(outcome) => {
                queue.forget(&key);
                if let Outcome::After(delay) = outcome {
                    queue.add_after(key, delay);
                }
            }
            Err(error) => {
                report(controller, &key, &error);
                queue.add_rate_limited(key);
            }
        }
    }
}

fn report(controller: &str, key: &impl Display, error: &kube::Error) {
    if is_conflict(error) {
        tracing::debug!(controller, %key, %error, "conflict, retrying");
    } else {
        tracing::warn!(controller, %key, %error, "reconcile failed, retrying");
    }
}
