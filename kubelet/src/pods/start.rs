//! Starting one container: its image, its configuration, create, start, and its `postStart` hook.

use std::collections::HashMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::env::Environment;
use super::fields::Placement;
use super::host::Host;
use super::status::Failure;
use super::{container, hooks, spec};
use crate::cri::{Runtime, v1};
use crate::images::{self, Need};
use crate::probes::action::Target;

/// Why a container was not started, and what may be tried when.
#[derive(Debug)]
pub enum NotStarted {
    /// Its image could not be pulled: image back-off applies.
    Image(Failure),
    /// Its configuration can't be made: retried after a while.
    Config(Failure),
    /// The runtime could not create it: retried after a while.
    Create(Failure),
    /// It was created and did not start, or its `postStart` hook failed: restart back-off applies.
    Run(Failure),
}

impl NotStarted {
    /// For the status.
    pub fn failure(&self) -> &Failure {
        match self {
            Self::Image(failure)
            | Self::Config(failure)
            | Self::Create(failure)
            | Self::Run(failure) => failure,
        }
    }
}

/// One container to start.
pub struct Start<'a> {
    /// The node.
    pub host: &'a Host,
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// How often it was restarted before.
    pub restart_count: u32,
    /// The sandbox to start it in, with its configuration.
    pub sandbox: (&'a str, v1::PodSandboxConfig),
    /// Paths of the pod's volumes by name.
    pub volumes: &'a HashMap<String, PathBuf>,
    /// Where the pod runs, with its addresses.
    pub placement: &'a Placement,
}

impl Start<'_> {
    /// Starts the container; returns its id.
    ///
    /// # Errors
    /// Says why not; an event says it too.
    pub async fn run(self) -> Result<String, NotStarted> {
        let image = self.image().await?;
        let config = self.config(&image).await.map_err(|error| {
            let failure = self.failed("CreateContainerConfigError", format!("Error: {error}"));
            NotStarted::Config(Failure {
                message: error,
                ..failure
            })
        })?;
        let (sandbox, sandbox_config) = (self.sandbox.0, self.sandbox.1.clone());
        let created = self
            .host
            .runtime
            .create_container(sandbox, config, sandbox_config)
            .await;
        let id = created.map_err(|error| {
            let failure = self.failed("CreateContainerError", format!("Error: {error}"));
            NotStarted::Create(Failure {
                message: error.to_string(),
                ..failure
            })
        })?;
        self.event(
            "Created",
            format!("Container created: {}", self.container.name),
        );
        self.host
            .runtime
            .start_container(&id)
            .await
            .map_err(|error| {
                let failure = self.failed("RunContainerError", format!("Error: {error}"));
                NotStarted::Run(Failure {
                    message: error.to_string(),
                    ..failure
                })
            })?;
        self.event(
            "Started",
            format!("Container started: {}", self.container.name),
        );
        self.post_start(&id).await?;
        Ok(id)
    }

    fn event(&self, reason: &'static str, message: String) {
        self.host
            .recorder
            .normal(self.pod, Some(&self.container.name), reason, message);
    }

    /// Records a `Failed` event and makes the waiting state.
    fn failed(&self, reason: &str, message: String) -> Failure {
        self.host.recorder.warning(
            self.pod,
            Some(&self.container.name),
            "Failed",
            message.clone(),
        );
        Failure {
            reason: reason.into(),
            message,
        }
    }

    async fn image(&self) -> Result<v1::Image, NotStarted> {
        let name = self.container.image.as_deref().unwrap_or_default();
        match images::need(&*self.host.runtime, self.container).await {
            Ok(Need::Present(image)) => {
                self.event(
                    "Pulled",
                    format!("Container image \"{name}\" already present on machine"),
                );
                Ok(*image)
            }
            Ok(Need::Pull) => self.pull(name).await,
            Ok(Need::Absent) => {
                let message =
                    format!("Container image \"{name}\" is not present with pull policy of Never");
                self.host.recorder.warning(
                    self.pod,
                    Some(&self.container.name),
                    "ErrImageNeverPull",
                    message.clone(),
                );
                Err(NotStarted::Image(Failure {
                    reason: "ErrImageNeverPull".into(),
                    message,
                }))
            }
            Err(error) => {
                let failure = self.failed(
                    "ImageInspectError",
                    format!("Failed to inspect image \"{name}\": {error}"),
                );
                Err(NotStarted::Image(failure))
            }
        }
    }

    async fn pull(&self, name: &str) -> Result<v1::Image, NotStarted> {
        self.event("Pulling", format!("Pulling image \"{name}\""));
        let started = tokio::time::Instant::now();
        let pulled = images::pull(
            &*self.host.runtime,
            &*self.host.objects,
            self.pod,
            self.container,
        )
        .await;
        match pulled {
            Ok(image) => {
                let took = started.elapsed();
                self.event(
                    "Pulled",
                    format!("Successfully pulled image \"{name}\" in {took:.3?}"),
                );
                Ok(image)
            }
            Err(error) => {
                self.failed(
                    "ErrImagePull",
                    format!("Failed to pull image \"{name}\": {error}"),
                );
                let failure = self.failed("ErrImagePull", "Error: ErrImagePull".into());
                Err(NotStarted::Image(Failure {
                    message: error.to_string(),
                    ..failure
                }))
            }
        }
    }

    async fn config(&self, image: &v1::Image) -> Result<v1::ContainerConfig, String> {
        let Self {
            pod,
            container,
            placement,
            ..
        } = *self;
        let environment = Environment {
            objects: &*self.host.objects,
            pod,
            placement,
        };
        let environment = environment
            .of(container)
            .await
            .map_err(|error| error.to_string())?;
        let context = container::Context {
            pod,
            container,
            image,
            restart_count: self.restart_count,
            environment,
            volumes: self.volumes,
            dirs: &self.host.dirs,
            memory_capacity: self.host.memory_capacity,
        };
        container::config(context).map_err(|error| error.to_string())
    }

    /// Runs the hook; a container whose hook fails is killed and restarted as its policy says.
    async fn post_start(&self, id: &str) -> Result<(), NotStarted> {
        let lifecycle = self.container.lifecycle.as_ref();
        let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return Ok(());
        };
        let runtime: &dyn Runtime = &*self.host.runtime;
        let pod_ip = self
            .placement
            .pod_ips
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        let target = Target {
            runtime,
            container_id: id,
            container: self.container,
            pod_ip,
        };
        let Err(why) = hooks::run(target, handler).await else {
            return Ok(());
        };
        let message = format!("PostStartHook failed: {why}");
        self.host.recorder.warning(
            self.pod,
            Some(&self.container.name),
            "FailedPostStartHook",
            message.clone(),
        );
        if let Err(error) = runtime
            .stop_container(id, spec::grace_period(self.pod))
            .await
        {
            tracing::warn!(container = id, %error, "container whose postStart hook failed was not stopped");
        }
        Err(NotStarted::Run(Failure {
            reason: "PostStartHookError".into(),
            message,
        }))
    }
}
