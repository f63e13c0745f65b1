//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_store::Store;
use tokio_util::sync::CancellationToken;

use crate::authn::Authenticator;
use crate::cache::Cache;
use crate::metrics::Metrics;
use crate::services::Services;
use crate::streaming::Kubelets;

/// How long pods stay on nodes that fail, seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TolerationSeconds {
    pub(crate) not_ready: i64,
    pub(crate) unreachable: i64,
}

/// The running server's parts.
pub(crate) struct App {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) services: Services,
    pub(crate) authenticator: Authenticator,
    pub(crate) kubelets: Kubelets,
    pub(crate) tolerations: TolerationSeconds,
    pub(crate) metrics: Metrics,
    /// HOST:PORT for clients inside the cluster, as discovery tells it.
    pub(crate) address: String,
    /// Cancelled when the server begins to stop: streams end then.
    pub(crate) stopping: CancellationToken,
    pub(crate) bootstrapped: AtomicBool,
}

impl App {
    /// Whether the objects that every cluster has are there.
    pub(crate) fn is_bootstrapped(&self) -> bool {
        self.bootstrapped.load(Ordering::Acquire)
    }

    pub(crate) fn set_bootstrapped(&self) {
        self.bootstrapped.store(true, Ordering::Release);
    }
}
