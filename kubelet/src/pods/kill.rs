//! Stopping containers gracefully: `preStop` hook, the stop signal, and SIGKILL when the grace period is over.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::host::Host;
use super::observed::{Instance, Observed};
use super::spec::{self, Role};
use super::{hooks, plan};
use crate::cri::{self, Runtime};
use crate::probes::action::Target;

/// What is left for the process itself after its hook has used up the grace period (as upstream).
const MINIMUM: i64 = 2;

/// One container to stop.
pub struct Kill<'a> {
    /// The node.
    pub host: &'a Host,
    /// The pod.
    pub pod: &'a Pod,
    /// The instance.
    pub instance: &'a Instance,
    /// The pod's primary address, for hooks.
    pub pod_ip: &'a str,
    /// Seconds until SIGKILL.
    pub grace: i64,
    /// Whether the `preStop` hook is to be run.
    pub hook: bool,
}

impl Kill<'_> {
    /// Stops the container; returns when it has stopped.
    ///
    /// # Errors
    /// The runtime's. Retryable: stopping is idempotent.
    pub async fn run(&self, message: String) -> cri::Result<()> {
        let name = &self.instance.name;
        self.host
            .recorder
            .normal(self.pod, Some(name), "Killing", message);
        let started = Instant::now();
        if self.hook && self.grace > 0 {
            self.pre_stop().await;
        }
        let used = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
        let left = if self.grace == 0 {
            0
        } else {
            self.grace.saturating_sub(used).max(MINIMUM.min(self.grace))
        };
        match self
            .host
            .runtime
            .stop_container(&self.instance.id, left)
            .await
        {
            Err(cri::Error::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    async fn pre_stop(&self) {
        let Some((container, _)) = spec::container(self.pod, &self.instance.name) else {
            return;
        };
        let Some(handler) = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.pre_stop.as_ref())
        else {
            return;
        };
        let runtime: &dyn Runtime = &*self.host.runtime;
        let target = Target {
            runtime,
            container_id: &self.instance.id,
            container,
            pod_ip: self.pod_ip,
        };
        let limit = Duration::from_secs(self.grace.unsigned_abs());
        let outcome = tokio::time::timeout(limit, hooks::run(target, handler)).await;
        let outcome =
            outcome.unwrap_or_else(|_| Err("it did not end within the grace period".into()));
        if let Err(why) = outcome {
            let message = format!("PreStopHook failed: {why}");
            self.host.recorder.warning(
                self.pod,
                Some(&container.name),
                "FailedPreStopHook",
                message,
            );
        }
    }
}

/// Grace period of a container that is killed although its pod goes on: its failed probe may have one of its own.
pub fn grace_for(pod: &Pod, name: &str, reason: &plan::KillReason) -> i64 {
    let container = spec::container(pod, name).map(|(container, _)| container);
    let probe = container.and_then(|container| match reason {
        plan::KillReason::Liveness => container.liveness_probe.as_ref(),
        plan::KillReason::Startup => container.startup_probe.as_ref(),
        _ => None,
    });
    probe
        .and_then(|probe| probe.termination_grace_period_seconds)
        .unwrap_or(spec::grace_period(pod))
}

/// What the event of such a kill says.
pub fn message_for(name: &str, reason: &plan::KillReason) -> String {
    match reason {
        plan::KillReason::SpecChanged => {
            format!("Container {name} definition changed, will be restarted")
        }
        plan::KillReason::Liveness => {
            format!("Container {name} failed liveness probe, will be restarted")
        }
        plan::KillReason::Startup => {
            format!("Container {name} failed startup probe, will be restarted")
        }
        plan::KillReason::Unknown => {
            format!("Container {name} is in unknown state, will be restarted")
        }
    }
}

/// Instances that may have a process, in the order in which groups of them are stopped: main and init containers
/// together, then sidecars one after the other, last started first (KEP-753).
pub fn order<'a>(pod: &Pod, observed: &'a Observed) -> Vec<Vec<&'a Instance>> {
    let position = |name: &str| {
        let sidecars = spec::init_containers(pod)
            .iter()
            .filter(|c| spec::init_role(c) == Role::Sidecar);
        sidecars
            .map(|container| container.name.as_str())
            .collect::<Vec<_>>()
            .iter()
            .position(|known| *known == name)
    };
    let (mut sidecars, first): (Vec<_>, Vec<_>) = observed
        .alive()
        .partition(|instance| position(&instance.name).is_some());
    sidecars.sort_by_key(|instance| std::cmp::Reverse(position(&instance.name)));
    let groups = std::iter::once(first).chain(sidecars.into_iter().map(|instance| vec![instance]));
    groups.filter(|group| !group.is_empty()).collect()
}
