//! Which subcommands there are, and which crate's entry point each one calls.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sluice_proxy::inspect::cli as inspect;

/// The node side of Kubernetes networking: an eBPF service load balancer, a per-pod IP allocator, a kubelet and a minimal master.
#[derive(Parser)]
#[command(name = "sluice", version, max_term_width = 110)]
pub struct Cli {
    /// Log verbosity: up to 3 for information, 4 for debugging, 6 for everything; RUST_LOG wins
    #[arg(
        short = 'v',
        long = "v",
        value_name = "N",
        global = true,
        default_value_t = 2
    )]
    pub verbosity: u8,

    #[command(subcommand)]
    pub command: Command,
}

/// One part of Sluice.
#[derive(Subcommand)]
pub enum Command {
    /// Bring up a cluster on this machine: a master and three nodes, each in a network namespace of its own
    Up(sluice_cluster::cli::UpArgs),
    /// Remove a cluster that `sluice up` made, also after a crash
    Down(sluice_cluster::cli::DownArgs),
    /// Show a cluster's processes, nodes and pods
    Status(sluice_cluster::cli::StatusArgs),
    /// Run a master: API server, store, scheduler and controllers
    Master(sluice_master::cli::Args),
    /// Run a node's pods through a CRI runtime
    Kubelet(sluice_kubelet::cli::Args),
    /// Balance Services on this node, in place of kube-proxy
    Proxy(sluice_proxy::cli::Args),
    /// Assign addresses to pods on this node, or look at what is assigned
    Ipam(sluice_ipam::cli::Args),
    /// Be the CNI plugin, as a container runtime calls it (also when called under the name sluice-cni)
    Cni,
    /// Show the Services in this node's dataplane
    Service(inspect::ServiceArgs),
    /// Show the backends in this node's dataplane
    Backend(inspect::BackendArgs),
    /// Show the flows that this node's dataplane knows
    Flow(inspect::FlowArgs),
    /// Show what this node's dataplane dropped, and why
    Drops(inspect::DropsArgs),
    /// Print the version
    Version,
}

impl Command {
    /// The name under which errors are reported.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Up(_) => "up",
            Self::Down(_) => "down",
            Self::Status(_) => "status",
            Self::Master(_) => "master",
            Self::Kubelet(_) => "kubelet",
            Self::Proxy(_) => "proxy",
            Self::Service(_) => "service",
            Self::Backend(_) => "backend",
            Self::Flow(_) => "flow",
            Self::Drops(_) => "drops",
            Self::Ipam(_) => "ipam",
            Self::Cni => "cni",
            Self::Version => "version",
        }
    }

    /// Whether its output is read by somebody who waits for it, rather than kept as a log.
    pub fn is_for_people(&self) -> bool {
        matches!(
            self,
            Self::Up(_) | Self::Down(_) | Self::Status(_) | Self::Version
        )
    }

    /// Runs the part until it ends or is told to.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Up(args) => sluice_cluster::cli::up(args).await?,
            Self::Down(args) => sluice_cluster::cli::down(args).await?,
            Self::Status(args) => sluice_cluster::cli::status(args).await?,
            Self::Master(args) => sluice_master::cli::run(args).await?,
            Self::Kubelet(args) => sluice_kubelet::cli::run(args).await?,
            Self::Proxy(args) => sluice_proxy::cli::run(args).await?,
            Self::Service(args) => inspect::run_service(args)?,
            Self::Backend(args) => inspect::run_backend(args)?,
            Self::Flow(args) => inspect::run_flow(args)?,
            Self::Drops(args) => inspect::run_drops(args)?,
            Self::Ipam(args) => sluice_ipam::cli::run(args).await?,
            Self::Cni => return Ok(sluice_ipam::plugin::main()),
            Self::Version => println!("sluice {}", env!("CARGO_PKG_VERSION")),
        }
        Ok(ExitCode::SUCCESS)
    }
}
