//! TLS: connections to probes' targets, which show certificates that nobody has signed, and the kubelet's own
//! serving certificate and client verification.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read, or holds no PEM.
    #[error("cannot read {path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A certificate could not be made or used.
    #[error("cannot use certificate: {0}")]
    Certificate(String),
    /// The handshake failed.
    #[error("tls: {0}")]
    Handshake(#[from] std::io::Error),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Connects without verifying the other side, as probes do (upstream's `InsecureSkipVerify`): a probe sends no
/// secret and only asks whether somebody answers.
pub async fn connect_unverified(
    stream: TcpStream,
    host: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Error> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::Certificate(error.to_string()))?;
    let verifier = Arc::new(AnyServer(provider));
    let config = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| Error::Certificate(error.to_string()))?;
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?)
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Certificate and key files of the server.
#[derive(Clone, Debug)]
pub struct ServingFiles {
    /// PEM certificate chain.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

/// The server's configuration. With `client_ca` client certificates are asked for, and verified when one is shown;
/// what a caller without one may do is decided later.
///
/// # Errors
/// Names the file that can't be used.
pub fn server_config(
    files: &ServingFiles,
    client_ca: Option<&Path>,
) -> Result<ServerConfig, Error> {
    let certs = certificates(&files.cert)?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable(&files.key, &error))?;
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::Certificate(error.to_string()))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = verifier.allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unreadable(path, &error))?)
        }
    };
    let mut config = builder
        .with_single_cert(certs, key)
        .map_err(|error| unreadable(&files.cert, &error))?;
    // exec, attach and port-forward upgrade the connection, which HTTP/2 can't.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::File {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certs =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certs = certs.map_err(|error| unreadable(path, &error))?;
    if certs.is_empty() {
        Err(unreadable(path, &"it holds no certificate"))
    } else {
        Ok(certs)
    }
}

/// Makes a self-signed serving certificate in `directory` unless there is one.
///
/// # Errors
/// When the files can't be written.
pub fn self_signed(directory: &Path, names: &[String]) -> Result<ServingFiles, Error> {
    let files = ServingFiles {
        cert: directory.join("kubelet.crt"),
        key: directory.join("kubelet.key"),
    };
    if files.cert.exists() && files.key.exists() {
        return Ok(files);
    }
    let made = rcgen::generate_simple_self_signed(names.to_vec());
    let made = made.map_err(|error| Error::Certificate(error.to_string()))?;
    let write = |path: &Path, text: &str| {
        write_private(path, text).map_err(|error| unreadable(path, &error))
    };
    std::fs::create_dir_all(directory).map_err(|error| unreadable(directory, &error))?;
    write(&files.key, &made.signing_key.serialize_pem())?;
    write(&files.cert, &made.cert.pem())?;
    Ok(files)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate_serves_and_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let files = self_signed(directory.path(), &["node1".into(), "127.0.0.1".into()]).unwrap();
        assert!(server_config(&files, None).is_ok());
        assert!(server_config(&files, Some(&files.cert)).is_ok());
        let before = std::fs::read(&files.cert).unwrap();
        self_signed(directory.path(), &["other".into()]).unwrap();
        assert_eq!(std::fs::read(&files.cert).unwrap(), before);
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let files = self_signed(directory.path(), &["node1".into()]).unwrap();
        let garbage = directory.path().join("ca.crt");
        std::fs::write(&garbage, "nothing").unwrap();
        let error = server_config(&files, Some(&garbage))
            .unwrap_err()
            .to_string();
        assert!(error.contains("ca.crt"), "{error}");
        let missing = ServingFiles {
            cert: "/nonexistent/tls.crt".into(),
            ..files
        };
        assert!(
            server_config(&missing, None)
                .unwrap_err()
                .to_string()
                .contains("/nonexistent/tls.crt")
        );
    }
}
