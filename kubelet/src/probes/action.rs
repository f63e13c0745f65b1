//! The checks themselves, which probes and lifecycle hooks share: HTTP, TCP, gRPC and commands.

use std::net::IpAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::cri::Runtime;
use crate::tls;

/// Bytes of an answer that end up in an event.
const MAX_BODY: usize = 10 * 1024;

/// The gRPC health checking protocol, generated from `proto/health.proto`.
#[allow(missing_docs, clippy::all)]
mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// What is checked.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Runs commands in containers.
    pub runtime: &'a dyn Runtime,
    /// The running instance.
    pub container_id: &'a str,
    /// Its spec, for the names of ports.
    pub container: &'a Container,
    /// The pod's primary address.
    pub pod_ip: &'a str,
}

/// `Err` says why the check failed, in words for an event.
pub type Outcome = Result<(), String>;

/// Runs the check of a probe within its time limit.
pub async fn probe(target: Target<'_>, probe: &Probe) -> Outcome {
    let seconds = probe
        .timeout_seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .unwrap_or(1)
        .max(1);
    let limit = Duration::from_secs(seconds);
    let check = async {
        if let Some(action) = &probe.exec {
            return exec(target, action, limit).await;
        }
        if let Some(action) = &probe.http_get {
            return http_get(target, action).await;
        }
        if let Some(action) = &probe.tcp_socket {
            return tcp(target, action).await;
        }
        match &probe.grpc {
            Some(action) => grpc(target, action).await,
            None => Err("probe has no handler: expected exec, httpGet, tcpSocket or grpc".into()),
        }
    };
    // A command is ended by the runtime itself, which needs a moment to say so.
    let patience = if probe.exec.is_some() {
        limit + Duration::from_secs(2)
    } else {
        limit
    };
    tokio::time::timeout(patience, check)
        .await
        .unwrap_or_else(|_| Err(format!("timed out after {seconds}s")))
}

/// Runs a command; fails with its output when it exits with another code than 0.
pub async fn exec(target: Target<'_>, action: &ExecAction, limit: Duration) -> Outcome {
    let command = action.command.as_deref().unwrap_or_default();
    let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    let result = target
        .runtime
        .exec_sync(target.container_id, command, seconds)
        .await;
    let result = result.map_err(|error| error.to_string())?;
    match result.exit_code {
        0 => Ok(()),
        _ => Err(
            String::from_utf8_lossy(&result.output[..result.output.len().min(MAX_BODY)])
                .into_owned(),
        ),
    }
}

/// Succeeds on any status from 200 to 399.
pub async fn http_get(target: Target<'_>, action: &HTTPGetAction) -> Outcome {
    let host = action
        .host
        .as_deref()
        .filter(|host| !host.is_empty())
        .unwrap_or(target.pod_ip);
    let port = port(&action.port, target.container)?;
    let stream = connect(host, port).await?;
    let request = request(action, &authority(host, port))?;
    if action.scheme.as_deref() == Some("HTTPS") {
        let stream = tls::connect_unverified(stream, host)
            .await
            .map_err(|error| error.to_string())?;
        return exchange(stream, request).await;
    }
    exchange(stream, request).await
}

fn request(
    action: &HTTPGetAction,
    authority: &str,
) -> Result<http::Request<Empty<bytes::Bytes>>, String> {
    let path = action
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let mut request = http::Request::get(path);
    let headers = action.http_headers.as_deref().unwrap_or_default();
    let has = |name: &str| {
        headers
            .iter()
            .any(|header| header.name.eq_ignore_ascii_case(name))
    };
    for (name, value) in [
        ("host", authority),
        ("user-agent", "kube-probe/1.36"),
        ("accept", "*/*"),
    ] {
        if !has(name) {
            request = request.header(name, value);
        }
    }
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    request
        .header("connection", "close")
        .body(Empty::new())
        .map_err(|error| error.to_string())
}

async fn exchange<S>(stream: S, request: http::Request<Empty<bytes::Bytes>>) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(words)?;
    // Ends with the exchange: the request asks for the connection to be closed, and dropping it closes it.
    let answer = async {
        let response = sender.send_request(request).await.map_err(words)?;
        let status = response.status();
        let _ = Limited::new(response.into_body(), MAX_BODY).collect().await;
        Ok::<_, String>(status)
    };
    tokio::pin!(answer, connection);
    let status = tokio::select! {
        status = &mut answer => status?,
        _ = &mut connection => answer.await?,
    };
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!(
            "HTTP probe failed with statuscode: {}",
            status.as_u16()
        ))
    }
}

/// Succeeds when a connection is accepted.
pub async fn tcp(target: Target<'_>, action: &TCPSocketAction) -> Outcome {
    let host = action
        .host
        .as_deref()
        .filter(|host| !host.is_empty())
        .unwrap_or(target.pod_ip);
    connect(host, port(&action.port, target.container)?)
        .await
        .map(drop)
}

