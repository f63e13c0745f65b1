//! The allocator as its users see it: the pure [`State`] behind a lock, and a log that several threads'
//! changes reach together (group commit). Whoever finds no write in progress writes for all that wait;
//! a change is answered when its batch is on disk. When a batch fails, every change that is not on disk
//! is undone, newest first, and each of their callers gets the error.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::log::Log;
use super::owner::{Details, Key, Owner};
use super::pool::PoolUsage;
use super::record::{MAX_TEXT, Record};
use super::state::{Refusal, State, Undo};
use super::store::{Allocation, Store, StoreError, Wrap};

/// A log larger than this is folded into the snapshot.
const COMPACT_FROM: u64 = 4 << 20;

/// Where the allocator keeps its files, and its policy.
pub struct Config {
    /// Made when missing. One process at a time may use it.
    pub directory: PathBuf,
    /// How long a freed address rests; counted in whole seconds.
    pub cool_down: Duration,
    /// Addresses that are never handed out, whatever pool they are in.
    pub reserved: Vec<IpNetwork>,
    /// The log's size in bytes from which it is compacted.
    pub compact_from: u64,
    clock: Arc<dyn Fn() -> u32 + Send + Sync>,
    wrap: Wrap,
}

impl Config {
    /// No reservations, a cool-down of 30 seconds: longer than the time that a dataplane needs to hear
    /// of a pod's end, and than most clients keep trying a dead one.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            cool_down: Duration::from_secs(30),
            reserved: Vec::new(),
            compact_from: COMPACT_FROM,
            clock: steady_clock(),
            wrap: Arc::new(|file: File| Box::new(file)),
        }
    }

    #[cfg(test)]
    pub(super) fn with_clock(mut self, clock: impl Fn() -> u32 + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    #[cfg(test)]
    pub(super) fn with_files(mut self, wrap: Wrap) -> Self {
        self.wrap = wrap;
        self
    }
}

/// Seconds since the Unix epoch as of now, and from here on by the monotonic clock, so that setting
/// the time does not shorten a rest.
fn steady_clock() -> Arc<dyn Fn() -> u32 + Send + Sync> {
    let epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let start = Instant::now();
    Arc::new(move || (epoch + start.elapsed()).as_secs() as u32)
}

