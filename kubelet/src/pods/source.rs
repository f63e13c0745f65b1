//! The pods that are bound to this node, as the API server has them.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::manager::Manager;
use super::spec;

/// Watches pods of `node` and tells `manager`, until `stop`. Whenever `reconnected` changes it starts anew: a watch
/// over a connection that a cut network has killed stays silent for minutes.
pub async fn run(
    client: kube::Client,
    node: &str,
    manager: Arc<Manager>,
    mut reconnected: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    let pods: Api<Pod> = Api::all(client);
    while !stop.is_cancelled() {
        tokio::select! {
            () = follow(pods.clone(), node, &manager) => {}
            Ok(()) = reconnected.changed() => tracing::info!("the API server is back; listing pods again"),
            () = stop.cancelled() => {}
        }
    }
}

async fn follow(pods: Api<Pod>, node: &str, manager: &Arc<Manager>) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut stream = std::pin::pin!(watcher(pods, config).default_backoff());
    let mut listed = HashSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => accept(event, manager, &mut listed),
            Err(error) => tracing::warn!(%error, "watching pods failed; trying again"),
        }
    }
}

fn accept(event: watcher::Event<Pod>, manager: &Arc<Manager>, listed: &mut HashSet<String>) {
    match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(pod) => {
            listed.insert(spec::uid(&pod).to_owned());
            manager.apply(pod);
        }
        // Only a complete list may take pods away.
        watcher::Event::InitDone => manager.listed(std::mem::take(listed)),
        watcher::Event::Apply(pod) => manager.apply(pod),
        watcher::Event::Delete(pod) => manager.deleted(pod),
    }
}
