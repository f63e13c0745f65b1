//! Endpoints: the older form of EndpointSlices, of one address family, for clients that still read it.

mod subsets;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Endpoints, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use sluice_client::{
    Key, WorkQueue, ignore_not_found,
    worker::{self, Outcome},
};
use tokio_util::sync::CancellationToken;

use crate::{service_pods, shared::Shared};

const WORKERS: usize = 2;
const HEADLESS: &str = "service.kubernetes.io/headless";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Tells readers that the list is incomplete.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Runs until cancelled.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let queue = Arc::new(WorkQueue::new());
    let wake = queue.clone();
    shared
        .services
        .on_change(move |change| wake.add(Key::of(&**change.latest())));
    let (wake, services) = (queue.clone(), shared.services.clone());
    shared
        .pods
        .on_change(move |change| service_pods::wake_services(&services, &wake, change));
    let wake = queue.clone();
    // Our own writes need no second look; a deletion by somebody else does.
    shared.endpoints.on_change(move |change| {
        if change.new.is_none() {
            wake.add(Key::of(&**change.latest()));
        }
    });
    futures::join!(
        shared.pods.synced(),
        shared.services.synced(),
        shared.endpoints.synced()
    );
    let run = |key| reconcile(shared.clone(), key);
    worker::run("endpoints", queue, WORKERS, stop, run).await;
}

async fn reconcile(shared: Arc<Shared>, key: Key) -> kube::Result<Outcome> {
    let api: Api<Endpoints> = Api::namespaced(shared.client.clone(), &key.namespace);
    let current = shared.endpoints.get(&key);
    let Some(service) = shared.services.get(&key) else {
        if current.is_some_and(|c| c.labels().contains_key(MANAGED_BY)) {
            ignore_not_found(api.delete(&key.name, &DeleteParams::default()).await)?;
        }
        return Ok(Outcome::Done);
    };
    let Some(pods) = service_pods::selected(&shared, &service) else {
        return Ok(Outcome::Done);
    };
    let (subsets, truncated) = subsets::subsets(&service, &pods);
    let desired = desired(&service, current.as_deref(), subsets, truncated);
    match current {
        Some(current) if same(&current, &desired) => {}
        Some(_) => {
            api.replace(&key.name, &PostParams::default(), &desired)
                .await?;
        }
        None => {
            api.create(&PostParams::default(), &desired).await?;
        }
    }
    Ok(Outcome::Done)
}

fn desired(
    service: &Service,
    current: Option<&Endpoints>,
    subsets: Vec<k8s_openapi::api::core::v1::EndpointSubset>,
    truncated: bool,
) -> Endpoints {
    let mut metadata = current.map_or_else(
        || ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        |current| current.metadata.clone(),
    );
    metadata.labels = Some(labels(service));
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.remove(LAST_CHANGE);
    if truncated {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    metadata.annotations = metadata.annotations.filter(|a| !a.is_empty());
    Endpoints {
        metadata,
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), "endpoint-controller".into());
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

fn same(current: &Endpoints, desired: &Endpoints) -> bool {
    let annotations = |e: &Endpoints| e.metadata.annotations.clone().unwrap_or_default();
    current.subsets.as_deref().unwrap_or_default() == desired.subsets.as_deref().unwrap_or_default()
        && current.metadata.labels == desired.metadata.labels
        && annotations(current) == annotations(desired)
}
