//! Pods that are on the node but not in the API: deleted while this kubelet was down, or left half cleaned up. They
//! are stopped as gracefully as others; what they need for it is in their annotations.

use std::sync::Arc;

use futures::future::join_all;

use super::host::Host;
use super::labels;
use super::observed::Observed;
use crate::cri::{self, Runtime, Scope};

/// Stops and removes everything of the pod `uid`. Idempotent; on an error the rest is found again later.
///
/// # Errors
/// What could not be removed.
pub async fn clean_up(host: &Arc<Host>, uid: &str) -> Result<(), String> {
    let runtime = &*host.runtime;
    let words = |error: cri::Error| error.to_string();
    let observed = Observed::read(runtime, uid).await.map_err(words)?;
    let grace = grace_period(runtime, uid).await.map_err(words)?;
    let stops = join_all(
        observed
            .alive()
            .map(|instance| runtime.stop_container(&instance.id, grace)),
    )
    .await;
    stops
        .into_iter()
        .find(|result| !matches!(result, Ok(()) | Err(cri::Error::NotFound(_))))
        .map_or(Ok(()), |e| e.map_err(words))?;
    for sandbox in &observed.sandboxes {
        runtime.stop_pod_sandbox(&sandbox.id).await.map_err(words)?;
    }
    release_node_resources(host, uid).await?;
    for sandbox in &observed.sandboxes {
        runtime
            .remove_pod_sandbox(&sandbox.id)
            .await
            .map_err(words)?;
    }
    remove_logs(host, uid);
    host.objects.release(uid);
    Ok(())
}

async fn grace_period(runtime: &dyn Runtime, uid: &str) -> cri::Result<i64> {
    let sandboxes = runtime.list_pod_sandboxes(Scope::Pod(uid)).await?;
    let annotation = sandboxes
        .iter()
        .find_map(|sandbox| sandbox.annotations.get(labels::GRACE_PERIOD));
    Ok(annotation
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(30))
}

/// Unmounts the pod's volumes and removes its directories and cgroups.
///
/// # Errors
/// What could not be removed.
pub async fn release_node_resources(host: &Arc<Host>, uid: &str) -> Result<(), String> {
    let (host, uid) = (Arc::clone(host), uid.to_owned());
    let release = move || {
        host.dirs.remove(&uid).map_err(|error| error.to_string())?;
        let removed = host
            .cgroups
            .as_ref()
            .map_or(Ok(()), |cgroups| cgroups.remove_pod(&uid));
        removed.map_err(|error| error.to_string())
    };
    tokio::task::spawn_blocking(release)
        .await
        .map_err(|error| error.to_string())?
}

/// Log directories are named NAMESPACE_NAME_UID.
fn remove_logs(host: &Host, uid: &str) {
    let suffix = format!("_{uid}");
    let entries = std::fs::read_dir(&host.logs)
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(&suffix)) {
        let _ = std::fs::remove_dir_all(entry.path());
    }
}

/// Uids of pods that left directories, cgroups or logs on the node.
pub fn left_on_node(host: &Host) -> Vec<String> {
    let logs = std::fs::read_dir(&host.logs)
        .into_iter()
        .flatten()
        .flatten();
    let logs = logs.filter_map(|entry| {
        entry
            .file_name()
            .to_str()?
            .rsplit_once('_')
            .map(|(_, uid)| uid.to_owned())
    });
    let cgroups = host.cgroups.iter().flat_map(|cgroups| cgroups.pods());
    host.dirs
        .uids()
        .into_iter()
        .chain(cgroups)
        .chain(logs)
        .collect()
}
