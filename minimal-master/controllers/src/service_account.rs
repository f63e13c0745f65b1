//! Every namespace has a service account called `default`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, ResourceExt, api::PostParams};
use sluice_client::{
    Key, WorkQueue, is_code,
    worker::{self, Outcome},
};
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

const NAME: &str = "default";

/// Runs until cancelled.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let queue = Arc::new(WorkQueue::new());
    let wake = queue.clone();
    shared
        .namespaces
        .on_change(move |change| wake.add(Key::of(&**change.latest())));
    let wake = queue.clone();
    shared.service_accounts.on_change(move |change| {
        let account = change.latest();
        if change.new.is_none() && account.name_any() == NAME {
            wake.add(Key::cluster(account.namespace().unwrap_or_default()));
        }
    });
    futures::join!(shared.namespaces.synced(), shared.service_accounts.synced());
    let run = |key| reconcile(shared.clone(), key);
    worker::run("service-account", queue, 1, stop, run).await;
}

async fn reconcile(shared: Arc<Shared>, key: Key) -> kube::Result<Outcome> {
    let namespace = shared.namespaces.get(&key);
    let active = namespace.is_some_and(|n| n.metadata.deletion_timestamp.is_none());
    let exists = shared
        .service_accounts
        .get(&Key::new(key.name.clone(), NAME))
        .is_some();
    if !active || exists {
        return Ok(Outcome::Done);
    }
    let mut account = ServiceAccount::default();
    account.metadata.name = Some(NAME.into());
    let api: Api<ServiceAccount> = Api::namespaced(shared.client.clone(), &key.name);
    match api.create(&PostParams::default(), &account).await {
        Ok(_) => Ok(Outcome::Done),
        // Made by somebody else, or the namespace is on its way out: the next event tells.
        Err(error) if [403, 404, 409].iter().any(|code| is_code(&error, *code)) => {
            Ok(Outcome::Done)
        }
        Err(error) => Err(error),
    }
}
