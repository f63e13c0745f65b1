//! The life of the process: serve, lead when elected, stop in order.

use std::{fs, io};

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use sluice_apiserver::{
    Server,
    pki::{self, Pki},
};
use sluice_client::election::{self, Candidate};

use crate::{activation, settings::Settings};

/// Runs a master until SIGTERM or SIGINT.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut stopped = Stopped::new()?;
    let inherited = activation::listeners()?;
    let options = controllers(&settings)?;
    let server = Server::start(settings.apiserver(inherited)?).await?;
    let pki = Pki::open_or_create(&settings.data_dir())?;
    let loops = Loops::prepare(&settings, &pki, &server, options).await?;
    write_admin_kubeconfig(&settings, &pki, &server)?;
    info!(address = %server.local_addr(), "ready");

    let stop = CancellationToken::new();
    let work = tokio::spawn(loops.run(stop.clone()));
    stopped.wait().await;
    info!("stopping");
    // The loops go first: giving back the Lease needs the server.
    stop.cancel();
    work.await?;
    server.shutdown().await;
    Ok(())
}

/// SIGTERM or SIGINT, listened for from the first moment on.
struct Stopped {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stopped {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Scheduler and controllers, which one master at a time runs.
struct Loops {
    candidate: Candidate,
    elector: kube::Client,
    scheduler: kube::Client,
    controllers: kube::Client,
    options: sluice_controllers::Options,
}

impl Loops {
    async fn prepare(
        settings: &Settings,
        pki: &Pki,
        server: &Server,
        options: sluice_controllers::Options,
    ) -> anyhow::Result<Self> {
        let url = server.loopback().server.clone();
        let client = |user| client(pki, user, &url);
        Ok(Self {
            candidate: Candidate::new("kube-system", "sluice-master", identity(settings)?),
            elector: client("system:kube-controller-manager").await?,
            scheduler: client("system:kube-scheduler").await?,
            controllers: client("system:kube-controller-manager").await?,
            options,
        })
    }

    async fn run(self, stop: CancellationToken) {
        let lead = |term: CancellationToken| {
            let scheduler = sluice_scheduler::run(
                self.scheduler.clone(),
                sluice_scheduler::Options::default(),
                term.clone(),
            );
            let controllers =
                sluice_controllers::run(self.controllers.clone(), self.options.clone(), term);
            async {
                tokio::join!(scheduler, controllers);
            }
        };
        election::run(self.elector, self.candidate, stop, lead).await;
    }
}

/// A client with a certificate of its own, so that the server's log tells who did what.
async fn client(pki: &Pki, user: &str, url: &str) -> anyhow::Result<kube::Client> {
    let config = Kubeconfig::from_yaml(&pki.kubeconfig(user, &["system:masters"], url)?)?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(config, &options).await?;
    Ok(kube::Client::try_from(config)?)
}

/// This master's name in the election. It is kept beside the data, which one process at a time can
/// open, so that a master that was killed takes up its own Lease again at once.
fn identity(settings: &Settings) -> anyhow::Result<String> {
    let path = settings.data_dir().join("identity");
    match fs::read_to_string(&path) {
        Ok(kept) if !kept.trim().is_empty() => return Ok(kept.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    let host = nix::unistd::gethostname()?;
    let made = format!("{}_{}", host.to_string_lossy(), uuid::Uuid::new_v4());
    pki::write_secret(&path, &made)?;
    Ok(made)
}

fn controllers(settings: &Settings) -> anyhow::Result<sluice_controllers::Options> {
    let default = sluice_controllers::Options::default();
    Ok(sluice_controllers::Options {
        cluster_cidrs: settings.cluster_cidrs()?,
        node_cidr_mask_size_ipv4: settings
            .node_cidr_mask_size_ipv4
            .unwrap_or(default.node_cidr_mask_size_ipv4),
        node_cidr_mask_size_ipv6: settings
            .node_cidr_mask_size_ipv6
            .unwrap_or(default.node_cidr_mask_size_ipv6),
        node_monitor_grace_period: settings
            .node_monitor_grace_period
            .map_or(default.node_monitor_grace_period, |span| span.0),
        node_monitor_period: settings
            .node_monitor_period
            .map_or(default.node_monitor_period, |span| span.0),
        ..default
    })
}

/// Writes the administrator's kubeconfig anew at every start: its certificate may have been about to end.
fn write_admin_kubeconfig(settings: &Settings, pki: &Pki, server: &Server) -> anyhow::Result<()> {
    let url = settings
        .kubeconfig_server
        .clone()
        .unwrap_or_else(|| format!("https://127.0.0.1:{}", server.local_addr().port()));
    let text = pki.kubeconfig("kubernetes-admin", &["system:masters"], &url)?;
    let path = settings.kubeconfig();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    Ok(pki::write_secret(&path, &text)?)
}
