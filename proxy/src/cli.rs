//! `sluice proxy`: the command line, and how the parts are put together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueEnum;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::agent::{Agent, NodeConfig, Shared};
use crate::config::{Config, FileConfig, Flags};
use crate::maps::Capacity;
use crate::maps::kernel::KernelMaps;
use crate::planner::{Node, Options, Planner};
use crate::reconciler::Reconciler;
use crate::watch::{Feed, Nodes};
use crate::{interfaces, loader, preflight, servers, watch};

/// Where pins are unless said otherwise.
pub const BPF_ROOT: &str = "/sys/fs/bpf/sluice";

/// Balance the traffic of Kubernetes Services on this node, in place of kube-proxy
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Kubeconfig for the API server; without it the pod's service account is used
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// KubeProxyConfiguration file (kubeproxy.config.k8s.io/v1alpha1); flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Name of this node; without it the host name
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,

    /// Networks whose addresses of this node serve node ports, or "primary"; without it all addresses
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    node_port_addresses: Vec<String>,

    /// Networks of the pods, one per family
    #[arg(long, value_name = "CIDRS")]
    cluster_cidr: Option<String>,

    /// Networks outside of the cluster that see the pods' own addresses
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    non_masquerade_cidrs: Vec<String>,

    /// Give pods that leave --cluster-cidr the node's address
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    masquerade: bool,

    /// Where to serve /metrics and /status; empty: nowhere [default: 127.0.0.1:10249]
    #[arg(long, value_name = "ADDR")]
    metrics_bind_address: Option<String>,

    /// Where to serve /healthz, /livez and /readyz; empty: nowhere [default: 0.0.0.0:10256]
    #[arg(long, value_name = "ADDR")]
    healthz_bind_address: Option<String>,

    /// Directory on a BPF filesystem that maps and links are pinned in
    #[arg(long, value_name = "DIR", default_value = BPF_ROOT)]
    bpf_root: PathBuf,

    /// cgroup2 directory whose processes' sockets are served; without it the root of the hierarchy
    #[arg(long, value_name = "DIR")]
    cgroup_path: Option<PathBuf>,

    /// Interfaces to the outside; without it those with the node's addresses or a default route
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    devices: Vec<String>,

    /// How packets from outside are taken in
    #[arg(long, value_name = "MODE", value_enum, default_value_t = XdpMode::Auto)]
    xdp_mode: XdpMode,

    /// Remove all programs and maps of an earlier run from this node, and end
    #[arg(long)]
    cleanup: bool,
}

/// How packets from outside are taken in.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum XdpMode {
    /// In the driver; generic XDP where it cannot
    Auto,
    /// In the driver, or not at all
    Native,
    /// Generic XDP
    Generic,
    /// At the traffic-control hook
    Off,
}

impl From<XdpMode> for loader::XdpMode {
    fn from(mode: XdpMode) -> Self {
        match mode {
            XdpMode::Auto => Self::Auto,
            XdpMode::Native => Self::Native,
            XdpMode::Generic => Self::Generic,
            XdpMode::Off => Self::Off,
        }
    }
}

/// Runs the agent until SIGTERM or SIGINT. Programs and maps stay: traffic goes on without it.
///
/// # Errors
/// Whatever keeps it from starting, each before anything on the machine was changed where possible.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if args.cleanup {
        preflight::check(&args.bpf_root)?;
        return Ok(loader::cleanup(&args.bpf_root)?);
    }
    let config = settle(args)?;
    preflight::check(&config.bpf_root)?;
    let cgroup = preflight::cgroup(config.cgroup_path.as_deref())?;
    let cancel = end_on_signal()?;
    let client = client(config.kubeconfig.as_deref()).await?;
    let listeners = Listeners::bind(&config).await?;

    let local = interfaces::addresses().context("cannot read this machine's addresses")?;
    let devices = devices(&config, &client, &local).await?;
    let dataplane = start_dataplane(&config, cgroup, devices)?;
    let reconciler =
        Reconciler::restore(dataplane.maps).context("cannot read the pinned maps back")?;

    let shared = Shared::default();
    let observer: servers::scrape::Observer =
        Arc::new(KernelMaps::open(&config.bpf_root).context("cannot open the pinned maps")?);
    listeners.serve(&shared, &observer, &cancel);

    let node = NodeConfig::new(&config, loader::netns_cookie()?, local);
    let mut planner = Planner::new(Options {
        loopback_node_ports: config.loopback_node_ports,
    });
    planner.set_node_port_addresses(node.node_port_addresses(&Node::default()));
    let addresses = interfaces::watch().context("cannot watch this machine's addresses")?;
    let nodes = if config.masquerades() {
        Nodes::All
    } else {
        Nodes::Own
    };
    let events = watch::start(&client, &config.node_name, nodes);
    let feed = Feed::new(&config.node_name);
    Agent::new(feed, planner, reconciler, node, shared, observer)
        .run(events, addresses, cancel)
        .await;
    info!("ended; programs and maps stay, so traffic goes on");
    Ok(())
}

