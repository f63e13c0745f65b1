//! Lifecycle hooks: `postStart` and `preStop`.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use crate::probes::action::{self, Outcome, Target};

/// A hook has no limit of its own; this only keeps a forgotten command from holding a worker for ever.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs a hook to its end.
pub async fn run(target: Target<'_>, handler: &LifecycleHandler) -> Outcome {
    if let Some(command) = &handler.exec {
        return action::exec(target, command, LIMIT).await;
    }
    if let Some(request) = &handler.http_get {
        return action::http_get(target, request).await;
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
        return Ok(());
    }
    match &handler.tcp_socket {
        Some(socket) => action::tcp(target, socket).await,
        None => Err("hook has no handler: expected exec, httpGet or sleep".into()),
    }
}
