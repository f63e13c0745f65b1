//! The master process: API server, scheduler and controllers, wired together.
//!
//! The API server is started first and is the only part that touches the store. Scheduler and
//! controllers are clients of it like any other, each with an identity of its own, and run only while
//! this process holds their Lease, so that several masters over one store never act twice.
#![forbid(unsafe_code)]

pub mod cli;

mod activation;
mod process;
mod settings;
