//! The node's daemon: owns the allocator, answers the plugin, keeps the routes to other nodes' pods, and
//! installs the plugin where the container runtime looks for it.
//!
//! It may die at any moment. Pods keep their links and routes, the plugin waits for its successor, and the
//! successor reads the allocations from disk and repairs what changed meanwhile.

mod host;
mod install;
mod inventory;
mod node;
mod routing;
mod server;
mod service;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ipnetwork::IpNetwork;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::allocator::{Allocator, Config};
use node::Topology;
use service::Service;

/// Where the node's pod CIDRs come from.
pub enum Source {
    /// This node's Node object; other Nodes give the routes.
    Kubernetes {
        /// Talks to the API server.
        client: kube::Client,
        /// This Node's name.
        node: String,
    },
    /// The operator. There are no other nodes.
    Fixed(Vec<IpNetwork>),
}

/// How to run.
pub struct Options {
    /// Where the plugin asks.
    pub socket: PathBuf,
    /// The allocator's directory.
    pub data_dir: PathBuf,
    /// Where the runtime reads network configurations.
    pub cni_conf_dir: PathBuf,
    /// Where the runtime finds plugins.
    pub cni_bin_dir: PathBuf,
    /// Of pods' links, in bytes; that of the uplink where `None`.
    pub mtu: Option<u32>,
    /// How long a freed address rests.
    pub cool_down: Duration,
    /// Never handed out.
    pub reserved: Vec<IpNetwork>,
    /// Pools and peers.
    pub source: Source,
}

/// Runs until it is cancelled, or until something fails that waiting does not mend.
pub async fn run(options: Options, cancel: CancellationToken) -> anyhow::Result<()> {
    host::prepare().context("cannot prepare the node for routing (this needs root)")?;
    let allocator = open_allocator(&options)?;
    let service = Arc::new(Service::new(allocator, options.mtu));
    // A guess until the node's addresses are known.
    service.follow_mtu(host::uplink_mtu(&[]).context("cannot read the uplink's MTU")?);
    let listener = server::bind(&options.socket)
        .with_context(|| format!("cannot listen on {}", options.socket.display()))?;
    install::plugin(&options.cni_bin_dir).with_context(|| {
        format!(
            "cannot install the CNI plugin in {}",
            options.cni_bin_dir.display()
        )
    })?;
    let installer = install::Conflist::new(&options.cni_conf_dir, &options.socket);
    let (topology, watched) = watch::channel(None);
    let mut tasks = JoinSet::new();
    tasks.spawn(server::serve(listener, service.clone(), cancel.clone()));
    tasks.spawn(routing::run(service.clone(), watched, cancel.clone()));
    tasks.spawn(node::run(
        options.source,
        service,
        installer,
        topology,
        cancel.clone(),
    ));
    let outcome = first_failure(&mut tasks).await;
    cancel.cancel();
    while tasks.join_next().await.is_some() {}
    outcome
}

fn open_allocator(options: &Options) -> anyhow::Result<Allocator> {
    let mut config = Config::new(&options.data_dir);
    config.cool_down = options.cool_down;
    config.reserved.clone_from(&options.reserved);
    Ok(Allocator::open(config)?)
}

/// Waits for all tasks, or for the first that fails.
async fn first_failure(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a part of the daemon panicked")??;
    }
    Ok(())
}

/// What the node and its peers look like; `None` until it is known.
type Watched = watch::Receiver<Option<Topology>>;
