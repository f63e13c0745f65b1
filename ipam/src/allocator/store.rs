//! The directory: a snapshot, and the logs written since. Recovery is "apply the snapshot, then the logs
//! in order"; compaction does the same into a new snapshot, without looking at the running allocator.
//!
//! Files: `snapshot` (replaced by rename), `log.N` with consecutive N; the snapshot's generation is the
//! first N to apply after it (0 without a snapshot). A log is complete and synced before its successor is
//! created, so only the last one may have a torn tail.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use std::net::IpAddr;
use thiserror::Error;

use super::log::{Log, RawFile, Reader, Stop, frame};
use super::owner::{Details, Key, Owner};
use super::record::Record;
use super::state::{Contradiction, State};

const VERSION: u16 = 1;
const SNAPSHOT: &str = "snapshot";
const SNAPSHOT_DRAFT: &str = "snapshot.tmp";

/// Why the directory could not be used. None of these is repaired by asking again.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system said no.
    #[error("cannot {action} {path}")]
    Io {
        /// "read", "create", ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// Another process has the directory open.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// A file was damaged after it had been written, or was edited, or a part is missing.
    #[error(
        "{path} is damaged at byte {offset}: {reason}; restore it, or move the directory away to start empty once no pod of this node is left"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}

/// One owner with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Who.
    pub owner: Owner,
    /// More about who.
    pub details: Details,
    /// What it holds, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

/// Wraps a log file; tests put a failing one around it.
pub(super) type Wrap = Arc<dyn Fn(File) -> Box<dyn RawFile> + Send + Sync>;

/// Names in the directory, and the lock on it.
pub(super) struct Store {
    directory: PathBuf,
    wrap: Wrap,
    /// Held while the process lives; the kernel drops it with the process.
    _lock: File,
}

/// What recovery found.
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) log: Log,
    pub(super) generation: u64,
}

