//! The administrator's client.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::layout::{Layout, Machine};
use crate::{logs, spawn};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A client with the administrator's credentials.
pub async fn connect(layout: &Layout) -> Result<Client> {
    let path = layout.admin_kubeconfig();
    let kubeconfig = Kubeconfig::read_from(&path)
        .map_err(|_| anyhow!("cannot read {}: is the cluster up?", path.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Waits until the master has written the credentials and is ready.
pub async fn wait_until_ready(layout: &Layout) -> Result<Client> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let last = match ready(layout).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let dead = spawn::pid_file(layout, Machine::Master, "master")
            .running()
            .is_none();
        if dead || Instant::now() > deadline {
            let what = if dead { "has ended" } else { "is not ready" };
            let tail = logs::tail(&spawn::log(layout, Machine::Master, "master"), 15);
            bail!("the master {what} ({last:#}); {tail}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ready(layout: &Layout) -> Result<Client> {
    let client = connect(layout).await?;
    let request = http::Request::get("/readyz").body(Vec::new())?;
    client.request_text(request).await?;
    Ok(client)
}
