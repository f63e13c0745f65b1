//! CRI v1 over gRPC on a unix socket. The channel connects lazily and again after the runtime was restarted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::v1::image_service_client::ImageServiceClient;
use super::v1::runtime_service_client::RuntimeServiceClient;
use super::{Error, ExecOutput, Result, Runtime, Scope, v1};
use crate::pods::labels;

/// Default limit of a call, as the kubelet's `runtimeRequestTimeout`.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// A pull has no limit upstream; this one only frees a worker from a registry that hangs for ever.
const PULL_TIMEOUT: Duration = Duration::from_secs(3600);
/// Lists of many containers exceed the 4 MiB default of gRPC.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A CRI runtime behind a unix socket.
#[derive(Clone)]
pub struct GrpcRuntime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl GrpcRuntime {
    /// A client for the runtime at `socket`. Does not connect yet.
    pub fn new(socket: &Path) -> Self {
        let channel = lazy_channel(socket.to_owned());
        let runtime =
            RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let images = ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Self { runtime, images }
    }

    fn client(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        self.images.clone()
    }
}

fn lazy_channel(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(socket).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    // The URI only fills the :authority header; the connector decides where to go.
    Endpoint::from_static("http://localhost")
        .connect_timeout(Duration::from_secs(5))
        .connect_with_connector_lazy(connector)
}

/// Extracts the path from `unix:///run/x.sock`, `unix:/run/x.sock` or a plain absolute path.
pub fn socket_path(endpoint: &str) -> Result<PathBuf, String> {
    let path = endpoint
        .strip_prefix("unix://")
        .or_else(|| endpoint.strip_prefix("unix:"))
        .unwrap_or(endpoint);
    if path.starts_with('/') {
        Ok(PathBuf::from(path))
    } else {
        Err(format!(
            "container runtime endpoint {endpoint:?} is not a unix socket: expected unix:///path/to/socket"
        ))
    }
}

fn request<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn error(call: &'static str, status: &Status) -> Error {
    let message = status.message().to_owned();
    match status.code() {
        Code::Unavailable => Error::Unavailable(message),
        Code::NotFound => Error::NotFound(message),
        Code::Unimplemented => Error::Unimplemented(call),
        Code::DeadlineExceeded | Code::Cancelled => Error::Timeout { call, message },
        _ if message.contains("transport error") => Error::Unavailable(message),
        _ => Error::Failed(message),
    }
}

fn pod_selector(scope: Scope<'_>) -> std::collections::HashMap<String, String> {
    match scope {
        Scope::All => Default::default(),
        Scope::Pod(uid) => [(labels::POD_UID.to_owned(), uid.to_owned())].into(),
    }
}

fn image_spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec {
        image: image.to_owned(),
        user_specified_image: image.to_owned(),
        ..Default::default()
    }
}

/// Calls a method and takes the message out of the answer.
macro_rules! call {
    ($client:expr, $method:ident, $message:expr) => {
        call!($client, $method, $message, CALL_TIMEOUT)
    };
    ($client:expr, $method:ident, $message:expr, $timeout:expr) => {
        $client
            .$method(request($message, $timeout))
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| error(stringify!($method), &status))
    };
}

#[async_trait]
impl Runtime for GrpcRuntime {
    async fn version(&self) -> Result<v1::VersionResponse> {
        call!(
            self.client(),
            version,
            v1::VersionRequest {
                version: "v1".into()
            },
            Duration::from_secs(10)
        )
    }

