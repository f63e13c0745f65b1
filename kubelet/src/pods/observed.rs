//! What the runtime has of one pod: the input to planning and to the status, in plain types.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::labels;
use crate::cri::{self, Runtime, Scope, v1};

/// State of a container instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Created and never started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime has lost track of it.
    Unknown,
}

/// One instance of a container: a restart makes another.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Id at the runtime, without the `containerd://` prefix.
    pub id: String,
    /// Name in the pod's spec.
    pub name: String,
    /// Sandbox that it belongs to.
    pub sandbox_id: String,
    /// How often the container was restarted before this instance.
    pub restart_count: u32,
    /// State now.
    pub state: State,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Its exit code; meaningful when it has ended.
    pub exit_code: i32,
    /// The runtime's word for why it ended (`Completed`, `Error`, `OOMKilled`).
    pub reason: String,
    /// The runtime's message, such as why it could not be started.
    pub message: String,
    /// Image as the runtime names it.
    pub image: String,
    /// Digest or id of the image.
    pub image_id: String,
    /// [`labels::container_hash`] of the spec that it was made from.
    pub hash: String,
    /// Log file on the node.
    pub log_path: String,
    /// File on the node that holds its termination message, when there is one.
    pub termination_message_file: Option<String>,
    /// Whether the end of the log stands in for a missing termination message.
    pub message_from_log: bool,
}

/// One sandbox of the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    /// Id at the runtime.
    pub id: String,
    /// 0 for the first sandbox of the pod.
    pub attempt: u32,
    /// Whether containers can run in it.
    pub ready: bool,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Addresses that the network plugin gave it; empty for the node's network and when not ready.
    pub ips: Vec<String>,
}

/// Everything that the runtime has of one pod, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Sandboxes, newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Container instances, newest first.
    pub instances: Vec<Instance>,
}

impl Observed {
    /// The sandbox that containers run in: the newest, when it is ready.
    pub fn current_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The newest instance of a container.
    pub fn latest(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == name)
    }

    /// The newest ended instance before the newest instance.
    pub fn previous(&self, name: &str) -> Option<&Instance> {
        self.instances
            .iter()
            .filter(|instance| instance.name == name)
            .skip(1)
            .find(|i| i.state == State::Exited)
    }

    /// Instances that may have a process.
    pub fn alive(&self) -> impl Iterator<Item = &Instance> {
        self.instances
            .iter()
            .filter(|instance| matches!(instance.state, State::Running | State::Unknown))
    }

    /// Reads the pod's sandboxes and containers from the runtime.
    pub async fn read(runtime: &dyn Runtime, uid: &str) -> cri::Result<Self> {
        let (sandboxes, containers) = tokio::try_join!(
            runtime.list_pod_sandboxes(Scope::Pod(uid)),
            runtime.list_containers(Scope::Pod(uid))
        )?;
        let sandboxes =
            futures::future::try_join_all(sandboxes.into_iter().map(|item| sandbox(runtime, item)));
        let instances = futures::future::try_join_all(
            containers.into_iter().map(|item| instance(runtime, item)),
        );
        let (sandboxes, instances) = tokio::try_join!(sandboxes, instances)?;
        Ok(Self::sorted(
            sandboxes.into_iter().flatten().collect(),
            instances.into_iter().flatten().collect(),
        ))
    }

    /// Orders what was read: newest first.
    pub fn sorted(mut sandboxes: Vec<Sandbox>, mut instances: Vec<Instance>) -> Self {
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created_at)));
        instances.sort_by_key(|instance| {
            std::cmp::Reverse((instance.restart_count, instance.created_at))
        });
        Self {
            sandboxes,
            instances,
        }
    }
}

/// A sandbox with its addresses; `None` when it vanished meanwhile.
async fn sandbox(runtime: &dyn Runtime, item: v1::PodSandbox) -> cri::Result<Option<Sandbox>> {
    let ready = item.state() == v1::PodSandboxState::SandboxReady;
    let ips = match ready {
        false => Vec::new(),
        true => match runtime.pod_sandbox_status(&item.id).await {
            Ok(status) => addresses(status.network),
            Err(cri::Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        },
    };
    let attempt = item
        .metadata
        .map(|metadata| metadata.attempt)
        .unwrap_or_default();
    Ok(Some(Sandbox {
        id: item.id,
        attempt,
        ready,
        created_at: item.created_at,
        ips,
    }))
}

fn addresses(network: Option<v1::PodSandboxNetworkStatus>) -> Vec<String> {
    let network = network.unwrap_or_default();
    let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    all.filter(|ip| !ip.is_empty()).collect()
}

/// A container in full; `None` when it vanished meanwhile.
async fn instance(runtime: &dyn Runtime, item: v1::Container) -> cri::Result<Option<Instance>> {
    match runtime.container_status(&item.id).await {
        Ok(status) => Ok(Some(from_status(status, item.pod_sandbox_id))),
        Err(cri::Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn from_status(status: v1::ContainerStatus, sandbox_id: String) -> Instance {
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let message_path = annotation(labels::TERMINATION_MESSAGE_PATH);
    let message_file = status
        .mounts
        .iter()
        .find(|mount| mount.container_path == message_path);
    Instance {
        name: status
            .labels
            .get(labels::CONTAINER_NAME)
            .cloned()
            .unwrap_or_default(),
        sandbox_id,
        restart_count: annotation(labels::RESTART_COUNT)
            .parse()
            .unwrap_or_default(),
        state: state(status.state()),
        created_at: timestamp(status.created_at),
        started_at: timestamp(status.started_at),
        finished_at: timestamp(status.finished_at),
        exit_code: status.exit_code,
        hash: annotation(labels::CONTAINER_HASH),
        termination_message_file: message_file.map(|mount| mount.host_path.clone()),
        message_from_log: annotation(labels::TERMINATION_MESSAGE_POLICY) == "FallbackToLogsOnError",
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_id: status.image_ref,
        reason: status.reason,
        message: status.message,
        log_path: status.log_path,
        id: status.id,
    }
}

fn state(state: v1::ContainerState) -> State {
    match state {
        v1::ContainerState::ContainerCreated => State::Created,
        v1::ContainerState::ContainerRunning => State::Running,
        v1::ContainerState::ContainerExited => State::Exited,
        v1::ContainerState::ContainerUnknown => State::Unknown,
    }
}

/// Nanoseconds since the epoch as a time; `None` for 0, which CRI uses for "not yet".
fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::UNIX_EPOCH + SignedDuration::from_nanos(nanoseconds))
}
