//! The server as a whole: configuration, start and stop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use ipnetwork::IpNetwork;
use sluice_api::{ApiError, kinds};
use sluice_store::{Embedded, Options, Store, StoreError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, TolerationSeconds};
use crate::authn::{Authenticator, ServiceAccountTokens, TokenError, TokenFile, TokenFileError};
use crate::bootstrap::{self, Endpoint};
use crate::cache::Cache;
use crate::metrics::Metrics;
use crate::pki::{Pki, PkiError};
use crate::services::{Services, first_address};
use crate::streaming::Kubelets;
use crate::tls::{self, TlsError};
use crate::{expiry, front, keys, listen};

const DEFAULT_PORT: u16 = 6443;
/// The Service's DNS names, for which the certificate has to hold too.
const NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
/// How long open connections get to end when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How to run the server.
pub struct Config {
    /// Where certificates and the store are.
    pub data_dir: PathBuf,
    /// The address to listen on.
    pub bind_address: IpAddr,
    /// The port to listen on; 0 takes any.
    pub secure_port: u16,
    /// The address by which members of the cluster reach this server; found by itself when not given.
    pub advertise_address: Option<IpAddr>,
    /// Further names and addresses for the serving certificate.
    pub tls_sans: Vec<String>,
    /// Ranges of cluster IPs, the primary family first.
    pub service_cidrs: Vec<IpNetwork>,
    /// Range of node ports.
    pub node_port_range: RangeInclusive<u16>,
    /// Static bearer tokens.
    pub token_auth_file: Option<PathBuf>,
    /// How long pods stay on a node that is not ready.
    pub default_not_ready_toleration_seconds: i64,
    /// How long pods stay on a node that can't be reached.
    pub default_unreachable_toleration_seconds: i64,
    /// PEM file of the authority that kubelets' serving certificates must be of; any certificate is taken when not given.
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Sockets that another process has bound (socket activation).
    pub inherited: Vec<StdListener>,
    /// The store; `None` for the embedded one in `data_dir`.
    pub store: Option<Arc<dyn Store>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from(crate::pki::cli::DEFAULT_DATA_DIR),
            bind_address: Ipv4Addr::UNSPECIFIED.into(),
            secure_port: DEFAULT_PORT,
            advertise_address: None,
            tls_sans: Vec::new(),
            service_cidrs: default_cidrs(),
            node_port_range: 30000..=32767,
            token_auth_file: None,
            default_not_ready_toleration_seconds: 300,
            default_unreachable_toleration_seconds: 300,
            kubelet_certificate_authority: None,
            inherited: Vec::new(),
            store: None,
        }
    }
}

fn default_cidrs() -> Vec<IpNetwork> {
    ["10.96.0.0/16", "fd00:10:96::/112"]
        .iter()
        .filter_map(|cidr| cidr.parse().ok())
        .collect()
}

