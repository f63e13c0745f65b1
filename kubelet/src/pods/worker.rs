//! The worker of one pod: looks at the runtime, plans, carries the plan out, reports, and sleeps until something
//! changes. It keeps nothing that it could not learn again from the runtime and the API, so that a kubelet may be
//! killed at any moment.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};

use super::backoff::Backoff;
use super::fields::Placement;
use super::host::Host;
use super::kill::{self, Kill};
use super::observed::Observed;
use super::plan::{self, Finish, KillReason, Step};
use super::start::{NotStarted, Start};
use super::status::{self, Failure};
use super::{messages, orphans, qos, resources, sandbox, spec};
use crate::cri;
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
        let mut status = super::conditions::with_others(&own, &theirs);
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

    fn retry_time(&mut self) -> Timestamp {
        let delay = self.retry;
        self.retry = (self.retry * 2).min(RETRY.1);
        after(delay)
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

    /// Carries a step out; false when it failed and is to be tried again after a while.
    async fn carry_out(
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

    /// Keeps why a start failed, and when to try again: later each time.
    fn start_failed(&mut self, name: &str, failure: NotStarted) {
        let now = Timestamp::now();
        self.start_backoff.advance(name, now, now);
        let again = self
            .start_backoff
            .pending(name, now, now)
            .map_or(now, |(_, until)| until);
        self.retry_at.insert(name.to_owned(), again);
        self.failures
            .insert(name.to_owned(), failure.failure().clone());
    }

    /// What a configuration lacked may be there now.
    fn retry_configurations(&mut self) {
        let failures = &self.failures;
        let lacks = |name: &String| {
            failures
                .get(name)
                .is_some_and(|f| f.reason == "CreateContainerConfigError")
        };
        self.retry_at.retain(|name, _| !lacks(name));
    }

    /// Between two tries of a pull the container waits in `ImagePullBackOff`.
    fn image_back_off(&mut self, pod: &Pod) {
        let now = Timestamp::now();
        for (name, failure) in &mut self.failures {
            let waits = self.retry_at.get(name).is_some_and(|at| *at > now);
            if failure.reason == "ErrImagePull"
                && waits
                && self.backed_off.get(name) != Some(&failure.message)
            {
                // Reported once as what it is; from the next round on as a back-off.
                self.backed_off
                    .insert(name.clone(), failure.message.clone());
            } else if failure.reason == "ErrImagePull" && waits {
                let image = spec::container(pod, name)
                    .and_then(|(c, _)| c.image.clone())
                    .unwrap_or_default();
                failure.reason = "ImagePullBackOff".into();
                failure.message =
                    format!("Back-off pulling image \"{image}\": {}", failure.message);
                self.host.recorder.normal(
                    pod,
                    Some(name),
                    "BackOff",
                    format!("Back-off pulling image \"{image}\""),
                );
                self.backed_off.remove(name);
            }
        }
    }

    /// One event for each time that a crashed container has to wait.
    fn note_back_off(&mut self, pod: &Pod, observed: &Observed) {
        let now = Timestamp::now();
        for (container, _) in spec::all_containers(pod) {
            let Some(ended) = observed
                .latest(&container.name)
                .filter(|i| i.finished_at.is_some())
            else {
                continue;
            };
            let since = ended.finished_at.unwrap_or(now);
            let waits = self.backoff.pending(&container.name, since, now).is_some();
            let key = format!("restart {}", container.name);
            if waits && self.backed_off.get(&key) != Some(&ended.id) {
                self.backed_off.insert(key, ended.id.clone());
                let (name, namespace, uid) =
                    (spec::name(pod), spec::namespace(pod), spec::uid(pod));
                let message = format!(
                    "Back-off restarting failed container {} in pod {name}_{namespace}({uid})",
                    container.name
                );
                self.host
                    .recorder
                    .warning(pod, Some(&container.name), "BackOff", message);
            }
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

    /// One round for a pod that is to end: stop its containers, report, and clean up when it is deleted.
    async fn stop(&mut self, pod: &Arc<Pod>, gone: bool) -> cri::Result<Next> {
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
        for sandbox in &observed.sandboxes {
            tolerate(self.host.runtime.stop_pod_sandbox(&sandbox.id).await)?;
        }
        if !gone && !spec::is_deleting(pod) {
            // It stays as a record, with its logs, until it is deleted.
            return Ok(Next::Wait(None));
        }
        self.clean_up(pod, &observed, gone).await
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

fn after(delay: Duration) -> Timestamp {
    let now = Timestamp::now();
    now.checked_add(SignedDuration::try_from(delay).unwrap_or(SignedDuration::ZERO))
        .unwrap_or(now)
}

fn tolerate(result: cri::Result<()>) -> cri::Result<()> {
    match result {
        Err(cri::Error::NotFound(_)) => Ok(()),
        other => other,
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

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
