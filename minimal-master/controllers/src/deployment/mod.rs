//! Deployments: move from one ReplicaSet to the next without losing availability.
//!
//! A sync looks at everything, takes one step and waits for the next change: the state is the
//! cluster's, so a master that takes over in the middle of a rollout simply goes on.

mod annotations;
mod hash;
mod history;
mod rolling;
mod scale;
mod status;
mod view;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use sluice_client::{
    Key, WorkQueue, events, ignore_not_found, is_code, labels, owner,
    worker::{self, Outcome},
};
use tokio_util::sync::CancellationToken;

use crate::{
    claim,
    shared::{BY_CONTROLLER, BY_NAMESPACE, Shared},
};
use scale::Scaling;
use status::Rollout;
use view::View;

const WORKERS: usize = 4;
/// Ties a ReplicaSet and its pods to one version of the template.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";

struct Controller {
    shared: Arc<Shared>,
}

/// Runs until cancelled.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let queue = Arc::new(WorkQueue::new());
    wake_on_changes(&shared, &queue);
    futures::join!(
        shared.deployments.synced(),
        shared.replicasets.synced(),
        shared.pods.synced()
    );
    let controller = Controller { shared };
    worker::run("deployment", queue, WORKERS, stop, |key| {
        controller.reconcile(key)
    })
    .await;
}

fn wake_on_changes(shared: &Arc<Shared>, queue: &Arc<WorkQueue<Key>>) {
    let wake = queue.clone();
    shared
        .deployments
        .on_change(move |change| wake.add(Key::of(&**change.latest())));
    let (wake, known) = (queue.clone(), shared.clone());
    shared.replicasets.on_change(move |change| {
        for set in change.both() {
            wake_owner_or_selecting(&known, &wake, set);
        }
    });
    let (wake, known) = (queue.clone(), shared.clone());
    // Only Recreate waits for pods to be gone; ReplicaSets' status tells everything else.
    shared.pods.on_change(move |change| {
        if change.new.is_none() {
            wake_of_pod(&known, &wake, change.latest());
        }
    });
}

fn wake_owner_or_selecting(shared: &Shared, queue: &WorkQueue<Key>, set: &ReplicaSet) {
    let namespace = set.namespace().unwrap_or_default();
    if let Some(owner) = owner::controller_of(&set.metadata) {
        if owner.kind == "Deployment" {
            queue.add(Key::new(namespace, owner.name.clone()));
        }
        return;
    }
    for deployment in shared.deployments.by_index(BY_NAMESPACE, &namespace) {
        let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
        if selector.is_some_and(|selector| labels::matches(selector, set.labels())) {
            queue.add(Key::of(&*deployment));
        }
    }
}

fn wake_of_pod(shared: &Shared, queue: &WorkQueue<Key>, pod: &Pod) {
    let owner = owner::controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet");
    let Some(owner) = owner else { return };
    let key = Key::new(pod.namespace().unwrap_or_default(), owner.name.clone());
    if let Some(set) = shared.replicasets.get(&key) {
        wake_owner_or_selecting(shared, queue, &set);
    }
}

impl Controller {
    async fn reconcile(&self, key: Key) -> kube::Result<Outcome> {
        let Some(deployment) = self.shared.deployments.get(&key) else {
            return Ok(Outcome::Done);
        };
        let sets = self.claim(&deployment).await?;
        let view = View::new(&deployment, sets);
        if deployment.metadata.deletion_timestamp.is_some() {
            return self.report(&view, Rollout::Unchanged).await;
        }
        if view.paused() || view.resumed() {
            let rollout = if view.paused() {
                Rollout::Paused
            } else {
                Rollout::Resumed
            };
            self.scale_all(&view, &scale::proportional(&view)).await?;
            return self.report(&view, rollout).await;
        }
        if view.was_scaled() {
            self.scale_all(&view, &scale::proportional(&view)).await?;
            return self.report(&view, Rollout::Unchanged).await;
        }
        self.roll(view).await
    }

