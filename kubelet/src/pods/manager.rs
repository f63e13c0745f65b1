//! All pods of the node: starts a worker for each, tells it of changes, and has orphans cleaned up.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::api::Presence;
use super::host::Host;
use super::worker::{Desired, Wakeup, Worker};
use super::{orphans, qos, resources, spec, status};

/// Longest pause between tries to write a status.
const MAX_PAUSE: Duration = Duration::from_secs(10);

struct Handle {
    desired: watch::Sender<Desired>,
    wakeup: Arc<Wakeup>,
    status: watch::Receiver<Option<PodStatus>>,
}

/// The pods of this node.
pub struct Manager {
    host: Arc<Host>,
    workers: Mutex<HashMap<String, Handle>>,
    orphans: Mutex<HashSet<String>>,
    /// Whether the API has said which pods there are; before that nothing is an orphan.
    listed: AtomicBool,
    stop: CancellationToken,
}

impl Manager {
    /// No pods yet. Workers end at `stop`, leaving their pods as they are.
    pub fn new(host: Arc<Host>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            host,
            workers: Mutex::default(),
            orphans: Mutex::default(),
            listed: AtomicBool::new(false),
            stop,
        })
    }

    /// What workers share.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod was created or changed.
    pub fn apply(self: &Arc<Self>, pod: Pod) {
        let uid = spec::uid(&pod).to_owned();
        let desired = Desired {
            pod: Arc::new(pod),
            gone: false,
        };
        let mut workers = self.workers();
        match workers.get(&uid) {
            Some(handle) => {
                handle.desired.send_replace(desired);
            }
            None => {
                workers.insert(uid.clone(), self.start(uid, desired));
                self.weigh(&workers);
            }
        }
    }

    /// A pod is gone from the API.
    pub fn deleted(&self, pod: Pod) {
        let workers = self.workers();
        if let Some(handle) = workers.get(spec::uid(&pod)) {
            handle.desired.send_replace(Desired {
                pod: Arc::new(pod),
                gone: true,
            });
        }
    }

    /// The API has listed all pods of this node: those that are not in `uids` are gone.
    pub fn listed(&self, uids: HashSet<String>) {
        for (_, handle) in self
            .workers()
            .iter()
            .filter(|(uid, _)| !uids.contains(*uid))
        {
            handle
                .desired
                .send_if_modified(|desired| !std::mem::replace(&mut desired.gone, true));
        }
        self.listed.store(true, Ordering::Release);
    }

    /// The runtime was listed: `changed` pods are looked at again, those of `present` that are unknown are orphans.
    pub fn observed(self: &Arc<Self>, changed: Vec<String>, present: HashSet<String>) {
        let workers = self.workers();
        changed
            .iter()
            .filter_map(|uid| workers.get(uid))
            .for_each(|handle| handle.wakeup.wake());
        if !self.listed.load(Ordering::Acquire) {
            return;
        }
        let left = orphans::left_on_node(&self.host);
        let unknown: HashSet<_> = present
            .into_iter()
            .chain(left)
            .filter(|uid| !workers.contains_key(uid))
            .collect();
        drop(workers);
        unknown.into_iter().for_each(|uid| self.clean_up(uid));
    }

    /// Objects that these pods refer to have changed.
    pub fn objects_changed(&self, uids: &HashSet<String>) {
        let workers = self.workers();
        uids.iter()
            .filter_map(|uid| workers.get(uid))
            .for_each(|handle| handle.wakeup.objects_changed());
    }

    /// All pods with their newest statuses.
    pub fn pods(&self) -> Vec<Pod> {
        self.workers().values().map(current).collect()
    }

    /// A pod by name, with its newest status.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Pod> {
        let workers = self.workers();
        let named = |handle: &&Handle| {
            let desired = handle.desired.borrow();
            spec::namespace(&desired.pod) == namespace && spec::name(&desired.pod) == name
        };
        // A pod that is going and its successor may both be here; the successor is meant.
        let mut found: Vec<_> = workers.values().filter(named).collect();
        found.sort_by_key(|handle| spec::is_deleting(&handle.desired.borrow().pod));
        found.first().map(|handle| current(handle))
    }

    fn start(self: &Arc<Self>, uid: String, desired: Desired) -> Handle {
        let (desired, receiver) = watch::channel(desired);
        let (report, status) = watch::channel(None);
        let wakeup = Arc::new(Wakeup::default());
        let worker = Worker::new(
            Arc::clone(&self.host),
            receiver.clone(),
            Arc::clone(&wakeup),
            report,
        );
        let reporter = Reporter {
            host: Arc::clone(&self.host),
            desired: receiver,
            status: status.clone(),
        };
        let manager = Arc::clone(self);
        tokio::spawn(async move {
            let work = async {
                tokio::select! {
                    () = worker.run() => {}
                    () = reporter.run() => {}
                }
                manager.finished(&uid);
            };
            manager.stop.run_until_cancelled(work).await;
        });
        Handle {
            desired,
            wakeup,
            status,
        }
    }

    fn finished(&self, uid: &str) {
        let mut workers = self.workers();
        workers.remove(uid);
        self.weigh(&workers);
    }

    /// The burstable class weighs as much as its pods ask for together.
    fn weigh(&self, workers: &HashMap<String, Handle>) {
        let Some(cgroups) = &self.host.cgroups else {
            return;
        };
        let pods = workers
            .values()
            .map(|handle| Arc::clone(&handle.desired.borrow().pod));
        let burstable = pods.filter(|pod| qos::class(pod) == qos::QosClass::Burstable);
        let requests = burstable
            .map(|pod| resources::for_pod(&pod).cpu_request)
            .sum();
        if let Err(error) = cgroups.weigh_burstable(requests) {
            tracing::warn!(%error, "the weight of burstable pods was not set");
        }
    }

    fn clean_up(self: &Arc<Self>, uid: String) {
        let new = self
            .orphans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid.clone());
        if !new {
            return;
        }
        let manager = Arc::clone(self);
        tokio::spawn(async move {
            tracing::info!(uid, "cleaning up a pod that is not in the API");
            if let Err(error) = orphans::clean_up(&manager.host, &uid).await {
                tracing::warn!(uid, error, "an orphan was not cleaned up; trying again");
            }
            manager
                .orphans
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&uid);
        });
    }
}

