//! EndpointSlices: what load balancers read. One set per Service and address family.

mod desired;
mod pack;
mod tracker;

pub(crate) use desired::{IPV4, IPV6, address, hostname, ports, target_ref};

use std::sync::Arc;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use sluice_client::{
    Key, WorkQueue, ignore_not_found,
    worker::{self, Outcome},
};
use tokio_util::sync::CancellationToken;

use crate::{
    service_pods,
    shared::{BY_SERVICE, SERVICE_NAME_LABEL, Shared},
};
use tracker::Tracker;

/// Who manages a slice; slices of others are left alone.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const US: &str = "endpointslice-controller.k8s.io";
const WORKERS: usize = 4;

struct Controller {
    shared: Arc<Shared>,
    tracker: Tracker,
}

/// Runs until cancelled.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let controller = Arc::new(Controller {
        shared: shared.clone(),
        tracker: Tracker::default(),
    });
    let queue = Arc::new(WorkQueue::new());
    wake_on_changes(&controller, &queue);
    futures::join!(
        shared.pods.synced(),
        shared.services.synced(),
        shared.nodes.synced(),
        shared.slices.synced(),
    );
    worker::run("endpointslice", queue, WORKERS, stop, |key| {
        controller.reconcile(key)
    })
    .await;
}

fn wake_on_changes(controller: &Arc<Controller>, queue: &Arc<WorkQueue<Key>>) {
    let shared = &controller.shared;
    let wake = queue.clone();
    shared
        .services
        .on_change(move |change| wake.add(Key::of(&**change.latest())));
    let (wake, services) = (queue.clone(), shared.services.clone());
    shared
        .pods
        .on_change(move |change| service_pods::wake_services(&services, &wake, change));
    let (wake, owner) = (queue.clone(), controller.clone());
    shared.slices.on_change(move |change| {
        let Some(key) = service_key(change.latest()) else {
            return;
        };
        if change.new.is_none() {
            owner.tracker.gone(&key, &change.latest().name_any());
        }
        wake.add(key);
    });
    let (wake, services) = (queue.clone(), shared.services.clone());
    shared.nodes.on_change(move |change| {
        let zone = |node: Option<&Arc<_>>| node.and_then(|node| desired::zone(node));
        if zone(change.old) != zone(change.new) {
            services
                .list()
                .iter()
                .for_each(|service| wake.add(Key::of(&**service)));
        }
    });
}

fn service_key(slice: &EndpointSlice) -> Option<Key> {
    let service = slice.labels().get(SERVICE_NAME_LABEL)?;
    Some(Key::new(slice.namespace()?, service.clone()))
}

impl Controller {
    async fn reconcile(&self, key: Key) -> kube::Result<Outcome> {
        let Some(service) = self.shared.services.get(&key) else {
            // The garbage collector removes the slices of a Service that is gone.
            self.tracker.forget(&key);
            return Ok(Outcome::Done);
        };
        let Some(pods) = service_pods::selected(&self.shared, &service) else {
            return Ok(Outcome::Done);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let mut existing = self.shared.slices.by_index(BY_SERVICE, &key.to_string());
        existing.retain(|slice| slice.labels().get(MANAGED_BY).is_some_and(|m| m == US));
        if self.tracker.is_stale(&key, &existing) {
            // The event that we still wait for wakes this Service again.
            return Ok(Outcome::Done);
        }
        let zones = |name: &str| {
            self.shared
                .nodes
                .get(&Key::cluster(name))
                .and_then(|n| desired::zone(&n))
        };
        let groups = desired::groups(&service, &pods, &zones);
        let changes = pack::reconcile(&service, groups, &existing);
        self.write(&key, &service, changes).await?;
        Ok(Outcome::Done)
    }

    async fn write(
        &self,
        key: &Key,
        service: &Service,
        changes: pack::Changes,
    ) -> kube::Result<()> {
        let api: Api<EndpointSlice> = Api::namespaced(
            self.shared.client.clone(),
            &service.namespace().unwrap_or_default(),
        );
        for slice in changes.create {
            let created = api.create(&PostParams::default(), &slice).await?;
            self.tracker.wrote(key, &created);
        }
        for slice in changes.update {
            let updated = api
                .replace(&slice.name_any(), &PostParams::default(), &slice)
                .await?;
            self.tracker.wrote(key, &updated);
        }
        for name in changes.delete {
            self.tracker.deleting(key, &name);
            let deleted = api.delete(&name, &DeleteParams::default()).await;
            if ignore_not_found(deleted)?.is_none() {
                self.tracker.gone(key, &name);
            }
        }
        Ok(())
    }
}
