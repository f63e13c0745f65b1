//! The container runtime as the kubelet sees it: the trait [`Runtime`], the CRI v1 messages it is made of, and
//! the gRPC adapter. Nothing outside this module knows that there is gRPC; pod workers run over any `Runtime`.

mod grpc;

pub use grpc::{GrpcRuntime, socket_path};

use async_trait::async_trait;
use futures::stream::BoxStream;

/// The messages of CRI v1, generated from `proto/cri.proto`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// Why a call to the runtime failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket can't be reached: the runtime is down or restarting. Retryable.
    #[error("container runtime is unavailable: {0}")]
    Unavailable(String),
    /// The sandbox, container or image is not known to the runtime.
    #[error("{0}")]
    NotFound(String),
    /// The runtime does not offer this call.
    #[error("container runtime does not implement {0}")]
    Unimplemented(&'static str),
    /// The call took longer than it may. Retryable.
    #[error("{call} timed out: {message}")]
    Timeout {
        /// The CRI method.
        call: &'static str,
        /// What the runtime, or the client, said.
        message: String,
    },
    /// The runtime refused or failed; its own words.
    #[error("{0}")]
    Failed(String),
}

/// What `?` returns in this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Output of a command that was run to its end inside a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExecOutput {
    /// Standard output and standard error, in this order.
    pub output: Vec<u8>,
    /// Exit code of the command.
    pub exit_code: i32,
}

/// Which sandboxes or containers to list.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Everything on the node.
    All,
    /// Those of one pod, by its uid.
    Pod(&'a str),
}

/// The calls of CRI v1 that a kubelet makes. All calls are idempotent in the way that CRI asks for.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version of the runtime.
    async fn version(&self) -> Result<v1::VersionResponse>;
    /// Conditions of the runtime (`RuntimeReady`, `NetworkReady`).
    async fn status(&self) -> Result<v1::RuntimeStatus>;
    /// Creates and starts a sandbox; returns its id.
    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig) -> Result<String>;
    /// Kills what runs in a sandbox and takes its network down.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()>;
    /// Removes a sandbox and its containers.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()>;
    /// State, addresses and annotations of a sandbox.
    async fn pod_sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus>;
    /// Sandboxes in `scope`, in any state.
    async fn list_pod_sandboxes(&self, scope: Scope<'_>) -> Result<Vec<v1::PodSandbox>>;
    /// Creates a container in a sandbox; returns its id.
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: v1::ContainerConfig,
        sandbox: v1::PodSandboxConfig,
    ) -> Result<String>;
    /// Starts a created container.
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Sends the stop signal, and SIGKILL after `grace_seconds`; returns when the container has stopped.
    async fn stop_container(&self, id: &str, grace_seconds: i64) -> Result<()>;
    /// Removes a container, killing it when it runs.
    async fn remove_container(&self, id: &str) -> Result<()>;
    /// Containers in `scope`, in any state.
    async fn list_containers(&self, scope: Scope<'_>) -> Result<Vec<v1::Container>>;
    /// Everything about one container.
    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus>;
    /// Asks the runtime to open the log file anew, after it was renamed.
    async fn reopen_container_log(&self, id: &str) -> Result<()>;
    /// Runs a command in a container and waits for its end, at most `timeout_seconds` (0: without limit).
    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout_seconds: i64,
    ) -> Result<ExecOutput>;
    /// Prepares a streaming exec; returns the URL to connect to.
    async fn exec(&self, request: v1::ExecRequest) -> Result<String>;
    /// Prepares a streaming attach; returns the URL to connect to.
    async fn attach(&self, request: v1::AttachRequest) -> Result<String>;
    /// Prepares a port forward; returns the URL to connect to.
    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String>;
    /// Resource usage of all containers.
    async fn list_container_stats(&self) -> Result<Vec<v1::ContainerStats>>;
    /// The image, when it is on the node.
    async fn image_status(&self, image: &str) -> Result<Option<v1::Image>>;
    /// Pulls an image; returns its reference.
    async fn pull_image(&self, image: &str, auth: Option<v1::AuthConfig>) -> Result<String>;
    /// Images on the node.
    async fn list_images(&self) -> Result<Vec<v1::Image>>;
    /// Usage of the file systems that hold images.
    async fn image_fs_info(&self) -> Result<Vec<v1::FilesystemUsage>>;
    /// Events of containers, from runtimes that have them ([`Error::Unimplemented`] from others).
    async fn container_events(
        &self,
    ) -> Result<BoxStream<'static, Result<v1::ContainerEventResponse>>>;
}
