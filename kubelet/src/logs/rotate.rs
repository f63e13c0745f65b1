//! Keeps logs from filling the disk: a log that has grown too large is renamed, the runtime opens a new one, and the
//! oldest renamed ones are removed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::cri::{Runtime, Scope, v1};

/// Time between two looks (upstream's `containerLogMonitorInterval`).
const PERIOD: Duration = Duration::from_secs(10);

/// When to rotate.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes at which a log is rotated.
    pub max_size: u64,
    /// Files to keep for a container, the current one included.
    pub max_files: usize,
}

/// Rotates logs of running containers until `stop`.
pub async fn run(runtime: Arc<dyn Runtime>, limits: Limits, stop: CancellationToken) {
    let forever = async {
        loop {
            tokio::time::sleep(PERIOD).await;
            let containers = runtime
                .list_containers(Scope::All)
                .await
                .unwrap_or_default();
            let running =
                |item: &v1::Container| item.state() == v1::ContainerState::ContainerRunning;
            for item in containers.into_iter().filter(running) {
                if let Err(error) = one(&*runtime, &item.id, limits).await {
                    tracing::warn!(container = item.id, error, "its log was not rotated");
                }
            }
        }
    };
    stop.run_until_cancelled(forever).await;
}

async fn one(runtime: &dyn Runtime, id: &str, limits: Limits) -> Result<(), String> {
    let status = runtime
        .container_status(id)
        .await
        .map_err(|error| error.to_string())?;
    let path = PathBuf::from(&status.log_path);
    let large = tokio::fs::metadata(&path)
        .await
        .is_ok_and(|metadata| metadata.len() > limits.max_size);
    if !large {
        return Ok(());
    }
    prune(&path, limits.max_files.saturating_sub(2)).map_err(|error| error.to_string())?;
    let renamed = PathBuf::from(format!(
        "{}.{}",
        path.display(),
        Timestamp::now().strftime("%Y%m%d-%H%M%S%.6f")
    ));
    tokio::fs::rename(&path, &renamed)
        .await
        .map_err(|error| error.to_string())?;
    if let Err(error) = runtime.reopen_container_log(id).await {
        // The runtime goes on writing to the renamed file: give it its name back.
        let _ = tokio::fs::rename(&renamed, &path).await;
        return Err(error.to_string());
    }
    Ok(())
}

/// Removes rotated files of the log at `path` but for the newest `keep`.
fn prune(path: &Path, keep: usize) -> std::io::Result<()> {
    let prefix = format!(
        "{}.",
        path.file_name().unwrap_or_default().to_string_lossy()
    );
    let directory = path.parent().unwrap_or(Path::new("/"));
    let entries = std::fs::read_dir(directory)?
        .flatten()
        .map(|entry| entry.path());
    let rotated = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
    };
    // Names end with a time, so that they sort by age.
    let mut files: Vec<_> = entries.filter(rotated).collect();
    files.sort();
    let old = files.len().saturating_sub(keep);
    files.iter().take(old).try_for_each(std::fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_rotated_files_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("0.log");
        for name in [
            "0.log",
            "0.log.20260101-000000",
            "0.log.20260102-000000",
            "0.log.20260103-000000",
            "1.log",
        ] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        prune(&log, 1).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .flatten()
            .map(|e| e.file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["0.log", "0.log.20260103-000000", "1.log"]);
    }
}
