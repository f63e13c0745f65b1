//! ReplicaSets: keep the asked-for number of pods, no more and no fewer.

mod plan;
mod rank;
mod status;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use sluice_client::{
    Change, Key, WorkQueue, events, ignore_not_found, labels, owner, pod as pods,
    worker::{self, Outcome},
};
use tokio_util::sync::CancellationToken;

use crate::{
    claim,
    expectations::Expectations,
    shared::{BY_CONTROLLER, BY_NAMESPACE, Shared},
};
use plan::Plan;
use status::Failure;

const WORKERS: usize = 4;
/// The first batch of creations; each that succeeds wholly doubles the next, so that a quota that is
/// used up or a bad template costs one request and not five hundred.
const FIRST_BATCH: usize = 1;

struct Controller {
    shared: Arc<Shared>,
    queue: Arc<WorkQueue<Key>>,
    expectations: Expectations,
}

/// Runs until cancelled.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let controller = Arc::new(Controller {
        shared: shared.clone(),
        queue: Arc::default(),
        expectations: Expectations::default(),
    });
    let queue = controller.queue.clone();
    shared
        .replicasets
        .on_change(move |change| queue.add(Key::of(&**change.latest())));
    let handler = controller.clone();
    shared
        .pods
        .on_change(move |change| handler.pod_changed(change));
    futures::join!(shared.pods.synced(), shared.replicasets.synced());
    let queue = controller.queue.clone();
    worker::run("replicaset", queue, WORKERS, stop, |key| {
        controller.reconcile(key)
    })
    .await;
}

impl Controller {
    fn pod_changed(&self, change: &Change<'_, Pod>) {
        let going = |pod: &Arc<Pod>| pod.metadata.deletion_timestamp.is_some();
        for pod in change.both() {
            if let Some(key) = self.owner_of(pod) {
                if change.old.is_none() {
                    self.expectations.created(&key);
                }
                if change.new.is_none_or(going) {
                    self.expectations
                        .deleted(&key, &pod.uid().unwrap_or_default());
                }
                self.queue.add(key);
            } else if owner::controller_of(&pod.metadata).is_none() {
                self.wake_selecting(pod);
            }
        }
    }

    fn owner_of(&self, pod: &Pod) -> Option<Key> {
        let owner = owner::controller_of(&pod.metadata).filter(|o| o.kind == "ReplicaSet")?;
        Some(Key::new(pod.namespace()?, owner.name.clone()))
    }

