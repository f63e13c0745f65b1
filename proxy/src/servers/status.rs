//! What is not as it should be, for `/status` and the metrics.

use std::collections::BTreeMap;
use std::sync::RwLock;

use serde::Serialize;

use crate::planner::PortId;

/// Shared between the agent, which writes it, and the servers.
#[derive(Debug, Default)]
pub struct Status {
    /// See [`Report`].
    pub report: RwLock<Report>,
    /// Services in the maps by id.
    pub services: RwLock<BTreeMap<u32, PortId>>,
}

/// The body of `/status`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The first full sync is done.
    pub synced: bool,
    /// Fields that could not be used, in words.
    pub problems: Vec<ProblemReport>,
    /// Services that could not be written.
    pub failing: Vec<FailureReport>,
    /// How full each table is.
    pub maps: Vec<MapReport>,
}

/// A field that could not be used.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProblemReport {
    /// The object's kind.
    pub kind: &'static str,
    /// `namespace/name`.
    pub object: String,
    /// The field's path.
    pub field: String,
    /// A short name of the fault.
    pub fault: &'static str,
    /// In words.
    pub message: String,
}

/// A Service that could not be written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureReport {
    /// `namespace/name`.
    pub service: String,
    /// The last error.
    pub error: String,
    /// A table was full.
    pub full: bool,
    /// Attempts in a row.
    pub attempts: u32,
}

/// How full a table is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MapReport {
    /// Its name.
    pub name: &'static str,
    /// Entries in use.
    pub used: u32,
    /// Entries in all.
    pub capacity: u32,
}
