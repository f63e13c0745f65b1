//! Pods at the API server: writing statuses and confirming deletions.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use super::{conditions, spec, status};

/// Whether the pod is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    There,
    /// It has been deleted, or replaced by one of the same name.
    Gone,
}

/// Why the API server did not take a write. Retryable.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// The API server, as far as a pod worker needs it.
#[async_trait]
pub trait PodApi: Send + Sync + 'static {
    /// Makes `status` the pod's status. Conditions of others are kept as the API server has them.
    async fn put_status(&self, pod: &Pod, status: &PodStatus) -> Result<Presence, Error>;
    /// Removes a pod whose containers have stopped, at once.
    async fn confirm_deletion(&self, pod: &Pod) -> Result<(), Error>;

    /// Writes the last status, then removes the pod, so that whoever watches it sees how its containers ended.
    async fn confirm_deletion_with(
        &self,
        pod: &Pod,
        last: Option<&PodStatus>,
    ) -> Result<(), String> {
        let presence = match last {
            Some(status) => self
                .put_status(pod, status)
                .await
                .map_err(|error| error.to_string())?,
            None => Presence::There,
        };
        match presence {
            Presence::Gone => Ok(()),
            Presence::There => self
                .confirm_deletion(pod)
                .await
                .map_err(|error| error.to_string()),
        }
    }
}

/// [`PodApi`] over a client.
pub struct KubePodApi {
    client: kube::Client,
}

impl KubePodApi {
    /// Uses `client`.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), spec::namespace(pod))
    }

    /// The pod as it is now, when it is still the same one.
    async fn current(&self, pod: &Pod) -> Result<Option<Pod>, Error> {
        let current = self.pods(pod).get_opt(spec::name(pod)).await;
        let current = current.map_err(|error| Error(error.to_string()))?;
        Ok(current.filter(|current| spec::uid(current) == spec::uid(pod)))
    }
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

#[async_trait]
impl PodApi for KubePodApi {
    async fn put_status(&self, pod: &Pod, wanted: &PodStatus) -> Result<Presence, Error> {
        let mut current = pod.clone();
        // The first try takes the version that the watch has shown; a conflict is settled by reading.
        for _ in 0..5 {
            let known = current.status.clone().unwrap_or_default();
            let merged = conditions::with_others(wanted, &known);
            if status::same(&merged, &known) {
                return Ok(Presence::There);
            }
            current.status = Some(merged);
            match self
                .pods(pod)
                .replace_status(spec::name(pod), &PostParams::default(), &current)
                .await
            {
                Ok(_) => return Ok(Presence::There),
                Err(error) if code(&error) == 409 => {}
                Err(error) if code(&error) == 404 => return Ok(Presence::Gone),
                Err(error) => return Err(Error(error.to_string())),
            }
            match self.current(pod).await? {
                Some(fresh) => current = fresh,
                None => return Ok(Presence::Gone),
            }
        }
        Err(Error(
            "the pod changes faster than its status can be written".into(),
        ))
    }

    async fn confirm_deletion(&self, pod: &Pod) -> Result<(), Error> {
        let same = Preconditions {
            uid: Some(spec::uid(pod).into()),
            resource_version: None,
        };
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(same),
            ..Default::default()
        };
        match self.pods(pod).delete(spec::name(pod), &now).await {
            Ok(_) => Ok(()),
            // Gone already, or another pod has its name.
            Err(error) if matches!(code(&error), 404 | 409) => Ok(()),
            Err(error) => Err(Error(error.to_string())),
        }
    }
}
