//! The thread that owns the file: decides writes in order, and shares one fsync among all that wait.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::journal::Journal;
use crate::mvcc;
use crate::shared::Shared;
use crate::{Event, KeyValue, Outcome, Revision, StoreError, Txn};

/// The most writes that one fsync covers; bounds how long the first of them waits.
const GROUP: usize = 512;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Request {
    Txn(Txn, Reply<Outcome>),
    Compact(Revision, Reply<()>),
    Close(oneshot::Sender<()>),
}

pub(super) fn spawn(journal: Journal, shared: Arc<Shared>, queue: mpsc::Receiver<Request>) {
    let writer = Writer { journal, shared };
    std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || writer.run(queue))
        .expect("a thread can be started");
}

struct Writer {
    journal: Journal,
    shared: Arc<Shared>,
}

impl Writer {
    /// Ends when the store is dropped or closed, or at the first disk error: only reading the file anew tells
    /// whether a commit that failed took place.
    fn run(self, mut queue: mpsc::Receiver<Request>) {
        let mut closed = None;
        while let Some(first) = queue.blocking_recv() {
            let mut group = Group::default();
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Txn(txn, reply) => group.add(&self.shared, txn, reply),
                    Request::Compact(revision, reply) => group.compactions.push((revision, reply)),
                    Request::Close(reply) => closed = Some(reply),
                }
                next = if group.replies.len() < GROUP {
                    queue.try_recv().ok()
                } else {
                    None
                };
            }
            if let Err(error) = self.commit(group) {
                tracing::error!(%error, "the store takes no more writes until it is opened again");
                break;
            }
            if closed.is_some() {
                break;
            }
        }
        drop(self.journal);
        if let Some(reply) = closed {
            let _ = reply.send(());
        }
    }

    fn commit(&self, group: Group) -> Result<(), StoreError> {
        if !group.events.is_empty() {
            if let Err(error) = self.journal.append(&group.events) {
                group
                    .replies
                    .into_iter()
                    .for_each(|(reply, _)| drop(reply.send(Err(error.clone()))));
                return Err(error);
            }
            self.shared.publish(group.events);
        }
        for (reply, outcome) in group.replies {
            // A caller that gave up does not undo its write.
            let _ = reply.send(Ok(outcome));
        }
        for (revision, reply) in group.compactions {
            let result = self.compact(revision);
            let _ = reply.send(result.clone());
            result?;
        }
        Ok(())
    }

    fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let events: Vec<_> = self.shared.read().log_until(revision).cloned().collect();
        let Some(last) = events.last().map(|event| event.revision) else {
            return Ok(());
        };
        self.journal.fold(&events, last)?;
        self.shared.update(|mvcc| mvcc.compact(last));
        Ok(())
    }
}

/// Writes that become durable together. Later ones see the earlier.
#[derive(Default)]
struct Group {
    events: Vec<Event>,
    pending: HashMap<Bytes, Option<KeyValue>>,
    replies: Vec<(Reply<Outcome>, Outcome)>,
    compactions: Vec<(Revision, Reply<()>)>,
}

impl Group {
    fn add(&mut self, shared: &Shared, txn: Txn, reply: Reply<Outcome>) {
        let (current, revision) = {
            let mvcc = shared.read();
            let current = match self.pending.get(&txn.key) {
                Some(pending) => pending.clone(),
                None => mvcc.get(&txn.key).cloned(),
            };
            (current, mvcc.revision() + self.events.len() as u64 + 1)
        };
        let outcome = match mvcc::decide(txn, current.as_ref(), revision) {
            Ok(event) => {
                self.pending
                    .insert(event.key.clone(), event.current.clone());
                self.events.push(event);
                Outcome::Committed {
                    revision,
                    previous: current,
                }
            }
            Err(conflict) => conflict,
        };
        self.replies.push((reply, outcome));
    }
}