/// Why a request failed. The state is as it was before.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// The allocator's rules say no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The change could not be written. Retryable once the disk has room.
    #[error("cannot write the allocation log")]
    Write(#[source] Arc<io::Error>),
    /// The files could not be read.
    #[error("cannot read the allocations")]
    Read(#[source] Arc<StoreError>),
    /// A name is longer than 4096 bytes.
    #[error("{field} has {length} bytes, more than 4096")]
    TooLong {
        /// Which name.
        field: &'static str,
        /// Its length.
        length: usize,
    },
}

/// The outcome of one write, shared by all whose changes were in it.
type Batch = Arc<OnceLock<Result<(), Arc<io::Error>>>>;

#[derive(Default)]
struct Pending {
    bodies: Vec<u8>,
    ends: Vec<usize>,
    undo: Vec<Undo>,
    batch: Batch,
}

struct Inner {
    state: State,
    pending: Pending,
    /// The batch that is being written, whose writer has taken `log`.
    writing: Option<Batch>,
    log: Option<Log>,
    generation: u64,
    /// How much of the current log is on disk.
    durable: u64,
    compaction: Option<JoinHandle<()>>,
}

/// The durable allocator. Shared by reference between threads.
pub struct Allocator {
    inner: Mutex<Inner>,
    written: Condvar,
    store: Arc<Store>,
    /// Held while files are replaced, and while all are read.
    files: Arc<Mutex<()>>,
    clock: Arc<dyn Fn() -> u32 + Send + Sync>,
    compact_from: u64,
}

impl Allocator {
    /// Opens the directory and recovers what was acknowledged, exactly.
    pub fn open(config: Config) -> Result<Self, StoreError> {
        let store = Store::open(&config.directory, config.wrap)?;
        let cool_down = u32::try_from(config.cool_down.as_secs()).unwrap_or(u32::MAX);
        let recovered = store.recover(State::new(config.reserved, cool_down))?;
        let mut state = recovered.state;
        state.forget_future((config.clock)());
        let inner = Inner {
            state,
            pending: Pending::default(),
            writing: None,
            durable: recovered.log.length(),
            log: Some(recovered.log),
            generation: recovered.generation,
            compaction: None,
        };
        Ok(Self {
            inner: Mutex::new(inner),
            written: Condvar::new(),
            store: Arc::new(store),
            files: Arc::default(),
            clock: config.clock,
            compact_from: config.compact_from,
        })
    }

    /// Makes exactly these CIDRs the pools to take addresses from. What is held in others stays held.
    pub fn set_pools(&self, cidrs: &[IpNetwork]) -> Result<(), Error> {
        let mut inner = self.lock();
        let before: Vec<_> = inner.state.pools().collect();
        let Some(undo) = inner.state.set_pools(cidrs)? else {
            return self.wait_for_all(inner);
        };
        let after: Vec<_> = inner.state.pools().collect();
        let changed = after
            .iter()
            .enumerate()
            .filter(|(at, pool)| before.get(*at) != Some(*pool));
        let records: Vec<Record> = changed
            .map(|(number, &(cidr, active))| Record::Pool {
                number: number as u16,
                cidr,
                active,
            })
            .collect();
        self.commit(inner, &records, undo)
    }

    /// Gives the owner one address of each family that has a pool, or exactly the `fixed` ones; an owner
    /// that has addresses keeps them. Returns them, IPv4 first, once they are on disk.
    pub fn assign(
        &self,
        owner: &Owner,
        details: Details,
        fixed: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Error> {
        check_lengths(owner, &details)?;
        let key = owner.key();
        let now = (self.clock)();
        let mut inner = self.lock();
        let undo = inner.state.assign(key, fixed, now)?;
        let addresses = inner.state.lookup(key);
        let Some(undo) = undo else {
            // The assignment that gave them may still be on its way to the disk.
            return self.wait_for_all(inner).map(|()| addresses);
        };
        let record = Record::Assign {
            owner: owner.clone(),
            details: Details {
                assigned_at: now.into(),
                ..details
            },
            places: inner.state.places(key).collect(),
        };
        self.commit(inner, &[record], undo).map(|()| addresses)
    }

    /// Frees what the owner holds and returns it; empty where it holds nothing, which is no error.
    pub fn release(&self, owner: &Owner) -> Result<Vec<IpAddr>, Error> {
        let key = owner.key();
        let now = (self.clock)();
        let mut inner = self.lock();
        let addresses = inner.state.lookup(key);
        match inner.state.release(key, now) {
            Some(undo) => {
                let record = Record::Release {
                    owner: owner.clone(),
                    at: now,
                };
                self.commit(inner, &[record], undo).map(|()| addresses)
            }
            // Another thread's release of the same owner may still be on its way to the disk.
            None => self.wait_for_all(inner).map(|()| addresses),
        }
    }

    /// What the owner holds, IPv4 first.
    pub fn lookup(&self, owner: &Owner) -> Vec<IpAddr> {
        self.lock().state.lookup(owner.key())
    }

    /// The keys of all owners and what they hold, from memory.
    pub fn owners(&self) -> Vec<(Key, Vec<IpAddr>)> {
        self.lock().state.owners().collect()
    }

    /// Whether an address has an owner.
    pub fn is_used(&self, address: IpAddr) -> bool {
        self.lock().state.is_used(address)
    }

    /// How full each pool is.
    pub fn usage(&self) -> Vec<PoolUsage> {
        let now = (self.clock)();
        self.lock().state.usage(now)
    }

    /// Every allocation with its details, sorted by address. Reads the files: for operators and garbage
    /// collection, not for hot paths.
    pub fn list(&self) -> Result<Vec<Allocation>, Error> {
        let _files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let end = {
            let inner = self.lock();
            (inner.generation, inner.durable)
        };
        self.store
            .list(end)
            .map_err(|error| Error::Read(Arc::new(error)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code panics between two changes that belong together.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a change that was made to the state, and waits until it is on disk.
    fn commit<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        records: &[Record],
        undo: Undo,
    ) -> Result<(), Error> {
        let pending = &mut inner.pending;
        for record in records {
            record.encode(&mut pending.bodies);
            pending.ends.push(pending.bodies.len());
        }
        pending.undo.push(undo);
        let batch = pending.batch.clone();
        self.wait(inner, &batch)
    }

    fn wait_for_all<'a>(&'a self, inner: MutexGuard<'a, Inner>) -> Result<(), Error> {
        let batch = match inner.pending.undo.is_empty() {
            false => inner.pending.batch.clone(),
            true => match &inner.writing {
                Some(batch) => batch.clone(),
                None => return Ok(()),
            },
        };
        self.wait(inner, &batch)
    }

    fn wait<'a>(&'a self, mut inner: MutexGuard<'a, Inner>, batch: &Batch) -> Result<(), Error> {
        loop {
            if let Some(outcome) = batch.get() {
                return outcome.clone().map_err(Error::Write);
            }
            inner = match inner.log.take() {
                Some(log) => self.write(inner, log),
                None => self
                    .written
                    .wait(inner)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Writes all pending changes, with the lock released meanwhile.
    fn write<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        mut log: Log,
    ) -> MutexGuard<'a, Inner> {
        let work = std::mem::take(&mut inner.pending);
        inner.writing = Some(work.batch.clone());
        let generation = inner.generation;
        let idle = inner
            .compaction
            .as_ref()
            .is_none_or(JoinHandle::is_finished);
        drop(inner);
        let outcome = log.append(&work.bodies, &work.ends).map_err(Arc::new);
        let next = (outcome.is_ok() && idle)
            .then(|| self.rotate(&log, generation))
            .flatten();
        let mut inner = self.lock();
        inner.writing = None;
        if let Some(new) = next {
            log = new;
            inner.generation += 1;
            inner.compaction = Some(self.compact(inner.generation));
        }
        inner.durable = log.length();
        inner.log = Some(log);
        if let Err(error) = &outcome {
            undo_all(&mut inner, work.undo, error);
        }
        // Nobody else sets it: the batch left `pending` with this thread.
        let _ = work.batch.set(outcome);
        self.written.notify_all();
        inner
    }

    /// The next log, when this one is large enough to be folded. Failing to make one is no harm: the
    /// old one goes on.
    fn rotate(&self, log: &Log, generation: u64) -> Option<Log> {
        if log.length() < self.compact_from {
            return None;
        }
        let created = self.store.create_log(generation + 1);
        created
            .inspect_err(|error| tracing::warn!(%error, "cannot start a new allocation log"))
            .ok()
    }

    fn compact(&self, generation: u64) -> JoinHandle<()> {
        let (store, files) = (self.store.clone(), self.files.clone());
        std::thread::spawn(move || {
            let _files = files.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = store.compact(generation) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot compact the allocation log"
                );
            }
        })
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        let compaction = self.lock().compaction.take();
        if let Some(thread) = compaction {
            let _ = thread.join();
        }
    }
}

/// Takes back what failed to be written, and what was built on it since.
fn undo_all(inner: &mut Inner, failed: Vec<Undo>, error: &Arc<io::Error>) {
    let waiting = std::mem::take(&mut inner.pending);
    for undo in failed.into_iter().chain(waiting.undo).rev() {
        inner.state.undo(undo);
    }
    let _ = waiting.batch.set(Err(error.clone()));
}

fn check_lengths(owner: &Owner, details: &Details) -> Result<(), Error> {
    let fields = [
        ("the container id", &owner.container_id),
        ("the interface name", &owner.interface),
        ("the network name", &details.network),
        ("the pod's namespace", &details.pod_namespace),
        ("the pod's name", &details.pod_name),
        ("the pod's uid", &details.pod_uid),
    ];
    match fields.into_iter().find(|(_, text)| text.len() > MAX_TEXT) {
        Some((field, text)) => Err(Error::TooLong {
            field,
            length: text.len(),
        }),
        None => Ok(()),
    }
}
