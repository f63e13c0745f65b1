//! Ending a pod: stop its containers gracefully, report how they ended, and clean up when it is deleted.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::steps::tolerate;
use super::{Desired, Next, Stopping, Worker};
use crate::cri;
use crate::pods::kill::{self, Kill};
use crate::pods::observed::Observed;
use crate::pods::{messages, orphans, sandbox, spec};

impl Worker {
    /// One round for a pod that is to end: stop its containers, report, and clean up when it is deleted.
    pub(super) async fn stop(&mut self, pod: &Arc<Pod>, gone: bool) -> cri::Result<Next> {
        self.probes.stop();
        let observed = Observed::read(&*self.host.runtime, spec::uid(pod)).await?;
        self.stopping.get_or_insert_with(|| Stopping {
            since: tokio::time::Instant::now(),
            hooked: Vec::new(),
        });
        self.messages = messages::read(&observed, &self.messages);
        if observed.alive().next().is_some() {
            self.publish(pod, &observed, self.finish);
            self.stop_containers(pod, &observed, gone).await?;
            return Ok(Next::Again);
        }
        self.stopped = true;
        self.publish(pod, &observed, self.finish);
        if !std::mem::replace(&mut self.released, true) {
            self.release_networks(&observed)
                .await
                .inspect_err(|_| self.released = false)?;
        }
        if !gone && !spec::is_deleting(pod) {
            // It stays as a record, with its logs, until it is deleted.
            return Ok(Next::Wait(None));
        }
        self.clean_up(pod, &observed, gone).await
    }

    async fn release_networks(&self, observed: &Observed) -> cri::Result<()> {
        for sandbox in &observed.sandboxes {
            tolerate(self.host.runtime.stop_pod_sandbox(&sandbox.id).await)?;
        }
        Ok(())
    }

    async fn stop_containers(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        gone: bool,
    ) -> cri::Result<()> {
        let Some(stopping) = &mut self.stopping else {
            return Ok(());
        };
        let asked = spec::grace_period(pod);
        // As upstream: a pod that was deleted by force still gets one second.
        let total = if gone { asked.max(1) } else { asked };
        let used = i64::try_from(stopping.since.elapsed().as_secs()).unwrap_or(i64::MAX);
        let grace = total.saturating_sub(used).max(0);
        let group = kill::order(pod, observed)
            .into_iter()
            .next()
            .unwrap_or_default();
        let pod_ip = observed
            .current_sandbox()
            .and_then(|sandbox| sandbox.ips.first())
            .cloned()
            .unwrap_or_default();
        let hooked = stopping.hooked.clone();
        stopping
            .hooked
            .extend(group.iter().map(|instance| instance.id.clone()));
        let kills = group.into_iter().map(|instance| {
            let hook = !hooked.contains(&instance.id);
            let kill = Kill {
                host: &self.host,
                pod,
                instance,
                pod_ip: &pod_ip,
                grace,
                hook,
            };
            async move {
                kill.run(format!("Stopping container {}", instance.name))
                    .await
            }
        });
        let mut desired = self.desired.clone();
        let shortened = async {
            let shorter = |desired: &Desired| {
                (desired.gone && !gone) || spec::grace_period(&desired.pod) < asked
            };
            desired.wait_for(shorter).await.is_ok()
        };
        tokio::select! {
            result = futures::future::try_join_all(kills) => result.map(drop),
            // Looked at again with the shorter period; the runtime takes the newer stop.
            true = shortened => Ok(()),
        }
    }

    /// Everything of a deleted pod, in an order in which a kubelet that dies in between finishes the rest: what the
    /// API still shows is cleaned up by its worker, what it does not by `orphans`.
    async fn clean_up(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        gone: bool,
    ) -> cri::Result<Next> {
        let uid = spec::uid(pod);
        let failed = |error: String| cri::Error::Failed(error);
        orphans::release_node_resources(&self.host, uid)
            .await
            .map_err(failed)?;
        if !gone {
            let last = self.report.borrow().clone();
            self.host
                .api
                .confirm_deletion_with(pod, last.as_ref())
                .await
                .map_err(failed)?;
        }
        for sandbox in &observed.sandboxes {
            tolerate(self.host.runtime.remove_pod_sandbox(&sandbox.id).await)?;
        }
        let logs = sandbox::log_directory(&self.host.logs, pod);
        let _ = tokio::fs::remove_dir_all(logs).await;
        self.host.objects.release(uid);
        Ok(Next::Done)
    }
}
