//! The worker of one pod: looks at the runtime, plans, carries the plan out, reports, and sleeps until something
//! changes. It keeps nothing that it could not learn again from the runtime and the API, so that a kubelet may be
//! killed at any moment.

mod retries;
mod steps;
mod stop;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};

use crate::cri;
use crate::pods::backoff::Backoff;
use crate::pods::fields::Placement;
use crate::pods::host::Host;
use crate::pods::observed::Observed;
use crate::pods::plan::{self, Finish, Step};
use crate::pods::status::{self, Failure};
use crate::pods::{conditions, messages, spec};
use crate::probes::ProbeSet;
use crate::volumes::Volumes;

/// First and longest delay between tries of what failed for a reason that may go away by itself.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Volumes are refreshed at least this often (tokens expire, projections change).
const REFRESH: SignedDuration = SignedDuration::from_secs(60);

/// What the API wants of a pod.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The pod, as last seen.
    pub pod: Arc<Pod>,
    /// Whether it is gone from the API, so that nobody is told how it ended.
    pub gone: bool,
}

/// Wakes a worker.
#[derive(Default)]
pub struct Wakeup {
    notify: Notify,
    objects: AtomicBool,
}

impl Wakeup {
    /// Something changed in the runtime, or a probe has a verdict.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// An object that the pod refers to changed.
    pub fn objects_changed(&self) {
        self.objects.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

/// What follows a step.
enum Next {
    /// Look again at once.
    Again,
    /// Wait for a change, or until a time.
    Wait(Option<Timestamp>),
    /// The pod is gone and everything of it is cleaned up.
    Done,
}

/// The worker of one pod.
pub struct Worker {
    host: Arc<Host>,
    desired: watch::Receiver<Desired>,
    wakeup: Arc<Wakeup>,
    report: watch::Sender<Option<PodStatus>>,
    probes: ProbeSet,
    backoff: Backoff,
    start_backoff: Backoff,
    failures: HashMap<String, Failure>,
    retry_at: HashMap<String, Timestamp>,
    messages: HashMap<String, String>,
    volumes: Option<HashMap<String, PathBuf>>,
    refreshed_at: Timestamp,
    retry: Duration,
    finish: Option<Finish>,
    stopping: Option<Stopping>,
    stopped: bool,
    /// Whether its sandboxes have given back their networks.
    released: bool,
    backed_off: HashMap<String, String>,
}

/// A pod that is being stopped.
struct Stopping {
    since: tokio::time::Instant,
    /// Instances whose `preStop` hook was started.
    hooked: Vec<String>,
}

impl Worker {
    /// A worker that starts with what `desired` holds and reports to `report`.
    pub fn new(
        host: Arc<Host>,
        desired: watch::Receiver<Desired>,
        wakeup: Arc<Wakeup>,
        report: watch::Sender<Option<PodStatus>>,
    ) -> Self {
        let wake = Arc::clone(&wakeup);
        let probes = ProbeSet::new(
            Arc::clone(&host.runtime),
            host.recorder.clone(),
            Arc::new(move || wake.wake()),
        );
        Self {
            host,
            desired,
            wakeup,
            report,
            probes,
            backoff: Backoff::default(),
            start_backoff: Backoff::default(),
            failures: HashMap::new(),
            retry_at: HashMap::new(),
            messages: HashMap::new(),
            volumes: None,
            refreshed_at: Timestamp::now(),
            retry: RETRY.0,
            finish: None,
            stopping: None,
            stopped: false,
            released: false,
            backed_off: HashMap::new(),
        }
    }

    /// Works until the pod is gone.
    pub async fn run(mut self) {
        loop {
            let Desired { pod, gone } = self.desired.borrow_and_update().clone();
            let pod = self.with_own_status(&pod);
            let over =
                gone || spec::is_deleting(&pod) || spec::is_terminal(&pod) || self.finish.is_some();
            let next = if over {
                self.stop(&pod, gone).await
            } else {
                self.sync(&pod).await
            };
            let next = next.unwrap_or_else(|error| {
                tracing::warn!(pod = spec::name(&pod), namespace = spec::namespace(&pod), %error, "pod worker will try again");
                Next::Wait(Some(self.retry_time()))
            });
            match next {
                Next::Again => {}
                Next::Wait(until) => self.wait(until).await,
                Next::Done => return,
            }
        }
    }

    /// The pod with the newest status: what was reported last, with the conditions that others have set since.
    fn with_own_status(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let Some(own) = self.report.borrow().clone() else {
            return Arc::clone(pod);
        };
        let theirs = pod.status.clone().unwrap_or_default();
        let mut status = conditions::with_others(&own, &theirs);
        if matches!(theirs.phase.as_deref(), Some("Succeeded" | "Failed")) {
            (status.phase, status.reason, status.message) =
                (theirs.phase, theirs.reason, theirs.message);
        }
        Arc::new(Pod {
            status: Some(status),
            ..Pod::clone(pod)
        })
    }

    async fn wait(&mut self, until: Option<Timestamp>) {
        let delay = until.map(|until| until.duration_since(Timestamp::now()));
        let delay = delay.map(|delay| Duration::try_from(delay).unwrap_or_default());
        let sleep = async {
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The manager drops its end only when the kubelet ends.
            changed = self.desired.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = self.wakeup.notify.notified() => {}
            () = sleep => {}
        }
    }

    fn placement(&self, observed: &Observed, pod: &Pod) -> Placement {
        let mut placement = self.host.placement.clone();
        placement.pod_ips = match observed.current_sandbox() {
            _ if spec::host_network(pod) => placement.host_ips.clone(),
            Some(sandbox) => sandbox.ips.clone(),
            None => Vec::new(),
        };
        placement
    }

    /// One round for a pod that is to run.
    async fn sync(&mut self, pod: &Arc<Pod>) -> cri::Result<Next> {
        let observed = Observed::read(&*self.host.runtime, spec::uid(pod)).await?;
        let placement = self.placement(&observed, pod);
        let objects_changed = self.wakeup.objects.swap(false, Ordering::AcqRel);
        if objects_changed {
            self.retry_configurations();
        }
        let pod_ip = placement.pod_ips.first().cloned().unwrap_or_default();
        self.probes.sync(pod, &observed, &pod_ip);
        self.messages = messages::read(&observed, &self.messages);
        let health = self.probes.health();
        let plan = plan::plan(&plan::Input {
            pod,
            observed: &observed,
            backoff: &self.backoff,
            retry_at: &self.retry_at,
            health: &health,
            now: Timestamp::now(),
        });
        self.image_back_off(pod);
        self.publish(pod, &observed, plan.finish);
        if plan.finish.is_some() {
            self.finish = plan.finish;
            return Ok(Next::Again);
        }
        self.note_back_off(pod, &observed);
        if !self
            .prepare(pod, &placement, &plan.steps, objects_changed)
            .await
        {
            return Ok(Next::Wait(Some(self.retry_time())));
        }
        if plan.steps.is_empty() {
            self.retry = RETRY.0;
            let refresh = self
                .refreshed_at
                .checked_add(REFRESH)
                .ok()
                .filter(|_| has_data_volumes(pod));
            return Ok(Next::Wait(plan.wake_at.into_iter().chain(refresh).min()));
        }
        for step in plan.steps {
            if !self.carry_out(pod, &observed, &placement, step).await? {
                return Ok(Next::Wait(Some(self.retry_time())));
            }
        }
        Ok(Next::Again)
    }

    /// Volumes and cgroup, before anything is started, and again when their contents have changed. False when the
    /// pod can't go on yet.
    async fn prepare(
        &mut self,
        pod: &Arc<Pod>,
        placement: &Placement,
        steps: &[Step],
        changed: bool,
    ) -> bool {
        let starts = steps
            .iter()
            .any(|step| matches!(step, Step::CreateSandbox { .. } | Step::Start { .. }));
        let stale = self
            .refreshed_at
            .checked_add(REFRESH)
            .is_ok_and(|at| at <= Timestamp::now());
        let due = (self.volumes.is_none() && (starts || has_data_volumes(pod))) || changed || stale;
        if !due {
            return true;
        }
        let volumes = Volumes {
            dirs: &self.host.dirs,
            objects: &*self.host.objects,
        };
        match volumes.set_up(pod, placement).await {
            Ok(paths) => {
                self.volumes = Some(paths);
                self.refreshed_at = Timestamp::now();
                true
            }
            Err(error) => {
                self.refreshed_at = Timestamp::now();
                self.host
                    .recorder
                    .warning(pod, None, "FailedMount", error.to_string());
                // What runs keeps the data it has.
                self.volumes.is_some()
            }
        }
    }

    fn publish(&mut self, pod: &Arc<Pod>, observed: &Observed, finish: Option<Finish>) {
        let health = self.probes.health();
        let status = status::generate(&status::Input {
            pod,
            observed,
            health: &health,
            failures: &self.failures,
            backoff: &self.backoff,
            messages: &self.messages,
            host_ips: &self.host.placement.host_ips,
            finish,
            stopping: self.stopping.is_some(),
            stopped: self.stopped,
            runtime_name: &self.host.runtime_name,
            now: Timestamp::now(),
        });
        self.host.metrics.pod_status(pod, &status);
        // Always sent: the API may have another status than the last one reported (a node controller's).
        self.report.send_replace(Some(status));
    }
}

/// Whether the pod has volumes whose contents may change.
fn has_data_volumes(pod: &Pod) -> bool {
    spec::spec(pod).volumes.iter().flatten().any(|volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some()
    })
}

#[cfg(test)]
mod tests;
