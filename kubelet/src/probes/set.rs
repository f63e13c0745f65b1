//! The probes of one pod: a task for each probe of each running container, started and stopped as containers come
//! and go. Verdicts are kept here; the pod's worker is woken when one changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::jiff::Timestamp;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::action::{self, Target};
use super::{Counter, Kind};
use crate::cri::Runtime;
use crate::events::Recorder;
use crate::pods::observed::{Instance, Observed, State};
use crate::pods::plan::{Health, is_started};
use crate::pods::spec;

/// Called when a verdict has changed.
pub type OnChange = Arc<dyn Fn() + Send + Sync>;

/// The probes of one pod.
pub struct ProbeSet {
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    on_change: OnChange,
    health: Arc<Mutex<Health>>,
    tasks: HashMap<(String, Kind), AbortHandle>,
}

impl ProbeSet {
    /// No probes yet.
    pub fn new(runtime: Arc<dyn Runtime>, recorder: Recorder, on_change: OnChange) -> Self {
        Self {
            runtime,
            recorder,
            on_change,
            health: Arc::default(),
            tasks: HashMap::new(),
        }
    }

    /// The verdicts now.
    pub fn health(&self) -> Health {
        self.health
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Starts probes of containers that run, ends those of containers that do not.
    ///
    /// A container that was running before this kubelet keeps the verdicts that the API has of it, so that a
    /// kubelet's restart takes no pod out of its Services.
    pub fn sync(&mut self, pod: &Arc<Pod>, observed: &Observed, pod_ip: &str) {
        self.forget(observed);
        for (container, _) in spec::all_containers(pod) {
            let latest = observed
                .latest(&container.name)
                .filter(|instance| instance.state == State::Running);
            let Some(instance) = latest else { continue };
            self.adopt(pod, container, instance);
            if is_started(container, instance, &self.health()) {
                self.start(pod, container, instance, Kind::Liveness, pod_ip);
                self.start(pod, container, instance, Kind::Readiness, pod_ip);
            } else {
                self.start(pod, container, instance, Kind::Startup, pod_ip);
            }
        }
    }

    /// Ends all probes; verdicts stay.
    pub fn stop(&mut self) {
        self.tasks.drain().for_each(|(_, task)| task.abort());
    }

    fn forget(&mut self, observed: &Observed) {
        let alive = |id: &String| observed.alive().any(|instance| instance.id == *id);
        self.tasks.retain(|(id, _), task| {
            let keep = alive(id);
            if !keep {
                task.abort();
            }
            keep
        });
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let Health {
            liveness_failed,
            startup_failed,
            started,
            ready,
        } = &mut *health;
        for set in [liveness_failed, startup_failed, started, ready] {
            set.retain(alive);
        }
    }

    /// Takes over what the API says of an instance that has no probe yet.
    fn adopt(&self, pod: &Pod, container: &Container, instance: &Instance) {
        let new = ![Kind::Startup, Kind::Liveness, Kind::Readiness]
            .iter()
            .any(|kind| self.tasks.contains_key(&(instance.id.clone(), *kind)));
        let Some(status) = pod.status.as_ref().filter(|_| new) else {
            return;
        };
        let all = status
            .container_statuses
            .iter()
            .flatten()
            .chain(status.init_container_statuses.iter().flatten());
        let same = |id: &Option<String>| {
            id.as_deref()
                .is_some_and(|id| id.ends_with(&format!("://{}", instance.id)))
        };
        let known = all
            .into_iter()
            .find(|known| known.name == container.name && same(&known.container_id));
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some_and(|known| known.started == Some(true)) {
            health.started.insert(instance.id.clone());
        }
        if known.is_some_and(|known| known.ready) {
            health.ready.insert(instance.id.clone());
        }
    }

    fn start(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        instance: &Instance,
        kind: Kind,
        pod_ip: &str,
    ) {
        let probe = match kind {
            Kind::Startup => &container.startup_probe,
            Kind::Liveness => &container.liveness_probe,
            Kind::Readiness => &container.readiness_probe,
        };
        let key = (instance.id.clone(), kind);
        let Some(probe) = probe.clone().filter(|_| !self.tasks.contains_key(&key)) else {
            return;
        };
        let runner = Runner {
            runtime: Arc::clone(&self.runtime),
            recorder: self.recorder.clone(),
            on_change: Arc::clone(&self.on_change),
            health: Arc::clone(&self.health),
            pod: Arc::clone(pod),
            container: container.clone(),
            id: instance.id.clone(),
            pod_ip: pod_ip.to_owned(),
            kind,
            probe,
        };
        let task = tokio::spawn(runner.run(instance.started_at));
        self.tasks.insert(key, task.abort_handle());
    }
}

impl Drop for ProbeSet {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Runner {
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    on_change: OnChange,
    health: Arc<Mutex<Health>>,
    pod: Arc<Pod>,
    container: Container,
    id: String,
    pod_ip: String,
    kind: Kind,
    probe: Probe,
}

impl Runner {
    async fn run(self, started_at: Option<Timestamp>) {
        let mut counter = Counter::new(&self.probe);
        let mut ticks = tokio::time::interval_at(
            Instant::now() + self.initial_delay(started_at),
            self.period(),
        );
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let verdict = counter.push(self.check().await);
            if verdict.is_some_and(|verdict| self.apply(verdict)) {
                return;
            }
        }
    }

    fn period(&self) -> Duration {
        seconds(self.probe.period_seconds, 10).max(Duration::from_secs(1))
    }

    /// What is left of the initial delay, which counts from the start of the container.
    fn initial_delay(&self, started_at: Option<Timestamp>) -> Duration {
        let delay = seconds(self.probe.initial_delay_seconds, 0);
        let running = started_at.map(|at| Timestamp::now().duration_since(at));
        let running = running
            .and_then(|running| Duration::try_from(running).ok())
            .unwrap_or_default();
        delay.saturating_sub(running)
    }

