//! `sluice kubelet`: flags, the configuration file, and the checks that come before anything is changed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio_util::sync::CancellationToken;

use crate::cgroups::Cgroups;
use crate::config::{self, FileConfig};
use crate::cri::{GrpcRuntime, Runtime, socket_path};
use crate::kubelet::{self, Options};
use crate::node::{Identity, LeaseSettings, Machine, Settings};
use crate::pods::sandbox::NodeDns;
use crate::{logs, quantity, tls};

/// Run pods that are bound to this machine.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// File with the API server's address and this node's credentials
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,
    /// KubeletConfiguration (kubelet.config.k8s.io/v1beta1); flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of the node [default: the machine's hostname]
    #[arg(long, value_name = "NAME")]
    pub hostname_override: Option<String>,
    /// Addresses of the node, one of each family [default: the one that leads to the API server]
    #[arg(long, value_name = "V4,V6", value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Socket of the container runtime [default: unix:///run/containerd/containerd.sock]
    #[arg(long, value_name = "unix:///PATH")]
    pub container_runtime_endpoint: Option<String>,
    /// Directory of this kubelet's state: volumes, logs, certificates
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Parent of the cgroup `kubepods` [default: /]
    #[arg(long, value_name = "PATH")]
    pub cgroup_root: Option<String>,
    /// Port of the authenticated server; 0 for any [default: 10250]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Port of the read-only server; 0 for none [default: 10255]
    #[arg(long, value_name = "PORT")]
    pub read_only_port: Option<u16>,
    /// Address of both servers [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Serving certificate [default: a self-signed one, made in ROOT_DIR/pki]
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of the serving certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// CA of client certificates; without it only bearer tokens let callers in
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Time between two looks at the node [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    pub node_status_update_frequency: Option<Duration>,
    /// Time between renewals of the node's Lease [default: a quarter of its duration]
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    pub node_lease_renew_interval: Option<Duration>,
    /// Labels of the node
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub node_labels: Vec<String>,
    /// Taints that the node registers with
    #[arg(long, value_name = "KEY=VALUE:EFFECT", value_delimiter = ',', value_parser = config::parse_taint)]
    pub register_with_taints: Vec<k8s_openapi::api::core::v1::Taint>,
    /// Most pods at a time [default: 110]
    #[arg(long, value_name = "N")]
    pub max_pods: Option<u32>,
    /// Addresses of the cluster's DNS service
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub cluster_dns: Vec<String>,
    /// Domain of the cluster [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
}

/// Seconds after which a Lease has run out when the configuration does not say.
const LEASE_SECONDS: i32 = 40;
const RUNTIME_SOCKET: &str = "unix:///run/containerd/containerd.sock";

/// Runs a kubelet until SIGTERM or SIGINT; pods go on running without it.
///
/// # Errors
/// What is missing or wrong, before anything was changed.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let options = prepare(args).await?;
    tokio::spawn(signals(stop.clone()));
    kubelet::run(options, stop).await;
    Ok(())
}

async fn signals(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
    stop.cancel();
}

/// Checks everything that a kubelet needs and opens its listeners; only its own directories and cgroups are made.
///
/// # Errors
/// What is missing or wrong.
pub async fn prepare(args: Args) -> anyhow::Result<Options> {
    let file = read_config(args.config.as_deref())?;
    let client_config = client_config(&args.kubeconfig).await?;
    let runtime = runtime(
        args.container_runtime_endpoint
            .as_ref()
            .or(file.container_runtime_endpoint.as_ref()),
    )
    .await?;
    let root = args
        .cgroup_root
        .as_deref()
        .or(file.cgroup_root.as_deref())
        .unwrap_or("/");
    let cgroups = Cgroups::new(root)?;
    let hostname = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let name = args
        .hostname_override
        .clone()
        .unwrap_or(hostname)
        .to_lowercase();
    let ips = node_ips(&args.node_ip, &client_config.cluster_url)?;
    let files = serving_files(&args, &file, &name, &ips)?;
    let client_ca = args
        .client_ca_file
        .clone()
        .or(file.authentication.x509.client_ca_file.clone());
    let tls = tls::server_config(&files, client_ca.as_deref())?;
    let (secure, read_only) = listeners(&args, &file).await?;
    let machine = Machine::read(&args.root_dir);
    let identity = identity(
        &args,
        &file,
        name,
        ips,
        secure.local_addr()?.port(),
        machine,
    )?;
    create_directories(&args.root_dir)?;
    cgroups.create_classes(identity.allocatable().0)?;
    let lease = lease(&args, &file, &identity.name);
    let frequency = args
        .node_status_update_frequency
        .or(file.node_status_update_frequency);
    Ok(Options {
        client: kube::Client::try_from(client_config)
            .context("cannot make a client from the kubeconfig")?,
        runtime,
        identity,
        logs: file
            .pod_logs_dir
            .clone()
            .unwrap_or_else(|| args.root_dir.join("logs/pods")),
        log_limits: log_limits(&file)?,
        cgroups,
        dns: dns(&args, &file),
        node: Settings {
            frequency: frequency.unwrap_or(Duration::from_secs(10)),
            root_dir: args.root_dir.clone(),
        },
        lease,
        secure: (secure, tls),
        read_only,
        root_dir: args.root_dir,
    })
}

