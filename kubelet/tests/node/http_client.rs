//! Just enough of an HTTP client: GET, with or without TLS and a client certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A client certificate with its key, and the server's CA.
pub type Credentials = (String, String);

/// Status and body over TLS; status 0 when the server ends the connection.
pub async fn get(
    address: SocketAddr,
    path: &str,
    credentials: Option<Credentials>,
) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let Some((pem, ca)) = credentials else {
        return exchange(
            sluice_kubelet::tls::connect_unverified(stream, "node1")
                .await
                .unwrap(),
            path,
        )
        .await;
    };
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let cert = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = config.with_client_auth_cert(vec![cert], key).unwrap();
    let name = ServerName::try_from("node1").unwrap();
    match TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
    {
        Ok(stream) => exchange(stream, path).await,
        Err(_) => (0, String::new()),
    }
}

/// Status and body without TLS.
pub async fn plain(address: SocketAddr, path: &str) -> (u16, String) {
    exchange(TcpStream::connect(address).await.unwrap(), path).await
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.0\r\nHost: k\r\n\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return (0, text);
    };
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.into(),
    )
}
