//! The command line: `daemon`, and what asks it (`show`, `check`, `release`).

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::daemon::{self, Options, Source};
use crate::protocol::{DEFAULT_SOCKET, Reply, Request};
use crate::report;

/// Pod addresses: run the node's daemon, or look at what it holds.
#[derive(Debug, Parser)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Assign addresses to pods on this node, and keep the routes to other nodes' pods
    Daemon(DaemonArgs),
    /// Print the address pools and who holds which address
    Show(ShowArgs),
    /// Compare what is allocated with the links and routes that exist; fails where they differ
    Check(AskArgs),
    /// Free the addresses of a container that the runtime forgot
    Release(ReleaseArgs),
}

/// `sluice ipam daemon`.
#[derive(Debug, Parser)]
pub struct DaemonArgs {
    /// How to reach the API server; by default KUBECONFIG, or the pod's service account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The name of this node's Node object [default: the host's name]
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,
    /// The unix socket to serve the CNI plugin on
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Where allocations are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sluice/ipam")]
    data_dir: PathBuf,
    /// Where the container runtime reads network configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    /// Where the container runtime looks for plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    cni_bin_dir: PathBuf,
    /// MTU of pods' links in bytes [default: the uplink's]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1280..=65535))]
    mtu: Option<u32>,
    /// Run without Kubernetes and take addresses from these CIDRs
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        conflicts_with = "kubeconfig"
    )]
    pod_cidr: Vec<IpNetwork>,
    /// Addresses or CIDRs that are never handed out
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    reserve: Vec<IpNetwork>,
    /// Seconds for which a freed address rests
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    cool_down: u64,
}

#[derive(Debug, Parser)]
struct AskArgs {
    /// The daemon's socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Parser)]
struct ShowArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Parser)]
struct ReleaseArgs {
    /// An address, a container id, or CONTAINER/INTERFACE
    target: String,
    /// Also when its link still exists: the link is removed
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the command. The daemon ends at SIGTERM or SIGINT.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Daemon(args) => run_daemon(args).await,
        Command::Show(args) => {
            let reply = ask(&args.ask, Request::Show).await?;
            match args.output {
                Format::Table => print(&report::shown(&reply)),
                Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&reply)?)),
            }
        }
        Command::Check(args) => check(&args).await,
        Command::Release(args) => {
            let request = Request::Free {
                target: args.target,
                force: args.force,
            };
            print(&report::freed(&ask(&args.ask, request).await?))
        }
    }
}

async fn check(args: &AskArgs) -> anyhow::Result<()> {
    let Reply::Checked { findings } = ask(args, Request::Check).await? else {
        bail!("the daemon gave an unexpected answer");
    };
    print(&report::checked(&findings))?;
    match findings.len() {
        0 => Ok(()),
        count => {
            bail!("{count} differences; look again in a moment, pods may be starting or stopping")
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

async fn ask(args: &AskArgs, request: Request) -> anyhow::Result<Reply> {
    let client = Client::new(&args.socket, Duration::ZERO);
    let reply = tokio::task::spawn_blocking(move || client.call(&request)).await?;
    match reply.context("is `sluice ipam daemon` running?")? {
        Reply::Failed { message, .. } => bail!(message),
        reply => Ok(reply),
    }
}

async fn run_daemon(args: DaemonArgs) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    tokio::spawn(cancel_on_signal(cancel.clone())?);
    let source = source(&args).await?;
    let options = Options {
        socket: args.socket,
        data_dir: args.data_dir,
        cni_conf_dir: args.cni_conf_dir,
        cni_bin_dir: args.cni_bin_dir,
        mtu: args.mtu,
        cool_down: Duration::from_secs(args.cool_down),
        reserved: args.reserve,
        source,
    };
    daemon::run(options, cancel).await
}

fn cancel_on_signal(cancel: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    })
}

async fn source(args: &DaemonArgs) -> anyhow::Result<Source> {
    if !args.pod_cidr.is_empty() {
        return Ok(Source::Fixed(args.pod_cidr.clone()));
    }
    let config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("{} is not a usable kubeconfig", path.display()))?
        }
        None => kube::Config::infer().await.context(
            "no API server: give --kubeconfig FILE, or --pod-cidr CIDR to run without Kubernetes",
        )?,
    };
    let client = kube::Client::try_from(config).context("cannot make an API client")?;
    Ok(Source::Kubernetes {
        client,
        node: node_name(args)?,
    })
}

/// As the kubelet does: the host's name in lower case.
fn node_name(args: &DaemonArgs) -> anyhow::Result<String> {
    if let Some(name) = &args.hostname_override {
        return Ok(name.clone());
    }
    let name = nix::unistd::gethostname().context("cannot read the host's name")?;
    Ok(name.to_string_lossy().trim().to_lowercase())
}