fn read_config(path: Option<&Path>) -> anyhow::Result<FileConfig> {
    let Some(path) = path else {
        return Ok(FileConfig::default());
    };
    let (file, unused) = config::read(path)?;
    for field in unused {
        tracing::warn!(file = %path.display(), field, "this field of the configuration is not used");
    }
    Ok(file)
}

async fn client_config(path: &Path) -> anyhow::Result<kube::Config> {
    let readable = std::fs::File::open(path);
    readable.with_context(|| format!("cannot read {}", path.display()))?;
    let kubeconfig = Kubeconfig::read_from(path)
        .with_context(|| format!("{} is no kubeconfig", path.display()))?;
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.with_context(|| format!("{} can't be used", path.display()))?;
    config.connect_timeout = Some(Duration::from_secs(5));
    // Longer than the minute between two bookmarks of a watch: silence for that long is a dead connection.
    config.read_timeout = Some(Duration::from_secs(90));
    Ok(config)
}

async fn runtime(endpoint: Option<&String>) -> anyhow::Result<Arc<dyn Runtime>> {
    let endpoint = endpoint.map_or(RUNTIME_SOCKET, String::as_str);
    let socket = socket_path(endpoint).map_err(|message| anyhow!(message))?;
    let runtime = GrpcRuntime::new(&socket);
    match runtime.version().await {
        Ok(version) => {
            tracing::info!(
                runtime = version.runtime_name,
                version = version.runtime_version,
                "connected"
            );
            Ok(Arc::new(runtime))
        }
        Err(error) => bail!(
            "no container runtime at {}: {error} (start containerd, or name its socket with --container-runtime-endpoint)",
            socket.display()
        ),
    }
}

/// The given addresses, or the one that this machine uses towards the API server.
fn node_ips(given: &[IpAddr], server: &http::Uri) -> anyhow::Result<Vec<String>> {
    if !given.is_empty() {
        if given.len() > 2 || (given.len() == 2 && given[0].is_ipv4() == given[1].is_ipv4()) {
            bail!("--node-ip takes at most one address of each family");
        }
        return Ok(given.iter().map(ToString::to_string).collect());
    }
    let host = server
        .host()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let found = local_address(&host, server.port_u16().unwrap_or(443));
    let found = found.with_context(|| {
        format!("cannot tell this node's address towards {host}; set --node-ip")
    })?;
    Ok(vec![found.to_string()])
}

/// The source address of a datagram to `host`; nothing is sent.
fn local_address(host: &str, port: u16) -> std::io::Result<IpAddr> {
    let target = std::net::ToSocketAddrs::to_socket_addrs(&(host, port))?.next();
    let target = target.ok_or_else(|| std::io::Error::other("the name has no address"))?;
    let any: SocketAddr = if target.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        "[::]:0".parse().map_err(std::io::Error::other)?
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}

fn serving_files(
    args: &Args,
    file: &FileConfig,
    name: &str,
    ips: &[String],
) -> anyhow::Result<tls::ServingFiles> {
    let cert = args.tls_cert_file.clone().or(file.tls_cert_file.clone());
    let key = args
        .tls_private_key_file
        .clone()
        .or(file.tls_private_key_file.clone());
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(tls::ServingFiles { cert, key }),
        (None, None) => {
            let names: Vec<_> = std::iter::once(name.to_owned())
                .chain(ips.iter().cloned())
                .collect();
            Ok(tls::self_signed(&args.root_dir.join("pki"), &names)?)
        }
        _ => bail!("tlsCertFile and tlsPrivateKeyFile must be set together"),
    }
}

async fn listeners(
    args: &Args,
    file: &FileConfig,
) -> anyhow::Result<(tokio::net::TcpListener, Option<tokio::net::TcpListener>)> {
    let from_file = file
        .address
        .as_deref()
        .map(str::parse)
        .transpose()
        .context("address in the configuration")?;
    let address = args
        .address
        .or(from_file)
        .unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let port = args.port.or(file.port).unwrap_or(10250);
    let read_only = args.read_only_port.or(file.read_only_port).unwrap_or(10255);
    let listen = async |port| {
        kubelet::listen(SocketAddr::new(address, port))
            .await
            .map_err(|message| anyhow!(message))
    };
    let secure = listen(port).await?;
    let read_only = if read_only == 0 {
        None
    } else {
        Some(listen(read_only).await?)
    };
    Ok((secure, read_only))
}

fn identity(
    args: &Args,
    file: &FileConfig,
    name: String,
    ips: Vec<String>,
    port: u16,
    machine: Machine,
) -> anyhow::Result<Identity> {
    let taints = if args.register_with_taints.is_empty() {
        &file.register_with_taints
    } else {
        &args.register_with_taints
    };
    Ok(Identity {
        hostname: name.clone(),
        name,
        ips,
        port,
        labels: labels(&args.node_labels)?,
        taints: taints.clone(),
        max_pods: args.max_pods.or(file.max_pods).unwrap_or(110),
        reserved: reserved(file)?,
        machine,
    })
}