    async fn status(&self) -> Result<v1::RuntimeStatus> {
        let answer = call!(
            self.client(),
            status,
            v1::StatusRequest::default(),
            Duration::from_secs(10)
        )?;
        Ok(answer.status.unwrap_or_default())
    }

    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig) -> Result<String> {
        let message = v1::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        // Setting up the network may wait for the CNI daemon; upstream doubles the limit for this call too.
        Ok(call!(self.client(), run_pod_sandbox, message, CALL_TIMEOUT * 2)?.pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let message = v1::StopPodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        call!(self.client(), stop_pod_sandbox, message).map(drop)
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let message = v1::RemovePodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        call!(self.client(), remove_pod_sandbox, message).map(drop)
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus> {
        let message = v1::PodSandboxStatusRequest {
            pod_sandbox_id: id.into(),
            verbose: false,
        };
        Ok(call!(self.client(), pod_sandbox_status, message)?
            .status
            .unwrap_or_default())
    }

    async fn list_pod_sandboxes(&self, scope: Scope<'_>) -> Result<Vec<v1::PodSandbox>> {
        let filter = v1::PodSandboxFilter {
            label_selector: pod_selector(scope),
            ..Default::default()
        };
        let message = v1::ListPodSandboxRequest {
            filter: Some(filter),
        };
        Ok(call!(self.client(), list_pod_sandbox, message)?.items)
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: v1::ContainerConfig,
        sandbox: v1::PodSandboxConfig,
    ) -> Result<String> {
        let message = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.into(),
            config: Some(config),
            sandbox_config: Some(sandbox),
        };
        Ok(call!(self.client(), create_container, message)?.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let message = v1::StartContainerRequest {
            container_id: id.into(),
        };
        call!(self.client(), start_container, message).map(drop)
    }

    async fn stop_container(&self, id: &str, grace_seconds: i64) -> Result<()> {
        let message = v1::StopContainerRequest {
            container_id: id.into(),
            timeout: grace_seconds,
        };
        let limit = CALL_TIMEOUT + Duration::from_secs(grace_seconds.max(0).unsigned_abs());
        call!(self.client(), stop_container, message, limit).map(drop)
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let message = v1::RemoveContainerRequest {
            container_id: id.into(),
        };
        call!(self.client(), remove_container, message).map(drop)
    }

    async fn list_containers(&self, scope: Scope<'_>) -> Result<Vec<v1::Container>> {
        let filter = v1::ContainerFilter {
            label_selector: pod_selector(scope),
            ..Default::default()
        };
        let message = v1::ListContainersRequest {
            filter: Some(filter),
        };
        Ok(call!(self.client(), list_containers, message)?.containers)
    }

    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus> {
        let message = v1::ContainerStatusRequest {
            container_id: id.into(),
            verbose: false,
        };
        Ok(call!(self.client(), container_status, message)?
            .status
            .unwrap_or_default())
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let message = v1::ReopenContainerLogRequest {
            container_id: id.into(),
        };
        call!(self.client(), reopen_container_log, message).map(drop)
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout_seconds: i64,
    ) -> Result<ExecOutput> {
        let message = v1::ExecSyncRequest {
            container_id: id.into(),
            cmd: command.to_vec(),
            timeout: timeout_seconds,
        };
        let limit = match timeout_seconds {
            0 => PULL_TIMEOUT,
            seconds => CALL_TIMEOUT + Duration::from_secs(seconds.unsigned_abs()),
        };
        let answer = call!(self.client(), exec_sync, message, limit)?;
        let mut output = answer.stdout;
        output.extend_from_slice(&answer.stderr);
        Ok(ExecOutput {
            output,
            exit_code: answer.exit_code,
        })
    }

    async fn exec(&self, message: v1::ExecRequest) -> Result<String> {
        Ok(call!(self.client(), exec, message)?.url)
    }

    async fn attach(&self, message: v1::AttachRequest) -> Result<String> {
        Ok(call!(self.client(), attach, message)?.url)
    }

    async fn port_forward(&self, message: v1::PortForwardRequest) -> Result<String> {
        Ok(call!(self.client(), port_forward, message)?.url)
    }

    async fn list_container_stats(&self) -> Result<Vec<v1::ContainerStats>> {
        let message = v1::ListContainerStatsRequest { filter: None };
        Ok(call!(self.client(), list_container_stats, message)?.stats)
    }

    async fn image_status(&self, image: &str) -> Result<Option<v1::Image>> {
        let message = v1::ImageStatusRequest {
            image: Some(image_spec(image)),
            verbose: false,
        };
        Ok(call!(self.images(), image_status, message)?.image)
    }

    async fn pull_image(&self, image: &str, auth: Option<v1::AuthConfig>) -> Result<String> {
        let message = v1::PullImageRequest {
            image: Some(image_spec(image)),
            auth,
            sandbox_config: None,
        };
        Ok(call!(self.images(), pull_image, message, PULL_TIMEOUT)?.image_ref)
    }

    async fn list_images(&self) -> Result<Vec<v1::Image>> {
        Ok(call!(
            self.images(),
            list_images,
            v1::ListImagesRequest { filter: None }
        )?
        .images)
    }

    async fn image_fs_info(&self) -> Result<Vec<v1::FilesystemUsage>> {
        Ok(call!(self.images(), image_fs_info, v1::ImageFsInfoRequest {})?.image_filesystems)
    }

    async fn container_events(
        &self,
    ) -> Result<BoxStream<'static, Result<v1::ContainerEventResponse>>> {
        let answer = self
            .client()
            .get_container_events(v1::GetEventsRequest {})
            .await;
        let stream = answer
            .map_err(|status| error("get_container_events", &status))?
            .into_inner();
        Ok(stream
            .map(|item| item.map_err(|status| error("get_container_events", &status)))
            .boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_sockets() {
        assert_eq!(
            socket_path("unix:///run/x.sock").unwrap(),
            PathBuf::from("/run/x.sock")
        );
        assert_eq!(
            socket_path("unix:/run/x.sock").unwrap(),
            PathBuf::from("/run/x.sock")
        );
        assert_eq!(
            socket_path("/run/x.sock").unwrap(),
            PathBuf::from("/run/x.sock")
        );
        assert!(
            socket_path("tcp://127.0.0.1:1")
                .unwrap_err()
                .contains("expected unix://")
        );
    }

    #[tokio::test]
    async fn a_missing_socket_is_unavailable_rather_than_failed() {
        let runtime = GrpcRuntime::new(Path::new("/nonexistent/cri.sock"));
        assert!(matches!(
            runtime.version().await,
            Err(Error::Unavailable(_))
        ));
    }
}