    /// One step of the rollout.
    async fn roll(&self, view: View<'_>) -> kube::Result<Outcome> {
        if view.recreates() && !rolling::may_create(&view, &|set| self.pods_of(set)) {
            self.scale_all(&view, &scale::empty_old(&view)).await?;
            return self.report(&view, Rollout::Progress).await;
        }
        let Some(new) = view.new_set.clone() else {
            return self.create_new(&view).await;
        };
        if self.sync_annotations(&view, &new).await? {
            return Ok(Outcome::Done);
        }
        let steps = if view.recreates() {
            scale::fill_new(&view)
        } else {
            rolling::steps(&view)
        };
        self.scale_all(&view, &steps).await?;
        if steps.is_empty() && status::is_complete(&view) {
            self.clean_up(&view).await?;
        }
        self.report(&view, Rollout::Progress).await
    }

    async fn claim(&self, deployment: &Deployment) -> kube::Result<Vec<Arc<ReplicaSet>>> {
        let namespace = deployment.namespace().unwrap_or_default();
        let uid = deployment.uid().unwrap_or_default();
        let Some(spec) = &deployment.spec else {
            return Ok(Vec::new());
        };
        let candidates = self.shared.replicasets.by_index(BY_NAMESPACE, &namespace);
        let deleting = owner::is_deleting(&deployment.metadata);
        let claims = claim::claim(&uid, &spec.selector, deleting, candidates);
        let api = self.sets(&namespace);
        let mut owned = claims.owned;
        for set in claims.adopt {
            if claim::adopt(&api, &set, &owner::controller_ref(deployment)).await? {
                owned.push(set);
            }
        }
        for set in claims.release {
            claim::release(&api, &set, &uid).await?;
        }
        Ok(owned)
    }

