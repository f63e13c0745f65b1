//! Carrying out the steps of a plan.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::{RETRY, Worker};
use crate::cri;
use crate::pods::fields::Placement;
use crate::pods::kill::{self, Kill};
use crate::pods::observed::Observed;
use crate::pods::plan::{KillReason, Step};
use crate::pods::start::{NotStarted, Start};
use crate::pods::status::Failure;
use crate::pods::{qos, resources, sandbox, spec};

impl Worker {
    /// Carries a step out; false when it failed and is to be tried again after a while.
    pub(super) async fn carry_out(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        placement: &Placement,
        step: Step,
    ) -> cri::Result<bool> {
        let runtime = Arc::clone(&self.host.runtime);
        match step {
            Step::StopSandbox { id } => {
                tolerate(runtime.stop_pod_sandbox(&id).await).map(|()| true)
            }
            Step::RemoveSandbox { id } => {
                tolerate(runtime.remove_pod_sandbox(&id).await).map(|()| true)
            }
            Step::Remove { id } => tolerate(runtime.remove_container(&id).await).map(|()| true),
            Step::CreateSandbox { attempt } => Ok(self.create_sandbox(pod, attempt).await),
            Step::Start {
                container,
                restart_count,
            } => {
                self.start(pod, observed, placement, &container, restart_count)
                    .await;
                Ok(true)
            }
            Step::Kill {
                id,
                container,
                reason,
            } => self
                .kill(pod, observed, placement, &id, &container, &reason)
                .await
                .map(|()| true),
        }
    }

    async fn create_sandbox(&mut self, pod: &Arc<Pod>, attempt: u32) -> bool {
        let host = Arc::clone(&self.host);
        if let Err(error) = self.make_cgroup(pod) {
            host.recorder
                .warning(pod, None, "FailedCreatePodContainer", error);
            return false;
        }
        let config = self.sandbox_config(pod, attempt);
        if let Err(error) = std::fs::create_dir_all(&config.log_directory) {
            let message = format!("cannot create {}: {error}", config.log_directory);
            host.recorder
                .warning(pod, None, "FailedCreatePodSandBox", message);
            return false;
        }
        match host.runtime.run_pod_sandbox(config).await {
            Ok(_) => {
                self.retry = RETRY.0;
                true
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                host.recorder
                    .warning(pod, None, "FailedCreatePodSandBox", message);
                false
            }
        }
    }

    fn make_cgroup(&self, pod: &Pod) -> Result<(), String> {
        let Some(cgroups) = &self.host.cgroups else {
            return Ok(());
        };
        let made = cgroups.create_pod(qos::class(pod), spec::uid(pod), &resources::for_pod(pod));
        made.map_err(|error| error.to_string())
    }

    fn sandbox_config(&self, pod: &Pod, attempt: u32) -> cri::v1::PodSandboxConfig {
        let host = &self.host;
        let parent = host
            .cgroups
            .as_ref()
            .map(|cgroups| cgroups.pod(qos::class(pod), spec::uid(pod)));
        sandbox::config(
            pod,
            attempt,
            &host.dns,
            &host.logs,
            parent.unwrap_or_default(),
        )
    }

    async fn start(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        placement: &Placement,
        name: &str,
        count: u32,
    ) {
        let Some((container, _)) = spec::container(pod, name) else {
            return;
        };
        let Some(current) = observed.current_sandbox() else {
            return;
        };
        let hosts = sandbox::hosts_file(pod, &placement.pod_ips, &self.host.dns.domain);
        let written = write_hosts(&self.host.dirs.hosts_file(spec::uid(pod)), &hosts);
        if let Err(error) = written {
            return self.start_failed(
                name,
                NotStarted::Config(Failure {
                    reason: "CreateContainerConfigError".into(),
                    message: error,
                }),
            );
        }
        if let Some(ended) = observed.latest(name) {
            let since = ended
                .finished_at
                .or(ended.created_at)
                .unwrap_or_else(Timestamp::now);
            self.backoff.advance(name, since, Timestamp::now());
        }
        let empty = HashMap::new();
        let start = Start {
            host: &self.host,
            pod,
            container,
            restart_count: count,
            sandbox: (&current.id, self.sandbox_config(pod, current.attempt)),
            volumes: self.volumes.as_ref().unwrap_or(&empty),
            placement,
        };
        // A pull may take very long; a pod that is deleted meanwhile does not wait for it.
        let mut desired = self.desired.clone();
        let deleted = async {
            desired
                .wait_for(|desired| desired.gone || spec::is_deleting(&desired.pod))
                .await
                .is_ok()
        };
        let result = tokio::select! {
            result = start.run() => result,
            true = deleted => return,
        };
        match result {
            Ok(_) => {
                self.failures.remove(name);
                self.retry_at.remove(name);
                self.start_backoff.reset(name);
            }
            Err(failure) => self.start_failed(name, failure),
        }
    }

    async fn kill(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        placement: &Placement,
        id: &str,
        name: &str,
        reason: &KillReason,
    ) -> cri::Result<()> {
        let Some(instance) = observed.instances.iter().find(|instance| instance.id == id) else {
            return Ok(());
        };
        let pod_ip = placement
            .pod_ips
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        let grace = kill::grace_for(pod, name, reason);
        let kill = Kill {
            host: &self.host,
            pod,
            instance,
            pod_ip,
            grace,
            hook: true,
        };
        kill.run(kill::message_for(name, reason)).await
    }
}

/// What is gone already needs no stopping.
pub(super) fn tolerate(result: cri::Result<()>) -> cri::Result<()> {
    match result {
        Err(cri::Error::NotFound(_)) => Ok(()),
        other => other,
    }
}

/// Written in place: containers have the file itself mounted.
fn write_hosts(path: &std::path::Path, text: &str) -> Result<(), String> {
    let parent = path.parent().unwrap_or(path);
    let same = std::fs::read(path).is_ok_and(|known| known == text.as_bytes());
    let write = || std::fs::create_dir_all(parent).and_then(|()| std::fs::write(path, text));
    if same {
        Ok(())
    } else {
        write().map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}
