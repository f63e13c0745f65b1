//! The per-node address allocator: durable, shared between threads, and free of anything about
//! Kubernetes, CNI or the kernel.
//!
//! What it promises:
//! - an address has at most one owner at a time, and is freed exactly once;
//! - [`Allocator::assign`] is idempotent by owner: asking again gives the same addresses;
//! - a freed address rests for a cool-down before its next owner, the one freed first goes first;
//! - what was acknowledged survives the death of the process or the machine at any moment: a change
//!   is answered only after it has reached the disk;
//! - a disk that is full or broken is an error to the caller, and the state stays as it was.
//!
//! Rooms, each depending only on those before it: `owner` (who holds addresses), `blocks` (two bits
//! an address), `pool` (one CIDR), `owners` (compact owner table), `state` (the pure allocator with
//! exact undo), `record` (what is written), `log` (checksummed frames on disk), `store` (snapshot,
//! logs, recovery, compaction), and `durable`, which joins `state` and `store` by group commit.

mod blocks;
mod durable;
mod log;
mod owner;
mod owners;
mod pool;
mod record;
mod state;
mod store;

pub use durable::{Allocator, Config, Error};
pub use owner::{Details, Key, Owner};
pub use pool::{MAX_POOLS, PoolUsage};
pub use state::{Refusal, State, Undo};
pub use store::{Allocation, StoreError};

#[cfg(test)]
mod model_tests;
