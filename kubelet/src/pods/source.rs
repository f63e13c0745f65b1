//! The pods that are bound to this node, as the API server has them.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio_util::sync::CancellationToken;

use super::manager::Manager;
use super::spec;

/// Watches pods of `node` and tells `manager`, until `stop`.
pub async fn run(client: kube::Client, node: &str, manager: Arc<Manager>, stop: CancellationToken) {
    let pods: Api<Pod> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut stream = std::pin::pin!(watcher(pods, config).default_backoff());
    let mut listed = HashSet::new();
    while let Some(Some(event)) = stop.run_until_cancelled(stream.next()).await {
        match event {
            Ok(event) => accept(event, &manager, &mut listed),
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
