//! exec, attach and port-forward. The runtime has a streaming server of its own; the kubelet asks it for a URL,
//! passes the caller's request on to it, and once both sides have upgraded the connection copies raw bytes. It
//! understands neither SPDY nor WebSocket and needs not to.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State as Extract};
use axum::http::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpStream;

use super::{Refusal, State};
use crate::cri::{self, v1};
use crate::pods::observed::{Observed, State as ContainerState};
use crate::pods::spec;

type Answer = Result<Response<Body>, Refusal>;

/// Runs a command in a container.
pub async fn exec(
    Extract(state): Extract<Arc<State>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request<Body>,
) -> Answer {
    let parameters = Parameters::parse(query.as_deref().unwrap_or_default());
    if parameters.command.is_empty() {
        return Err(Refusal::bad_request(
            "you must specify at least one command for the container",
        ));
    }
    let container_id = running(&state, &namespace, &pod, &container).await?;
    let Parameters {
        command: cmd,
        stdin,
        stdout,
        stderr,
        tty,
        ..
    } = parameters;
    // A terminal has no separate standard error.
    let message = v1::ExecRequest {
        container_id,
        cmd,
        tty,
        stdin,
        stdout,
        stderr: stderr && !tty,
    };
    let url = state
        .manager
        .host()
        .runtime
        .exec(message)
        .await
        .map_err(runtime_refused)?;
    tunnel(&url, request).await
}

/// [`exec`] with the pod's uid in the path.
pub async fn exec_with_uid(
    state: Extract<Arc<State>>,
    Path((namespace, pod, _, container)): Path<(String, String, String, String)>,
    query: RawQuery,
    request: Request<Body>,
) -> Answer {
    exec(state, Path((namespace, pod, container)), query, request).await
}

/// Joins the streams of a running container.
pub async fn attach(
    Extract(state): Extract<Arc<State>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request<Body>,
) -> Answer {
    let Parameters {
        stdin,
        stdout,
        stderr,
        tty,
        ..
    } = Parameters::parse(query.as_deref().unwrap_or_default());
    let container_id = running(&state, &namespace, &pod, &container).await?;
    let message = v1::AttachRequest {
        container_id,
        stdin,
        tty,
        stdout,
        stderr: stderr && !tty,
    };
    let url = state
        .manager
        .host()
        .runtime
        .attach(message)
        .await
        .map_err(runtime_refused)?;
    tunnel(&url, request).await
}

/// [`attach`] with the pod's uid in the path.
pub async fn attach_with_uid(
    state: Extract<Arc<State>>,
    Path((namespace, pod, _, container)): Path<(String, String, String, String)>,
    query: RawQuery,
    request: Request<Body>,
) -> Answer {
    attach(state, Path((namespace, pod, container)), query, request).await
}

/// Forwards ports into a pod's network.
pub async fn port_forward(
    Extract(state): Extract<Arc<State>>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    request: Request<Body>,
) -> Answer {
    let port = Parameters::parse(query.as_deref().unwrap_or_default()).ports;
    let pod = find(&state, &namespace, &name)?;
    let runtime = Arc::clone(&state.manager.host().runtime);
    let observed = Observed::read(&*runtime, spec::uid(&pod))
        .await
        .map_err(Refusal::internal)?;
    let sandbox = observed.current_sandbox();
    let sandbox = sandbox
        .ok_or_else(|| Refusal::bad_request(format!("pod \"{name}\" has no running sandbox")))?;
    let message = v1::PortForwardRequest {
        pod_sandbox_id: sandbox.id.clone(),
        port,
    };
    let url = runtime
        .port_forward(message)
        .await
        .map_err(runtime_refused)?;
    tunnel(&url, request).await
}

/// [`port_forward`] with the pod's uid in the path.
pub async fn port_forward_with_uid(
    state: Extract<Arc<State>>,
    Path((namespace, pod, _)): Path<(String, String, String)>,
    query: RawQuery,
    request: Request<Body>,
) -> Answer {
    port_forward(state, Path((namespace, pod)), query, request).await
}

fn runtime_refused(error: cri::Error) -> Refusal {
    match error {
        cri::Error::NotFound(message) => Refusal::not_found(message),
        other => Refusal::internal(other),
    }
}

fn find(state: &State, namespace: &str, name: &str) -> Result<Pod, Refusal> {
    let pod = state.manager.pod(namespace, name);
    pod.ok_or_else(|| Refusal::not_found(format!("pod \"{namespace}/{name}\" not found")))
}

/// Id of the running instance of a container.
async fn running(
    state: &State,
    namespace: &str,
    name: &str,
    container: &str,
) -> Result<String, Refusal> {
    let pod = find(state, namespace, name)?;
    let observed = Observed::read(&*state.manager.host().runtime, spec::uid(&pod))
        .await
        .map_err(Refusal::internal)?;
    let instance = observed
        .latest(container)
        .filter(|instance| instance.state == ContainerState::Running);
    let missing = || Refusal::not_found(format!("container not found (\"{container}\")"));
    instance
        .map(|instance| instance.id.clone())
        .ok_or_else(missing)
}

