//! Pods: one worker each, which brings what the runtime has in line with what the API asks for.
//!
//! `plan` (what to do) and `status` (what to report) are pure; `worker` carries out; `manager` holds the workers
//! and tells them of changes; `relist` notices what happens in the runtime.

pub mod api;
pub mod backoff;
pub mod conditions;
pub mod container;
pub mod env;
pub mod fields;
pub mod hooks;
pub mod host;
pub mod kill;
pub mod labels;
pub mod manager;
pub mod messages;
pub mod observed;
pub mod orphans;
pub mod plan;
pub mod qos;
pub mod relist;
pub mod resources;
pub mod sandbox;
pub mod source;
pub mod spec;
pub mod start;
pub mod status;
pub mod worker;