impl Store {
    /// Opens or makes the directory, and locks it.
    pub(super) fn open(directory: &Path, wrap: Wrap) -> Result<Self, StoreError> {
        make_directory(directory).map_err(io_error("create", directory))?;
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let lock = lock.map_err(io_error("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(StoreError::Locked(directory.to_owned()));
            }
            Err(fs::TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
        }
        Ok(Self {
            directory: directory.to_owned(),
            wrap,
            _lock: lock,
        })
    }

    fn log_path(&self, generation: u64) -> PathBuf {
        self.directory.join(format!("log.{generation}"))
    }

    /// Reads everything into `state`, cuts a torn tail off, and opens the last log for appending.
    pub(super) fn recover(&self, state: State) -> Result<Recovered, StoreError> {
        let mut replay = Replay {
            state,
            details: None,
        };
        let mut generation = self.replay_snapshot(&mut replay)?;
        self.remove_logs_before(generation)?;
        let mut valid = 0;
        loop {
            let last = !self.log_path(generation + 1).exists();
            let path = self.log_path(generation);
            match read_file(&path)? {
                Some(bytes) => valid = replay.log(&path, &bytes, generation, last)?,
                None => self.check_may_be_missing(generation)?,
            }
            if last {
                break;
            }
            generation += 1;
        }
        let log = self.open_log(generation, valid)?;
        Ok(Recovered {
            state: replay.state,
            log,
            generation,
        })
    }

    fn replay_snapshot(&self, replay: &mut Replay) -> Result<u64, StoreError> {
        let path = self.directory.join(SNAPSHOT);
        match read_file(&path)? {
            Some(bytes) => replay.snapshot(&path, &bytes),
            None => Ok(0),
        }
    }

    /// Only a directory that was never written to has no log.
    fn check_may_be_missing(&self, generation: u64) -> Result<(), StoreError> {
        let lost = generation > 0 || !self.logs()?.is_empty();
        let path = self.log_path(generation);
        match lost {
            true => Err(damaged(&path, 0, "the file is missing")),
            false => Ok(()),
        }
    }

    fn logs(&self) -> Result<Vec<u64>, StoreError> {
        let error = || io_error("read", &self.directory);
        let mut generations = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(error())? {
            let name = entry.map_err(error())?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("log."));
            generations.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        Ok(generations)
    }

    fn remove_logs_before(&self, generation: u64) -> Result<(), StoreError> {
        for old in self.logs()?.into_iter().filter(|old| *old < generation) {
            let path = self.log_path(old);
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    fn open_log(&self, generation: u64, valid: u64) -> Result<Log, StoreError> {
        if valid == 0 {
            return self.create_log(generation);
        }
        let path = self.log_path(generation);
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        file.set_len(valid).map_err(io_error("truncate", &path))?;
        file.sync_all().map_err(io_error("sync", &path))?;
        Ok(Log::new((self.wrap)(file), valid))
    }

    /// Makes an empty log, durably.
    pub(super) fn create_log(&self, generation: u64) -> Result<Log, StoreError> {
        let path = self.log_path(generation);
        let created = self.try_create_log(&path, generation);
        if created.is_err() {
            // A half-made successor would make this log look like a finished one.
            let _ = fs::remove_file(&path);
        }
        created.map_err(io_error("create", &path))
    }

    fn try_create_log(&self, path: &Path, generation: u64) -> io::Result<Log> {
        let mut file = (self.wrap)(File::create(path)?);
        let mut header = Vec::new();
        put(
            &mut header,
            &Record::Header {
                version: VERSION,
                generation,
            },
        );
        file.write_all_at(&header, 0)?;
        file.sync()?;
        sync_directory(&self.directory)?;
        Ok(Log::new(file, header.len() as u64))
    }

    /// Joins the snapshot and every log before `generation` into a new snapshot. Runs beside the
    /// allocator, which no longer writes to those logs. A crash in between leaves the old files valid.
    pub(super) fn compact(&self, generation: u64) -> Result<(), StoreError> {
        let replay = self.replay_details(generation, None)?;
        let draft = self.directory.join(SNAPSHOT_DRAFT);
        replay
            .write_snapshot(&draft, generation)
            .map_err(io_error("write", &draft))?;
        let snapshot = self.directory.join(SNAPSHOT);
        fs::rename(&draft, &snapshot).map_err(io_error("replace", &snapshot))?;
        sync_directory(&self.directory).map_err(io_error("sync", &self.directory))?;
        self.remove_logs_before(generation)
    }

    /// Every allocation that is on disk. `end` is the current log and how much of it is valid. Must not
    /// run together with [`Store::compact`].
    pub(super) fn list(&self, end: (u64, u64)) -> Result<Vec<Allocation>, StoreError> {
        Ok(self.replay_details(end.0, Some(end.1))?.allocations())
    }

    fn replay_details(&self, end: u64, partial: Option<u64>) -> Result<Replay, StoreError> {
        let mut replay = Replay {
            state: State::default(),
            details: Some(HashMap::new()),
        };
        let first = self.replay_snapshot(&mut replay)?;
        for generation in first..end {
            let path = self.log_path(generation);
            let bytes =
                read_file(&path)?.ok_or_else(|| damaged(&path, 0, "the file is missing"))?;
            replay.log(&path, &bytes, generation, false)?;
        }
        if let Some(length) = partial {
            let path = self.log_path(end);
            let bytes = read_file(&path)?.unwrap_or_default();
            let valid = bytes.get(..length as usize).unwrap_or(&bytes);
            replay.log(&path, valid, end, false)?;
        }
        Ok(replay)
    }
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// A directory that a power failure takes away would take its files with it.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    path.ancestors()
        .skip(1)
        .filter(|parent| parent.is_dir())
        .try_for_each(sync_directory)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn damaged(path: &Path, offset: u64, reason: &'static str) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        offset,
        reason,
    }
}

fn put(out: &mut Vec<u8>, record: &Record) {
    let mut body = Vec::new();
    record.encode(&mut body);
    let position = out.len() as u64;
    frame(out, position, 0, &body);
}

/// A state that is built from files, with each owner's details where they are asked for.
struct Replay {
    state: State,
    details: Option<HashMap<Key, (Owner, Details)>>,
}

impl Replay {
    /// Applies a whole snapshot and returns its generation.
    fn snapshot(&mut self, path: &Path, bytes: &[u8]) -> Result<u64, StoreError> {
        let mut reader = Reader::new(bytes);
        let generation = match reader.next() {
            Some(Record::Header {
                version: VERSION,
                generation,
            }) => generation,
            _ => return Err(damaged(path, 0, "it has no header that this version knows")),
        };
        let mut count = 0;
        loop {
            let offset = reader.position();
            match reader.next() {
                Some(Record::End { records }) if records == count => return Ok(generation),
                Some(record) => self
                    .apply(record)
                    .map_err(|error| damaged(path, offset, error.0))?,
                None => return Err(damaged(path, offset, "a record is not valid")),
            }
            count += 1;
        }
    }

    /// Applies a log and returns the length of its valid part. Only the last one may be torn.
    fn log(
        &mut self,
        path: &Path,
        bytes: &[u8],
        number: u64,
        last: bool,
    ) -> Result<u64, StoreError> {
        let mut reader = Reader::new(bytes);
        match reader.next() {
            Some(Record::Header {
                version: VERSION,
                generation,
            }) if generation == number => {}
            // The crash came while it was made.
            None if last && reader.stop() != Stop::Damaged => return Ok(0),
            _ => return Err(damaged(path, 0, "it has no header that this version knows")),
        }
        loop {
            let offset = reader.position();
            let Some(record) = reader.next() else { break };
            self.apply(record)
                .map_err(|error| damaged(path, offset, error.0))?;
        }
        match reader.stop() {
            Stop::Damaged => Err(damaged(path, reader.position(), "a record is not valid")),
            Stop::Torn if !last => Err(damaged(path, reader.position(), "a record is not valid")),
            Stop::End | Stop::Torn => Ok(reader.position()),
        }
    }

    fn apply(&mut self, record: Record) -> Result<(), Contradiction> {
        match record {
            Record::Pool {
                number,
                cidr,
                active,
            } => self.state.restore_pool(number, cidr, active),
            Record::Freed { place, at } => self.state.restore_freed(place, at),
            Record::Assign {
                owner,
                details,
                places,
            } => {
                let key = owner.key();
                self.state.restore_owner(key, &places)?;
                if let Some(all) = &mut self.details {
                    all.insert(key, (owner, details));
                }
                Ok(())
            }
            Record::Release { owner, at } => {
                let released = self.state.release(owner.key(), at);
                released.ok_or(Contradiction("an owner is released twice"))?;
                if let Some(all) = &mut self.details {
                    all.remove(&owner.key());
                }
                Ok(())
            }
            Record::Header { .. } | Record::End { .. } => Err(Contradiction("a misplaced record")),
        }
    }

    fn allocations(self) -> Vec<Allocation> {
        let details = self.details.into_iter().flatten();
        let state = &self.state;
        let mut all: Vec<Allocation> = details
            .map(|(key, (owner, details))| Allocation {
                owner,
                details,
                addresses: state.lookup(key),
            })
            .collect();
        all.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        all
    }

    fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let pools = self
            .state
            .pools()
            .enumerate()
            .map(|(number, (cidr, active))| Record::Pool {
                number: number as u16,
                cidr,
                active,
            });
        let owners = self
            .details
            .iter()
            .flatten()
            .map(|(key, (owner, details))| Record::Assign {
                owner: owner.clone(),
                details: details.clone(),
                places: self.state.places(*key).collect(),
            });
        let freed = self
            .state
            .freed()
            .map(|(place, at)| Record::Freed { place, at });
        pools.chain(owners).chain(freed)
    }

    fn write_snapshot(&self, path: &Path, generation: u64) -> io::Result<()> {
        let mut out = Frames {
            file: io::BufWriter::new(File::create(path)?),
            position: 0,
        };
        out.put(&Record::Header {
            version: VERSION,
            generation,
        })?;
        let mut records = 0;
        for record in self.records() {
            out.put(&record)?;
            records += 1;
        }
        out.put(&Record::End { records })?;
        out.file
            .into_inner()
            .map_err(|error| error.into_error())?
            .sync_all()
    }
}

/// Writes frames one after another.
struct Frames {
    file: io::BufWriter<File>,
    position: u64,
}

impl Frames {
    fn put(&mut self, record: &Record) -> io::Result<()> {
        let (mut body, mut bytes) = (Vec::new(), Vec::new());
        record.encode(&mut body);
        frame(&mut bytes, self.position, 0, &body);
        self.position += bytes.len() as u64;
        self.file.write_all(&bytes)
    }
}