fn settle(args: Args) -> anyhow::Result<Config> {
    let file = match &args.config {
        Some(path) => FileConfig::read(path)?,
        None => FileConfig::default(),
    };
    if !file.ignored.is_empty() {
        warn!(
            fields = file.ignored.join(", "),
            "these fields of --config have no effect"
        );
    }
    let flags = Flags {
        kubeconfig: args.kubeconfig,
        hostname_override: args.hostname_override,
        node_port_addresses: args.node_port_addresses,
        cluster_cidr: args.cluster_cidr,
        non_masquerade_cidrs: args.non_masquerade_cidrs,
        masquerade: args.masquerade,
        metrics_bind_address: args.metrics_bind_address,
        healthz_bind_address: args.healthz_bind_address,
        bpf_root: args.bpf_root,
        cgroup_path: args.cgroup_path,
        devices: args.devices,
        xdp_mode: args.xdp_mode.into(),
    };
    let config = Config::resolve(flags, file)?;
    if config.masquerade && config.cluster_cidrs.is_empty() {
        warn!("pods that leave the cluster keep their addresses: --cluster-cidr is not set");
    }
    Ok(config)
}

async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("cannot use {}", path.display()))?
        }
        None => kube::Config::incluster().context(
            "no --kubeconfig, and this is not a pod with a service account; give --kubeconfig FILE",
        )?,
    };
    Ok(Client::try_from(config)?)
}

/// The given devices, or those that look like the way out. The Node tells which addresses it has; when
/// the API server cannot be asked, a default route must do.
async fn devices(
    config: &Config,
    client: &Client,
    local: &[(String, std::net::IpAddr)],
) -> anyhow::Result<Vec<String>> {
    if !config.devices.is_empty() {
        return Ok(config.devices.clone());
    }
    let api = Api::<k8s_openapi::api::core::v1::Node>::all(client.clone());
    let node = match api.get_opt(&config.node_name).await {
        Ok(node) => node.map(|node| Node::from_api(&node)).unwrap_or_default(),
        Err(error) => {
            warn!(
                error = crate::chain(&error),
                "cannot ask for this node's addresses; --devices comes from its default route"
            );
            Node::default()
        }
    };
    let found = preflight::devices(local, &node)?;
    if found.is_empty() {
        warn!(
            "no interface has this node's address or a default route: nothing is served to the outside; see --devices"
        );
    }
    Ok(found)
}

fn start_dataplane(
    config: &Config,
    cgroup: PathBuf,
    devices: Vec<String>,
) -> anyhow::Result<loader::Dataplane> {
    let options = loader::Options {
        bpf_root: config.bpf_root.clone(),
        cgroup: Some(cgroup),
        devices,
        xdp_mode: config.xdp_mode,
        capacity: Capacity::for_memory(loader::memory_bytes()?),
    };
    let dataplane = loader::start(&options).map_err(in_one_line)?;
    for attachment in &dataplane.attachments {
        info!(?attachment, "attached");
    }
    Ok(dataplane)
}

/// A program that is refused comes with the verifier's whole log: for the log, not for the last line.
fn in_one_line(error: loader::LoaderError) -> anyhow::Error {
    use aya::programs::ProgramError::LoadError;
    match error {
        loader::LoaderError::Program {
            program,
            source:
                LoadError {
                    io_error,
                    verifier_log,
                },
        } => {
            tracing::debug!(program, %verifier_log, "refused");
            anyhow::Error::new(io_error).context(format!(
                "the kernel does not accept program {program}; Linux 6.6 or later is needed (-v 4 shows the verifier's log)"
            ))
        }
        other => other.into(),
    }
}

/// The servers' sockets: bound before the machine is changed, so that a second agent ends at once.
struct Listeners {
    healthz: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, servers::BindError> {
        let mut this = Self {
            healthz: None,
            metrics: None,
        };
        if let Some(addr) = config.healthz_address {
            this.healthz = Some(servers::bind("/healthz", addr).await?);
        }
        if let Some(addr) = config.metrics_address {
            this.metrics = Some(servers::bind("/metrics", addr).await?);
        }
        Ok(this)
    }

    fn serve(
        self,
        shared: &Shared,
        observer: &servers::scrape::Observer,
        cancel: &CancellationToken,
    ) {
        if let Some(listener) = self.healthz {
            let router = servers::healthz::router(shared.health.clone(), shared.metrics.clone());
            tokio::spawn(servers::serve(listener, router, cancel.clone()));
        }
        if let Some(listener) = self.metrics {
            let router =
                servers::scrape::router(&shared.metrics, shared.status.clone(), observer.clone());
            tokio::spawn(servers::serve(listener, router, cancel.clone()));
        }
    }
}

fn end_on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(cancel)
}