fn lease(args: &Args, file: &FileConfig, node: &str) -> LeaseSettings {
    let seconds = file
        .node_lease_duration_seconds
        .unwrap_or(LEASE_SECONDS)
        .max(1);
    let quarter = Duration::from_secs(u64::from(seconds.unsigned_abs())) / 4;
    LeaseSettings {
        node: node.to_owned(),
        seconds,
        interval: args.node_lease_renew_interval.unwrap_or(quarter),
    }
}

fn labels(pairs: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let parse = |pair: &String| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(anyhow!(
            "--node-labels {pair:?} is not a label: expected key=value"
        )),
    };
    pairs
        .iter()
        .filter(|pair| !pair.is_empty())
        .map(parse)
        .collect()
}

/// CPU (thousandths) and memory (bytes) of systemReserved and kubeReserved together.
fn reserved(file: &FileConfig) -> anyhow::Result<(i64, i64)> {
    let (mut cpu, mut memory) = (0, 0);
    for (name, amount) in file.system_reserved.iter().chain(&file.kube_reserved) {
        let quantity = Quantity(amount.clone());
        let invalid = || anyhow!("reserved {name} {amount:?} is not a quantity");
        match name.as_str() {
            "cpu" => cpu += quantity::milli(&quantity).ok_or_else(invalid)?,
            "memory" => memory += quantity::value(&quantity).ok_or_else(invalid)?,
            _ => tracing::warn!(resource = name, "reserving this resource has no effect"),
        }
    }
    Ok((cpu, memory))
}

fn log_limits(file: &FileConfig) -> anyhow::Result<logs::Limits> {
    let size = file.container_log_max_size.as_deref().unwrap_or("10Mi");
    let bytes = quantity::value(&Quantity(size.into())).and_then(|bytes| u64::try_from(bytes).ok());
    let max_size =
        bytes.ok_or_else(|| anyhow!("containerLogMaxSize {size:?} is not a quantity"))?;
    Ok(logs::Limits {
        max_size,
        max_files: file.container_log_max_files.unwrap_or(5).max(2),
    })
}

fn dns(args: &Args, file: &FileConfig) -> NodeDns {
    let servers = if args.cluster_dns.is_empty() {
        &file.cluster_dns
    } else {
        &args.cluster_dns
    };
    let domain = args.cluster_domain.clone().or(file.cluster_domain.clone());
    NodeDns {
        servers: servers.clone(),
        domain: domain.unwrap_or_else(|| "cluster.local".into()),
        resolv_conf: file
            .resolv_conf
            .clone()
            .unwrap_or_else(|| "/etc/resolv.conf".into()),
    }
}

fn create_directories(root: &Path) -> anyhow::Result<()> {
    for directory in [root.join("pods"), root.join("logs/pods")] {
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(more: &[&str]) -> Args {
        Command::parse_from(
            ["kubelet", "--kubeconfig", "/nonexistent/kubeconfig"]
                .iter()
                .chain(more),
        )
        .args
    }

    async fn error(args: Args) -> String {
        match prepare(args).await {
            Ok(_) => panic!("it must not start"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_said_in_one_line() {
        let message = error(args(&[])).await;
        assert_eq!(
            message,
            "cannot read /nonexistent/kubeconfig: No such file or directory (os error 2)"
        );
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        let text = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n\
            users: [{name: u, user: {token: t}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n";
        std::fs::write(&kubeconfig, text).unwrap();
        let mut with_kubeconfig = args(&[
            "--container-runtime-endpoint",
            "unix:///nonexistent/cri.sock",
        ]);
        with_kubeconfig.kubeconfig = kubeconfig;
        let message = error(with_kubeconfig).await;
        assert!(
            message.starts_with("no container runtime at /nonexistent/cri.sock"),
            "{message}"
        );
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn addresses_are_one_of_each_family() {
        let server = "https://127.0.0.1:6443".parse().unwrap();
        let two: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(
            node_ips(&two, &server).unwrap(),
            ["192.0.2.1", "2001:db8::1"]
        );
        assert!(node_ips(&[two[0], two[0]], &server).is_err());
        assert_eq!(node_ips(&[], &server).unwrap(), ["127.0.0.1"]);
    }

    #[test]
    fn labels_and_reservations_are_checked() {
        assert_eq!(labels(&["a=b".into()]).unwrap()["a"], "b");
        assert!(labels(&["a".into()]).is_err());
        let mut file = FileConfig::default();
        file.system_reserved.insert("cpu".into(), "500m".into());
        file.kube_reserved.insert("memory".into(), "1Gi".into());
        assert_eq!(reserved(&file).unwrap(), (500, 1 << 30));
        file.kube_reserved.insert("cpu".into(), "lots".into());
        assert!(reserved(&file).is_err());
    }
}