fn current(handle: &Handle) -> Pod {
    let mut pod = Pod::clone(&handle.desired.borrow().pod);
    if let Some(status) = handle.status.borrow().clone() {
        pod.status = Some(status);
    }
    pod
}

/// Writes one pod's statuses to the API, always the newest, for as long as it takes.
struct Reporter {
    host: Arc<Host>,
    desired: watch::Receiver<Desired>,
    status: watch::Receiver<Option<PodStatus>>,
}

impl Reporter {
    async fn run(mut self) {
        let mut pause = Duration::from_millis(100);
        loop {
            if self.status.changed().await.is_err() {
                return std::future::pending().await;
            }
            while let Err(error) = self.write().await {
                let pod = self.desired.borrow().pod.clone();
                tracing::debug!(pod = spec::name(&pod), %error, "the status was not written; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            pause = Duration::from_millis(100);
        }
    }

    async fn write(&mut self) -> Result<Presence, super::api::Error> {
        let Some(wanted) = self.status.borrow_and_update().clone() else {
            return Ok(Presence::There);
        };
        let desired = self.desired.borrow().clone();
        if desired.gone {
            return Ok(Presence::Gone);
        }
        // The watch brings back what was written, so that an unchanged status costs no request.
        let known = desired.pod.status.clone().unwrap_or_default();
        if status::same(&super::conditions::with_others(&wanted, &known), &known) {
            return Ok(Presence::There);
        }
        self.host.api.put_status(&desired.pod, &wanted).await
    }
}