async fn grpc(target: Target<'_>, action: &GRPCAction) -> Outcome {
    let port =
        u16::try_from(action.port).map_err(|_| format!("port {} is out of range", action.port))?;
    let uri = format!("http://{}", authority(target.pod_ip, port));
    let endpoint =
        tonic::transport::Endpoint::from_shared(uri).map_err(|error| error.to_string())?;
    let channel = endpoint.connect().await.map_err(|error| chain(&error))?;
    let message = health::HealthCheckRequest {
        service: action.service.clone().unwrap_or_default(),
    };
    let answer = health::health_client::HealthClient::new(channel)
        .check(message)
        .await;
    let status = answer
        .map_err(|status| status.message().to_owned())?
        .into_inner()
        .status();
    match status {
        health::health_check_response::ServingStatus::Serving => Ok(()),
        other => Err(format!(
            "service unhealthy (responded with \"{}\")",
            other.as_str_name()
        )),
    }
}

/// An error with its causes: tonic's own words are only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let target = authority(host, port);
    TcpStream::connect(&target)
        .await
        .map_err(|error| format!("dial tcp {target}: {error}"))
}

/// `host:port`, with brackets around an IPv6 address.
fn authority(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

/// A port by number, or by its name in the container's spec.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => named_port(name, container).or_else(|| name.parse().ok()),
    };
    let number = number.ok_or_else(|| {
        format!(
            "port {port:?} is not a port of container {}",
            container.name
        )
    })?;
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("port {number} is out of range"))
}

fn named_port(name: &str, container: &Container) -> Option<i32> {
    let ports = container.ports.iter().flatten();
    ports
        .into_iter()
        .find(|port| port.name.as_deref() == Some(name))
        .map(|port| port.container_port)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::FakeRuntime;

    async fn check(spec: serde_json::Value) -> Outcome {
        let runtime = FakeRuntime::default();
        let container: Container = serde_json::from_value(
            json!({ "name": "c", "ports": [{ "name": "web", "containerPort": spec["webPort"].as_i64().unwrap_or(1) }] }),
        )
        .unwrap();
        let parsed: Probe = serde_json::from_value(spec).unwrap();
        let target = Target {
            runtime: &runtime,
            container_id: "id",
            container: &container,
            pod_ip: "127.0.0.1",
        };
        probe(target, &parsed).await
    }

    /// Answers one connection with `answer` and returns what was asked.
    async fn serve(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        });
        (port, task)
    }

    #[tokio::test]
    async fn http_statuses_below_400_pass() {
        for (answer, passes) in [
            ("200 OK", true),
            ("302 Found", true),
            ("404 Not Found", false),
            ("500 X", false),
        ] {
            let answer: &'static str =
                format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").leak();
            let (port, asked) = serve(answer).await;
            let header = json!([{ "name": "X-A", "value": "1" }]);
            let result = check(
                json!({ "httpGet": { "port": port, "path": "/ok?a=b", "httpHeaders": header } }),
            )
            .await;
            assert_eq!(result.is_ok(), passes, "{answer} {result:?}");
            let asked = asked.await.unwrap().to_lowercase();
            assert!(
                asked.starts_with("get /ok?a=b http/1.1") && asked.contains("x-a: 1"),
                "{asked}"
            );
        }
    }

    #[tokio::test]
    async fn a_garbled_answer_fails() {
        let (port, _asked) = serve("nonsense\r\n\r\n").await;
        assert!(check(json!({ "httpGet": { "port": port } })).await.is_err());
    }

    #[tokio::test]
    async fn tcp_passes_when_somebody_listens() {
        let (port, _asked) = serve("").await;
        assert_eq!(
            check(json!({ "webPort": port, "tcpSocket": { "port": "web" } })).await,
            Ok(())
        );
        let free = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let error = check(json!({ "tcpSocket": { "port": free } }))
            .await
            .unwrap_err();
        assert!(error.contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn silence_is_a_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = check(json!({ "httpGet": { "port": port }, "timeoutSeconds": 1 }))
            .await
            .unwrap_err();
        assert_eq!(error, "timed out after 1s");
    }

    #[tokio::test]
    async fn bad_definitions_are_named() {
        assert!(
            check(json!({ "tcpSocket": { "port": "none" } }))
                .await
                .unwrap_err()
                .contains("not a port of container c")
        );
        assert!(
            check(json!({ "tcpSocket": { "port": 70000 } }))
                .await
                .unwrap_err()
                .contains("out of range")
        );
        assert!(check(json!({})).await.unwrap_err().contains("no handler"));
    }

    struct Health(health::health_check_response::ServingStatus);

    #[tonic::async_trait]
    impl health::health_server::Health for Health {
        async fn check(
            &self,
            _: tonic::Request<health::HealthCheckRequest>,
        ) -> Result<tonic::Response<health::HealthCheckResponse>, tonic::Status> {
            Ok(tonic::Response::new(health::HealthCheckResponse {
                status: self.0.into(),
            }))
        }
    }

    #[tokio::test]
    async fn grpc_follows_the_health_protocol() {
        use health::health_check_response::ServingStatus;
        for (status, passes) in [
            (ServingStatus::Serving, true),
            (ServingStatus::NotServing, false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let service = health::health_server::HealthServer::new(Health(status));
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            tokio::spawn(
                tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming(incoming),
            );
            let result = check(json!({ "grpc": { "port": port } })).await;
            assert_eq!(result.is_ok(), passes, "{result:?}");
        }
    }
}