/// Why the server can't start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory can't be made.
    #[error("cannot create the data directory {path}: {source}")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Static tokens.
    #[error(transparent)]
    TokenFile(#[from] TokenFileError),
    /// Service account tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority for kubelets.
    #[error("cannot read {path}: {source}")]
    KubeletAuthority {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The socket.
    #[error(
        "cannot listen on {address}: {source}; is another server running, or is --secure-port in use?"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// An inherited socket.
    #[error("cannot use an inherited socket: {0}")]
    Inherited(std::io::Error),
    /// The objects that every cluster has.
    #[error("cannot create the cluster's own objects: {0}")]
    Bootstrap(ApiError),
    /// The configuration.
    #[error("{0}")]
    Config(String),
}

/// How the server's own process reaches it, as an administrator.
#[derive(Clone)]
pub struct Loopback {
    /// `https://ADDRESS:PORT`.
    pub server: String,
    /// The authority's certificate.
    pub ca_pem: String,
    /// Client certificate of a member of `system:masters`.
    pub client_cert_pem: String,
    /// Its key.
    pub client_key_pem: String,
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    loopback: Loopback,
    store: Arc<dyn Store>,
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    /// Starts to serve. Returns when requests are answered.
    pub async fn start(mut config: Config) -> Result<Self, ServerError> {
        check(&config)?;
        std::fs::create_dir_all(&config.data_dir).map_err(|source| ServerError::DataDir {
            path: config.data_dir.clone(),
            source,
        })?;
        let pki = Pki::open_or_create(&config.data_dir)?;
        let store = open_store(&config)?;
        let stop = CancellationToken::new();
        let listeners = listeners(&mut config).await?;
        let address = listeners[0].local_addr().map_err(ServerError::Inherited)?;
        let advertised = bootstrap::advertised(config.advertise_address, address.ip())
            .map(|ip| SocketAddr::new(ip, address.port()));
        let reached_at = advertised.unwrap_or(address);
        let app = app(&config, &pki, store.clone(), reached_at, stop.clone()).await?;
        let names = names(&config, address.ip(), advertised);
        let tls = tls::server(&pki.serving(&names)?, pki.ca_pem())?;
        let endpoint = Endpoint {
            cidrs: config.service_cidrs,
            address: advertised,
        };
        bootstrap::start(app.clone(), endpoint)
            .await
            .map_err(ServerError::Bootstrap)?;
        expiry::start(app.clone());
        let connections = TaskTracker::new();
        let router = front::router(app);
        for listener in listeners {
            let (tls, router) = (tls.clone(), router.clone());
            let serving = listen::serve(listener, tls, router, connections.clone(), stop.clone());
            connections.spawn(serving);
        }
        let loopback = loopback(&pki, address)?;
        tracing::info!(%address, "ready");
        Ok(Self {
            address,
            loopback,
            store,
            stop,
            connections,
        })
    }

    /// Where the server listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// How to reach it from here.
    pub fn loopback(&self) -> &Loopback {
        &self.loopback
    }

    /// Ends streams, lets open requests finish, and closes the store.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.connections.close();
        if tokio::time::timeout(DRAIN, self.connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(open = self.connections.len(), "connections are cut off");
        }
        self.store.close().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn check(config: &Config) -> Result<(), ServerError> {
    let families: Vec<bool> = config
        .service_cidrs
        .iter()
        .map(IpNetwork::is_ipv6)
        .collect();
    if !matches!(families[..], [_] | [true, false] | [false, true]) {
        return Err(ServerError::Config(
            "--service-cluster-ip-range: expected one range, or one of each family".to_owned(),
        ));
    }
    if config.node_port_range.is_empty() {
        return Err(ServerError::Config(
            "--service-node-port-range: the range is empty".to_owned(),
        ));
    }
    Ok(())
}

fn open_store(config: &Config) -> Result<Arc<dyn Store>, ServerError> {
    match &config.store {
        Some(store) => Ok(store.clone()),
        None => {
            let path = config.data_dir.join("store.redb");
            Ok(Arc::new(Embedded::open(path, Options::default())?))
        }
    }
}

/// Our own socket first, then the inherited ones.
async fn listeners(config: &mut Config) -> Result<Vec<TcpListener>, ServerError> {
    let address = SocketAddr::new(config.bind_address, config.secure_port);
    let own = listen::bind(address.ip(), address.port())
        .await
        .map_err(|source| ServerError::Listen { address, source })?;
    let mut listeners = vec![own];
    for inherited in std::mem::take(&mut config.inherited) {
        listeners.push(listen::adopt(inherited).map_err(ServerError::Inherited)?);
    }
    Ok(listeners)
}

/// The parts that requests share, with the cache filled.
async fn app(
    config: &Config,
    pki: &Pki,
    store: Arc<dyn Store>,
    reached_at: SocketAddr,
    stop: CancellationToken,
) -> Result<Arc<App>, ServerError> {
    let cache = Cache::start(store.clone(), stop.clone()).await?;
    cache
        .wait(store.revision().await?)
        .await
        .map_err(ServerError::Bootstrap)?;
    Ok(Arc::new(App {
        services: services(config, &cache)?,
        store,
        cache,
        authenticator: authenticator(config, pki)?,
        kubelets: kubelets(config, pki)?,
        tolerations: TolerationSeconds {
            not_ready: config.default_not_ready_toleration_seconds,
            unreachable: config.default_unreachable_toleration_seconds,
        },
        metrics: Metrics::default(),
        address: reached_at.to_string(),
        stopping: stop,
        bootstrapped: AtomicBool::new(false),
    }))
}

/// The allocator, with what the stored Services hold.
fn services(config: &Config, cache: &Cache) -> Result<Services, ServerError> {
    let services = Services::new(&config.service_cidrs, config.node_port_range.clone());
    let shard = cache
        .shard(&kinds::SERVICE)
        .map_err(ServerError::Bootstrap)?;
    let prefix: Bytes = keys::prefix(&kinds::SERVICE, None);
    for entry in shard.snapshot(&prefix, 0).entries {
        let service = serde_json::from_slice(&entry.body)
            .map_err(|error| ServerError::Bootstrap(crate::respond::damaged(error)))?;
        for problem in services.adopt(&service) {
            tracing::warn!(problem, "a stored Service holds what it should not");
        }
    }
    Ok(services)
}

fn authenticator(config: &Config, pki: &Pki) -> Result<Authenticator, ServerError> {
    let file = config
        .token_auth_file
        .as_deref()
        .map(TokenFile::read)
        .transpose()?;
    let service_accounts = Arc::new(ServiceAccountTokens::new(&pki.service_account_key()?)?);
    Ok(Authenticator {
        file: file.unwrap_or_default(),
        service_accounts,
    })
}

fn kubelets(config: &Config, pki: &Pki) -> Result<Kubelets, ServerError> {
    let authority = config
        .kubelet_certificate_authority
        .as_ref()
        .map(|path| {
            std::fs::read_to_string(path).map_err(|source| ServerError::KubeletAuthority {
                path: path.clone(),
                source,
            })
        })
        .transpose()?;
    let tls = tls::kubelet_client(&pki.kubelet_client()?, authority.as_deref())?;
    Ok(Kubelets::new(tls))
}

/// Everything that clients may call this server.
fn names(config: &Config, local: IpAddr, advertised: Option<SocketAddr>) -> Vec<String> {
    let mut names: Vec<String> = NAMES.iter().map(|&name| name.to_owned()).collect();
    names.extend(["127.0.0.1", "::1"].map(str::to_owned));
    names.extend(
        nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok()),
    );
    names.extend(
        config
            .service_cidrs
            .iter()
            .map(|cidr| first_address(*cidr).to_string()),
    );
    names.extend(advertised.map(|address| address.ip().to_string()));
    names.extend((!local.is_unspecified()).then(|| local.to_string()));
    names.extend(config.tls_sans.iter().cloned());
    names.sort();
    names.dedup();
    names
}

fn loopback(pki: &Pki, local: SocketAddr) -> Result<Loopback, ServerError> {
    let mut address = local;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let identity = pki.issue_client("system:apiserver", &["system:masters"])?;
    Ok(Loopback {
        server: format!("https://{address}"),
        ca_pem: pki.ca_pem().to_owned(),
        client_cert_pem: identity.cert_pem,
        client_key_pem: identity.key_pem,
    })
}