    /// An orphan may be adopted by any ReplicaSet that selects it.
    fn wake_selecting(&self, pod: &Pod) {
        let namespace = pod.namespace().unwrap_or_default();
        for set in self.shared.replicasets.by_index(BY_NAMESPACE, &namespace) {
            let selector = set.spec.as_ref().map(|spec| &spec.selector);
            if selector.is_some_and(|selector| labels::matches(selector, pod.labels())) {
                self.queue.add(Key::of(&*set));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> kube::Result<Outcome> {
        let Some(set) = self.shared.replicasets.get(&key) else {
            self.expectations.forget(&key);
            return Ok(Outcome::Done);
        };
        let satisfied = self.expectations.satisfied(&key);
        let owned = self.claim(&set).await?;
        let mut result = Ok(());
        if satisfied && set.metadata.deletion_timestamp.is_none() {
            result = self.manage(&key, &set, &owned).await;
        }
        let failure = result
            .as_ref()
            .err()
            .map(|(failure, error)| (*failure, error));
        self.update_status(&set, &owned, failure).await?;
        result.map_err(|(_, error)| error)?;
        Ok(status::next_available(&set, &owned, Timestamp::now()).into())
    }

    async fn claim(&self, set: &ReplicaSet) -> kube::Result<Vec<Arc<Pod>>> {
        let (namespace, uid) = (
            set.namespace().unwrap_or_default(),
            set.uid().unwrap_or_default(),
        );
        let Some(spec) = &set.spec else {
            return Ok(Vec::new());
        };
        let candidates = self.shared.pods.by_index(BY_NAMESPACE, &namespace);
        let deleting = owner::is_deleting(&set.metadata);
        let claims = claim::claim(&uid, &spec.selector, deleting, candidates);
        let api = self.pods(&namespace);
        let mut owned = claims.owned;
        for pod in claims.adopt {
            if pods::is_active(&pod)
                && claim::adopt(&api, &pod, &owner::controller_ref(set)).await?
            {
                owned.push(pod);
            }
        }
        for pod in claims.release {
            claim::release(&api, &pod, &uid).await?;
        }
        Ok(owned)
    }

    async fn manage(
        &self,
        key: &Key,
        set: &ReplicaSet,
        owned: &[Arc<Pod>],
    ) -> Result<(), (Failure, kube::Error)> {
        let related = self.related(set);
        match plan::plan(set, owned, &related, Timestamp::now()) {
            Plan::Nothing => Ok(()),
            Plan::Create(count) => self
                .create(key, set, count)
                .await
                .map_err(|e| (Failure::Create, e)),
            Plan::Delete(victims) => self
                .delete(key, set, &victims)
                .await
                .map_err(|e| (Failure::Delete, e)),
        }
    }

    /// Pods of all ReplicaSets under the same owner, for ranking: prefer nodes that are doubled up.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let Some(owner) = owner::controller_uid(&set.metadata) else {
            return self
                .shared
                .pods
                .by_index(BY_CONTROLLER, &set.uid().unwrap_or_default());
        };
        let siblings = self.shared.replicasets.by_index(BY_CONTROLLER, owner);
        siblings
            .iter()
            .flat_map(|s| {
                self.shared
                    .pods
                    .by_index(BY_CONTROLLER, &s.uid().unwrap_or_default())
            })
            .collect()
    }

    async fn create(&self, key: &Key, set: &ReplicaSet, count: usize) -> kube::Result<()> {
        self.expectations.expect(key, count, []);
        let (mut left, mut batch) = (count, FIRST_BATCH);
        while left > 0 {
            let size = batch.min(left);
            let results = futures::future::join_all((0..size).map(|_| self.create_pod(set))).await;
            left -= size;
            batch *= 2;
            let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
            for _ in &failed {
                self.expectations.created(key);
            }
            if let Some(error) = failed.into_iter().next() {
                (0..left).for_each(|_| self.expectations.created(key));
                return self.failed_create(set, error);
            }
        }
        Ok(())
    }

    fn failed_create(&self, set: &ReplicaSet, error: kube::Error) -> kube::Result<()> {
        if is_namespace_terminating(&error) {
            return Ok(());
        }
        let message = format!("Error creating: {}", text(&error));
        self.record(set, events::WARNING, "FailedCreate", message);
        Err(error)
    }

    async fn create_pod(&self, set: &ReplicaSet) -> kube::Result<()> {
        let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else {
            return Ok(());
        };
        let mut pod = pods::from_template(template);
        pod.metadata.generate_name = Some(format!("{}-", set.name_any()));
        pod.metadata.owner_references = Some(vec![owner::controller_ref(set)]);
        let api = self.pods(&set.namespace().unwrap_or_default());
        let created = api.create(&PostParams::default(), &pod).await?;
        let message = format!("Created pod: {}", created.name_any());
        self.record(set, events::NORMAL, "SuccessfulCreate", message);
        Ok(())
    }

    async fn delete(&self, key: &Key, set: &ReplicaSet, victims: &[Arc<Pod>]) -> kube::Result<()> {
        let uids = victims.iter().filter_map(|pod| pod.uid());
        self.expectations.expect(key, 0, uids);
        let deletions = victims.iter().map(|pod| self.delete_pod(key, set, pod));
        let results = futures::future::join_all(deletions).await;
        results.into_iter().collect()
    }

    async fn delete_pod(&self, key: &Key, set: &ReplicaSet, pod: &Pod) -> kube::Result<()> {
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        });
        let deleted = self
            .pods(&pod.namespace().unwrap_or_default())
            .delete(&pod.name_any(), &params)
            .await;
        match ignore_not_found(deleted) {
            Ok(Some(_)) => {
                let message = format!("Deleted pod: {}", pod.name_any());
                self.record(set, events::NORMAL, "SuccessfulDelete", message);
                Ok(())
            }
            Ok(None) => {
                self.expectations
                    .deleted(key, &pod.uid().unwrap_or_default());
                Ok(())
            }
            Err(error) => {
                self.expectations
                    .deleted(key, &pod.uid().unwrap_or_default());
                let message = format!("Error deleting: {}", text(&error));
                self.record(set, events::WARNING, "FailedDelete", message);
                Err(error)
            }
        }
    }

    async fn update_status(
        &self,
        set: &ReplicaSet,
        owned: &[Arc<Pod>],
        failure: Option<(Failure, &kube::Error)>,
    ) -> kube::Result<()> {
        let failure = failure.map(|(failure, error)| (failure, text(error)));
        let new = status::compute(set, owned, failure, Timestamp::now());
        if set.status.as_ref() == Some(&new) {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": set.metadata.uid}, "status": status::patch(&new)});
        let api: Api<ReplicaSet> = Api::namespaced(
            self.shared.client.clone(),
            &set.namespace().unwrap_or_default(),
        );
        let patched = api
            .patch_status(
                &set.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await;
        ignore_not_found(patched)?;
        Ok(())
    }

    fn record(&self, set: &ReplicaSet, type_: &'static str, reason: &str, message: String) {
        let about = events::reference(set);
        self.shared.recorder.record(about, type_, reason, message);
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.shared.client.clone(), namespace)
    }
}

fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// A namespace that goes away refuses new objects with this cause; there is nothing to retry.
fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|d| &d.causes);
    causes
        .into_iter()
        .any(|cause| cause.reason == "NamespaceTerminating")
}

/// `minReadySeconds` as a duration.
fn min_ready(set: &ReplicaSet) -> Duration {
    let seconds = set
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
