//! Logs and tunnels, with a kubelet made for the test: TLS, and an echo behind the upgrade.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use sluice_apiserver::Pki;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::support::{Cluster, PODS, memory, node, pod};

/// Answers with the request's line; switches to an echo when asked to.
async fn kubelet(mut request: Request) -> Response {
    let line = format!("{} {}\n", request.method(), request.uri());
    if request.uri().path().contains("/waiting/") {
        let text = "container \"main\" in pod \"waiting\" is waiting to start: ContainerCreating";
        return Response::builder()
            .status(400)
            .body(Body::from(text))
            .unwrap();
    }
    let Some(protocol) = request.headers().get("upgrade").cloned() else {
        return Response::new(Body::from(line));
    };
    if request.headers().get("x-refuse").is_some() {
        return Response::builder()
            .status(403)
            .body(Body::from("not this protocol"))
            .unwrap();
    }
    assert!(
        request.headers().get("authorization").is_none(),
        "credentials stay at the API server"
    );
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgraded.await.unwrap());
        stream.write_all(line.as_bytes()).await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("upgrade", protocol)
        .header("connection", "Upgrade")
        .body(Body::empty())
        .unwrap()
}

/// Serves by a certificate of this authority, and takes only clients that it knows.
async fn serve(pki: &Pki) -> u16 {
    let made = pki.issue_serving("n1", &["127.0.0.1".to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots))
        .build()
        .unwrap();
    let config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(made.cert_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(made.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let router = Router::new().fallback(kubelet);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = hyper_util::service::TowerToHyperService::new(router);
                let connection = hyper::server::conn::http1::Builder::new();
                let _ = connection
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
    port
}

/// A cluster with a node whose kubelet is the one above, and bound pods.
async fn cluster(authority: bool) -> Cluster {
    let cluster = Cluster::start_with(|config| {
        config.store = Some(memory());
        if authority {
            drop(Pki::open_or_create(&config.data_dir).unwrap());
            config.kubelet_certificate_authority = Some(config.data_dir.join("pki/ca.crt"));
        }
    })
    .await;
    let port = serve(&Pki::open_or_create(cluster.directory.path()).unwrap()).await;
    let mut node = node("n1");
    cluster.post("/api/v1/nodes", node.clone()).await;
    node["status"] = json!({
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    });
    cluster.put("/api/v1/nodes/n1/status", node).await;
    for name in ["web", "waiting"] {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = json!("n1");
        cluster.post(PODS, pod).await;
    }
    cluster
}

/// A TLS connection to the API server as an administrator, on which HTTP is written by hand.
async fn connect(cluster: &Cluster) -> tokio_rustls::client::TlsStream<TcpStream> {
    let loopback = cluster.server.loopback();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(loopback.ca_pem.as_bytes()).unwrap())
        .unwrap();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(loopback.client_cert_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(loopback.client_key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    let stream = TcpStream::connect(cluster.server.local_addr())
        .await
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

/// Reads until a text has come.
async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), wanted: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(wanted) {
        let byte = stream.read_u8().await;
        match byte {
            Ok(byte) => text.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8(text).unwrap()
}

fn upgrade(path: &str, extra: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nAuthorization: Bearer x\r\n{extra}Content-Length: 0\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_through_kubectl() {
    for authority in [false, true] {
        let cluster = cluster(authority).await;
        let out = cluster.ok("logs web --tail=5 --timestamps").await;
        assert!(
            out.starts_with("GET /containerLogs/default/web/main?"),
            "{out}"
        );
        assert!(
            out.contains("tailLines=5") && out.contains("timestamps=true"),
            "{out}"
        );
        let err = cluster.fails("logs waiting").await;
        assert!(
            err.contains("is waiting to start: ContainerCreating"),
            "{err}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_carry_bytes_both_ways() {
    let cluster = cluster(false).await;
    let cases = [
        (
            "exec?command=echo&command=a%20b&stdout=true&container=main",
            "POST /exec/default/web/main?output=1&command=echo&command=a%20b\n",
        ),
        (
            "attach?stdin=true&stdout=true&tty=true",
            "POST /attach/default/web/main?input=1&output=1&tty=1\n",
        ),
        (
            "portforward?ports=80",
            "POST /portForward/default/web?port=80\n",
        ),
    ];
    for (path, expected) in cases {
        let mut stream = connect(&cluster).await;
        let request = upgrade(&format!("{PODS}/web/{path}"), "");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.to_lowercase().contains("upgrade: spdy/3.1"), "{head}");
        assert_eq!(read_until(&mut stream, "\n").await, expected);
        stream.write_all(b"ping\n").await.unwrap();
        assert_eq!(read_until(&mut stream, "\n").await, "ping\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelets_refusal_reaches_the_client() {
    let cluster = cluster(false).await;
    let mut stream = connect(&cluster).await;
    let request = upgrade(
        &format!("{PODS}/web/exec?command=ls&stdout=true"),
        "X-Refuse: yes\r\n",
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "not this protocol").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_is_away_is_named() {
    let cluster = cluster(false).await;
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let mut node = cluster.get("/api/v1/nodes/n1").await;
    node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] = json!(port);
    cluster.put("/api/v1/nodes/n1/status", node).await;
    let err = cluster.fails("logs web").await;
    assert!(
        err.contains("kubelet of node n1") && err.contains(&port.to_string()),
        "{err}"
    );
}