/// The query, in the API server's words (`input`) and in the user's (`stdin`).
#[derive(Debug, Default, PartialEq)]
struct Parameters {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    ports: Vec<i32>,
}

impl Parameters {
    fn parse(query: &str) -> Self {
        let mut found = Self::default();
        for (key, value) in pairs(query) {
            let on = matches!(value.as_str(), "1" | "true" | "");
            match key.as_str() {
                "command" => found.command.push(value),
                "input" | "stdin" => found.stdin |= on,
                "output" | "stdout" => found.stdout |= on,
                "error" | "stderr" => found.stderr |= on,
                "tty" => found.tty |= on,
                "port" | "ports" => found
                    .ports
                    .extend(value.split(',').filter_map(|port| port.parse::<i32>().ok())),
                _ => {}
            }
        }
        found
    }
}

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        (decode(key), decode(value))
    })
}

/// Undoes percent encoding; what is not properly encoded stays as it is.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits
            .filter(|_| first == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.unwrap_or(if first == b'+' { b' ' } else { first }));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Passes the request on to the runtime's streaming server and joins the two upgraded connections. What the
/// streaming server refuses goes back as it is.
async fn tunnel(url: &str, mut request: Request<Body>) -> Answer {
    let target: Uri = url
        .parse()
        .map_err(|_| Refusal::internal(format!("the runtime's URL {url:?} is invalid")))?;
    let client = hyper::upgrade::on(&mut request);
    let mut answer = forward(&target, request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer.map(Body::new));
    }
    let server = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        match tokio::try_join!(client, server) {
            Ok((client, server)) => {
                let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
            Err(error) => tracing::debug!(%error, "a stream was not upgraded"),
        }
    });
    Ok(answer.map(|_| Body::empty()))
}

async fn forward(
    target: &Uri,
    request: Request<Body>,
) -> Result<Response<hyper::body::Incoming>, Refusal> {
    let authority = target
        .authority()
        .ok_or_else(|| Refusal::internal("the runtime's URL names no host"))?
        .clone();
    let stream = TcpStream::connect(authority.as_str()).await;
    let stream = stream
        .map_err(|error| Refusal::internal(format!("streaming server {authority}: {error}")))?;
    let _ = stream.set_nodelay(true);
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(Refusal::internal)?;
    tokio::spawn(connection.with_upgrades());
    let (mut parts, body) = request.into_parts();
    parts.uri = target
        .path_and_query()
        .map_or_else(Uri::default, |path| Uri::from(path.clone()));
    parts.headers.remove(axum::http::header::AUTHORIZATION);
    let host = authority.as_str().parse().map_err(Refusal::internal)?;
    parts.headers.insert(axum::http::header::HOST, host);
    parts.extensions.clear();
    sender
        .send_request(Request::from_parts(parts, body))
        .await
        .map_err(Refusal::internal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn both_dialects_of_the_query_are_understood() {
        let found = Parameters::parse(
            "command=sh&command=-c&command=echo+a%20b%26&input=1&stdout=true&tty=1&port=80,81",
        );
        assert_eq!(found.command, ["sh", "-c", "echo a b&"]);
        assert!(found.stdin && found.stdout && found.tty && !found.stderr);
        assert_eq!(found.ports, [80, 81]);
    }

    proptest! {
        #[test]
        fn any_query_is_survived(query in ".{0,80}") {
            let _ = Parameters::parse(&query);
        }
    }

    /// A streaming server that upgrades and echoes, and refuses what does not ask for an upgrade.
    async fn streaming_server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/exec/token", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let text = String::from_utf8(head).unwrap().to_lowercase();
                assert!(text.starts_with("post /exec/token http/1.1"), "{text}");
                if !text.contains("upgrade: spdy/3.1") {
                    stream
                        .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nno\n")
                        .await
                        .unwrap();
                    continue;
                }
                let upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-A: b\r\n\r\n";
                stream.write_all(upgrade.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        });
        url
    }

    /// A front server whose every request is tunnelled to `url`.
    async fn front(url: String) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(move |request: Request<Body>| {
            let url = url.clone();
            async move { tunnel(&url, request).await }
        });
        tokio::spawn(async move {
            super::super::serve(listener.accept().await.unwrap().0, router, None).await
        });
        address
    }

    async fn read_head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap().to_lowercase()
    }

    #[tokio::test]
    async fn upgraded_connections_carry_raw_bytes_both_ways() {
        let mut stream = TcpStream::connect(front(streaming_server().await).await)
            .await
            .unwrap();
        let request = "POST /x?command=sh HTTP/1.1\r\nHost: k\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(
            head.starts_with("http/1.1 101") && head.contains("x-a: b"),
            "{head}"
        );
        stream.write_all(b"\x00\xffbytes").await.unwrap();
        let mut back = [0; 7];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"\x00\xffbytes");
    }

    #[tokio::test]
    async fn a_refusal_comes_back_with_its_body() {
        let mut stream = TcpStream::connect(front(streaming_server().await).await)
            .await
            .unwrap();
        stream
            .write_all(b"POST /x HTTP/1.1\r\nHost: k\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        assert!(read_head(&mut stream).await.starts_with("http/1.1 400"));
        let mut body = [0; 3];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"no\n");
    }
}