    async fn check(&self) -> bool {
        let target = Target {
            runtime: &*self.runtime,
            container_id: &self.id,
            container: &self.container,
            pod_ip: &self.pod_ip,
        };
        let outcome = action::probe(target, &self.probe).await;
        if let Err(why) = &outcome {
            let message = format!("{} probe failed: {why}", self.kind.as_str());
            self.recorder
                .warning(&self.pod, Some(&self.container.name), "Unhealthy", message);
        }
        outcome.is_ok()
    }

    /// Keeps a verdict; true when the probe has nothing more to do.
    fn apply(&self, verdict: bool) -> bool {
        let changed = {
            let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
            match (self.kind, verdict) {
                (Kind::Startup, true) => health.started.insert(self.id.clone()),
                (Kind::Startup, false) => health.startup_failed.insert(self.id.clone()),
                (Kind::Liveness, true) => false,
                (Kind::Liveness, false) => health.liveness_failed.insert(self.id.clone()),
                (Kind::Readiness, true) => health.ready.insert(self.id.clone()),
                (Kind::Readiness, false) => health.ready.remove(&self.id),
            }
        };
        if changed {
            (self.on_change)();
        }
        self.kind == Kind::Startup || (self.kind == Kind::Liveness && !verdict)
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value
            .and_then(|value| u64::try_from(value).ok())
            .unwrap_or(default),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{FakeRuntime, RecordedEvents, running_instance};

    struct World {
        runtime: Arc<FakeRuntime>,
        events: Arc<RecordedEvents>,
        probes: ProbeSet,
        pod: Arc<Pod>,
        observed: Observed,
        woken: Arc<tokio::sync::Notify>,
    }

    fn world(container: serde_json::Value, status: serde_json::Value) -> World {
        let pod = json!({ "metadata": { "name": "p", "uid": "u" }, "spec": { "containers": [container] }, "status": status });
        let (runtime, events) = (
            Arc::new(FakeRuntime::default()),
            Arc::new(RecordedEvents::default()),
        );
        let woken = Arc::new(tokio::sync::Notify::new());
        let wake = Arc::clone(&woken);
        let recorder = Recorder::new(Arc::clone(&events) as _);
        let probes = ProbeSet::new(
            Arc::clone(&runtime) as _,
            recorder,
            Arc::new(move || wake.notify_one()),
        );
        let observed = Observed::sorted(vec![], vec![running_instance("c", "id")]);
        World {
            runtime,
            events,
            probes,
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            observed,
            woken,
        }
    }

    impl World {
        fn sync(&mut self) {
            self.probes
                .sync(&self.pod.clone(), &self.observed.clone(), "10.0.0.1");
        }
    }

    fn exec(more: serde_json::Value) -> serde_json::Value {
        let mut probe = json!({ "exec": { "command": ["check"] }, "periodSeconds": 5 });
        probe
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        probe
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_becomes_ready_with_its_probe_and_unready_after_enough_failures() {
        let mut world = world(
            json!({ "name": "c", "readinessProbe": exec(json!({ "failureThreshold": 2 })) }),
            json!({}),
        );
        world.sync();
        world.woken.notified().await;
        assert!(world.probes.health().ready.contains("id"));
        world.runtime.set_exec_exit_code(1);
        let before = Instant::now();
        world.woken.notified().await;
        assert!(!world.probes.health().ready.contains("id"));
        assert_eq!(
            before.elapsed().as_secs(),
            10,
            "two failures, five seconds apart"
        );
        assert_eq!(world.events.reasons(), ["Unhealthy", "Unhealthy"]);
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_is_held_back_until_the_startup_probe_has_passed() {
        let container = json!({ "name": "c", "startupProbe": exec(json!({ "failureThreshold": 30 })),
            "livenessProbe": exec(json!({ "failureThreshold": 1 })) });
        let mut world = world(container, json!({}));
        world.runtime.set_exec_exit_code(1);
        world.sync();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(world.probes.health(), Health::default());
        world.runtime.set_exec_exit_code(0);
        world.woken.notified().await;
        assert!(world.probes.health().started.contains("id"));
        world.sync();
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.runtime.set_exec_exit_code(1);
        world.woken.notified().await;
        assert!(world.probes.health().liveness_failed.contains("id"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_startup_probe_that_never_passes_is_a_failure() {
        let mut world = world(
            json!({ "name": "c", "startupProbe": exec(json!({ "failureThreshold": 3 })) }),
            json!({}),
        );
        world.runtime.set_exec_exit_code(1);
        world.sync();
        world.woken.notified().await;
        assert!(world.probes.health().startup_failed.contains("id"));
        assert_eq!(world.events.reasons().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_kubelet_keeps_the_verdicts_of_the_api() {
        let known = json!({ "containerStatuses": [{ "name": "c", "image": "", "imageID": "", "ready": true,
            "restartCount": 0, "started": true, "containerID": "containerd://id" }] });
        let mut world = world(
            json!({ "name": "c", "readinessProbe": exec(json!({})) }),
            known,
        );
        world.sync();
        assert!(world.probes.health().ready.contains("id"));
    }

    #[tokio::test(start_paused = true)]
    async fn verdicts_go_with_their_container() {
        let mut world = world(
            json!({ "name": "c", "readinessProbe": exec(json!({})) }),
            json!({}),
        );
        world.sync();
        world.woken.notified().await;
        world.observed = Observed::default();
        world.sync();
        assert_eq!(world.probes.health(), Health::default());
        assert!(world.probes.tasks.is_empty());
    }
}
