//! Forgets history that no watcher needs any more, in the background.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::Options;
use super::writer::Request;
use crate::Revision;
use crate::shared::Shared;

/// Revisions folded per commit, so that writers wait a few milliseconds at most.
pub(super) const STEP: u64 = 2_000;

/// Runs until the store is dropped; the weak sender does not keep it open.
pub(super) fn spawn(shared: Arc<Shared>, requests: mpsc::WeakSender<Request>, options: Options) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    runtime.spawn(async move {
        let mut history = History::default();
        let mut tick = tokio::time::interval(options.compact_every);
        loop {
            tick.tick().await;
            let (current, compacted) = {
                let mvcc = shared.read();
                (mvcc.revision(), mvcc.compacted())
            };
            let target = history.target(&options, current, Instant::now());
            let mut reached = compacted;
            while reached < target {
                reached = target.min(reached + STEP);
                if !compact(&requests, reached).await {
                    return;
                }
            }
        }
    });
}

async fn compact(requests: &mpsc::WeakSender<Request>, revision: Revision) -> bool {
    let Some(sender) = requests.upgrade() else {
        return false;
    };
    let (reply, done) = oneshot::channel();
    let sent = sender.send(Request::Compact(revision, reply)).await.is_ok();
    drop(sender);
    sent && matches!(done.await, Ok(Ok(())))
}

/// When which revision was the newest: what tells the age of a revision without writing times to disk.
#[derive(Default)]
struct History {
    marks: VecDeque<(Instant, Revision)>,
}

impl History {
    fn target(&mut self, options: &Options, current: Revision, now: Instant) -> Revision {
        self.marks.push_back((now, current));
        let mut old = 0;
        while let Some((_, revision)) = self
            .marks
            .front()
            .filter(|(at, _)| is_old(*at, now, options.keep_age))
        {
            old = *revision;
            self.marks.pop_front();
        }
        if old > 0 {
            // Stays the answer until a newer mark is old enough.
            self.marks
                .push_front((now.checked_sub(options.keep_age).unwrap_or(now), old));
        }
        let by_age = old.min(current.saturating_sub(options.keep_revisions));
        by_age.max(current.saturating_sub(options.max_revisions))
    }
}

fn is_old(at: Instant, now: Instant, age: Duration) -> bool {
    now.duration_since(at) >= age
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            keep_age: Duration::from_secs(300),
            keep_revisions: 10,
            max_revisions: 1_000,
            compact_every: Duration::from_secs(15),
        }
    }

    #[test]
    fn keeps_what_is_young() {
        let mut history = History::default();
        let start = Instant::now();
        assert_eq!(history.target(&options(), 100, start), 0);
        assert_eq!(
            history.target(&options(), 200, start + Duration::from_secs(299)),
            0
        );
        assert_eq!(
            history.target(&options(), 300, start + Duration::from_secs(300)),
            100
        );
        assert_eq!(
            history.target(&options(), 300, start + Duration::from_secs(400)),
            100
        );
        assert_eq!(
            history.target(&options(), 300, start + Duration::from_secs(600)),
            290
        );
    }

    #[test]
    fn keeps_the_newest_whatever_their_age() {
        let mut history = History::default();
        let start = Instant::now();
        history.target(&options(), 100, start);
        assert_eq!(
            history.target(&options(), 105, start + Duration::from_secs(400)),
            95
        );
    }

    #[test]
    fn forgets_early_under_a_storm() {
        let mut history = History::default();
        assert_eq!(history.target(&options(), 5_000, Instant::now()), 4_000);
    }
}