    async fn create_new(&self, view: &View<'_>) -> kube::Result<Outcome> {
        let set = new_set(view);
        let name = set.name_any();
        let namespace = view.deployment.namespace().unwrap_or_default();
        match self
            .sets(&namespace)
            .create(&PostParams::default(), &set)
            .await
        {
            Ok(_) => {
                let to = set
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.replicas)
                    .unwrap_or(0);
                if to > 0 {
                    self.tell_scaled(view, &name, 0, to);
                }
                self.set_revision(view, view.next_revision()).await?;
                self.report(view, Rollout::Created(name)).await
            }
            Err(error) if is_code(&error, 409) => self.resolve_collision(view, &name, error).await,
            Err(error) => {
                let message = error.to_string();
                self.record(
                    view,
                    events::WARNING,
                    "ReplicaSetCreateError",
                    message.clone(),
                );
                self.report(view, Rollout::CreateFailed(message)).await?;
                Err(error)
            }
        }
    }

    /// The name is taken: by our own set that the cache doesn't show yet, or by another template with the same hash.
    async fn resolve_collision(
        &self,
        view: &View<'_>,
        name: &str,
        error: kube::Error,
    ) -> kube::Result<Outcome> {
        let namespace = view.deployment.namespace().unwrap_or_default();
        let Some(taken) = self.sets(&namespace).get_opt(name).await? else {
            return Err(error);
        };
        let ours =
            owner::controller_uid(&taken.metadata) == view.deployment.metadata.uid.as_deref();
        if ours && view.has_template(&taken) {
            return Ok(Outcome::After(Duration::from_millis(50)));
        }
        let count = view.collision_count() + 1;
        tracing::info!(deployment = %view.deployment.name_any(), count, "hash collision, choosing another name");
        self.patch_status(view, json!({"collisionCount": count}))
            .await?;
        Ok(Outcome::Done)
    }

    /// Keeps revision and scale annotations and minReadySeconds of the new set right; true when something was written.
    async fn sync_annotations(&self, view: &View<'_>, new: &ReplicaSet) -> kube::Result<bool> {
        let revision = view.next_revision();
        if let Some(patch) = annotations::for_new_set(view, new, revision) {
            self.patch_set(new, patch).await?;
            return Ok(true);
        }
        let revision = annotations::revision(&new.metadata);
        if annotations::revision(&view.deployment.metadata) != revision {
            self.set_revision(view, revision).await?;
            return Ok(true);
        }
        Ok(false)
    }

    async fn set_revision(&self, view: &View<'_>, revision: u64) -> kube::Result<()> {
        let patch = json!({"metadata": {
            "uid": view.deployment.metadata.uid,
            "annotations": {annotations::REVISION: revision.to_string()},
        }});
        let patched = self
            .deployments(view)
            .patch(
                &view.deployment.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await;
        ignore_not_found(patched)?;
        Ok(())
    }

    async fn scale_all(&self, view: &View<'_>, scalings: &[Scaling]) -> kube::Result<()> {
        for scaling in scalings {
            let set = &scaling.set;
            let patch = json!({
                "metadata": {
                    "uid": set.metadata.uid,
                    // Two steps must not both start from the same stale number.
                    "resourceVersion": set.metadata.resource_version,
                    "annotations": annotations::for_scale(view),
                },
                "spec": {"replicas": scaling.to},
            });
            self.patch_set(set, patch).await?;
            let from = view::replicas(set);
            if from != scaling.to {
                self.tell_scaled(view, &set.name_any(), from, scaling.to);
            }
        }
        Ok(())
    }

    fn tell_scaled(&self, view: &View<'_>, name: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
        self.record(view, events::NORMAL, "ScalingReplicaSet", message);
    }

    async fn patch_set(&self, set: &ReplicaSet, patch: serde_json::Value) -> kube::Result<()> {
        let api = self.sets(&set.namespace().unwrap_or_default());
        let patched = api
            .patch(
                &set.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await;
        ignore_not_found(patched)?;
        Ok(())
    }

    async fn clean_up(&self, view: &View<'_>) -> kube::Result<()> {
        for set in history::surplus(view) {
            let params = DeleteParams::background().preconditions(Preconditions {
                uid: set.uid(),
                resource_version: set.resource_version(),
            });
            let api = self.sets(&set.namespace().unwrap_or_default());
            ignore_not_found(api.delete(&set.name_any(), &params).await)?;
        }
        Ok(())
    }

    async fn report(&self, view: &View<'_>, rollout: Rollout) -> kube::Result<Outcome> {
        let now = Timestamp::now();
        let status = status::compute(view, &rollout, now);
        let wait = status::stuck_in(view, &status, now);
        if view.deployment.status.as_ref() != Some(&status) {
            self.patch_status(view, status::patch(&status)).await?;
        }
        Ok(wait.into())
    }

    async fn patch_status(&self, view: &View<'_>, status: serde_json::Value) -> kube::Result<()> {
        let patch = json!({"metadata": {"uid": view.deployment.metadata.uid}, "status": status});
        let patched = self
            .deployments(view)
            .patch_status(
                &view.deployment.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await;
        ignore_not_found(patched)?;
        Ok(())
    }

    fn pods_of(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        self.shared
            .pods
            .by_index(BY_CONTROLLER, &set.uid().unwrap_or_default())
    }

    fn record(&self, view: &View<'_>, type_: &'static str, reason: &str, message: String) {
        let about = events::reference(view.deployment);
        self.shared.recorder.record(about, type_, reason, message);
    }

    fn sets(&self, namespace: &str) -> Api<ReplicaSet> {
        Api::namespaced(self.shared.client.clone(), namespace)
    }

    fn deployments(&self, view: &View<'_>) -> Api<Deployment> {
        let namespace = view.deployment.namespace().unwrap_or_default();
        Api::namespaced(self.shared.client.clone(), &namespace)
    }
}

/// The ReplicaSet for the deployment's current template.
fn new_set(view: &View<'_>) -> ReplicaSet {
    let hash = hash::of_template(&view.spec.template, view.collision_count());
    let mut template = view.spec.template.clone();
    let meta = template.metadata.get_or_insert_default();
    meta.labels
        .get_or_insert_default()
        .insert(HASH_LABEL.into(), hash.clone());
    let labels = meta.labels.clone();
    let mut selector = view.spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH_LABEL.into(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", view.deployment.name_any())),
            namespace: view.deployment.namespace(),
            labels,
            annotations: Some(annotations::of_created_set(view, view.next_revision())),
            owner_references: Some(vec![owner::controller_ref(view.deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(rolling::new_set_replicas(view)),
            min_ready_seconds: view.spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
