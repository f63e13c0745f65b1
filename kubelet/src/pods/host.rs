//! What all pod workers of a node share.

use std::path::PathBuf;
use std::sync::Arc;

use super::api::PodApi;
use super::fields::Placement;
use super::sandbox::NodeDns;
use crate::cgroups::Cgroups;
use crate::cri::Runtime;
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::volumes::PodDirs;

/// The node as pod workers see it.
pub struct Host {
    /// The container runtime.
    pub runtime: Arc<dyn Runtime>,
    /// ConfigMaps, Secrets, Services.
    pub objects: Arc<dyn Objects>,
    /// Where pods' statuses go.
    pub api: Arc<dyn PodApi>,
    /// Events.
    pub recorder: Recorder,
    /// Directories of pods.
    pub dirs: PodDirs,
    /// Directory of pods' logs.
    pub logs: PathBuf,
    /// Pods' cgroups; `None` where there are none to make (tests).
    pub cgroups: Option<Cgroups>,
    /// Resolver configuration for pods.
    pub dns: NodeDns,
    /// Name, addresses and allocatable resources of the node; without pod addresses.
    pub placement: Placement,
    /// The node's memory in bytes.
    pub memory_capacity: u64,
    /// Name of the runtime, which prefixes container ids.
    pub runtime_name: String,
    /// Counters.
    pub metrics: Arc<Metrics>,
}
