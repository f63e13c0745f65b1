//! The cluster's own certificate authority, and what it signs: serving certificates, client certificates, kubeconfigs.
//!
//! Everything lives in `DATA/pki`: `ca.crt` and `ca.key`, `apiserver.crt` and `apiserver.key`,
//! `apiserver-kubelet-client.crt` and `.key`, and `sa.key`, which signs service account tokens. Keys are readable by
//! their owner only. Files appear by rename, and creation is guarded by a lock, so that two processes
//! that start on an empty directory agree on one authority.

pub mod cli;

mod authority;
mod files;
mod kubeconfig;

use std::path::{Path, PathBuf};

use time::{Duration, OffsetDateTime};

pub use authority::CertAndKey;
use authority::{Authority, Purpose};
use files::Directory;

/// Leaf certificates are renewed at start when they end within this time.
const RENEW_BEFORE: Duration = Duration::days(90);

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file can't be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} does not hold a usable {what}: {reason}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What was expected in it.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A certificate can't be made.
    #[error("cannot make a certificate for {subject}: {reason}")]
    Issue {
        /// For whom.
        subject: String,
        /// Why.
        reason: String,
    },
}

/// The authority of one data directory.
pub struct Pki {
    directory: Directory,
    authority: Authority,
}

impl Pki {
    /// Opens the authority under `data_dir/pki`, and makes it when there is none.
    pub fn open_or_create(data_dir: &Path) -> Result<Self, PkiError> {
        let directory = Directory::open(data_dir.join("pki"))?;
        let _lock = directory.lock()?;
        let authority = Authority::open_or_create(&directory)?;
        Ok(Self {
            directory,
            authority,
        })
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// Where the authority's files are.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A client certificate: the user is its common name, the group its organisation.
    pub fn issue_client(&self, user: &str, groups: &[&str]) -> Result<CertAndKey, PkiError> {
        self.authority.issue(user, groups, &[], Purpose::Client)
    }

    /// A serving certificate for DNS names and IP addresses. It can be used as a client certificate too.
    pub fn issue_serving(
        &self,
        common_name: &str,
        names: &[String],
    ) -> Result<CertAndKey, PkiError> {
        self.authority
            .issue(common_name, &[], names, Purpose::Server)
    }

    /// A kubeconfig with a new client certificate and the authority's certificate in it.
    pub fn kubeconfig(
        &self,
        user: &str,
        groups: &[&str],
        server: &str,
    ) -> Result<String, PkiError> {
        let identity = self.issue_client(user, groups)?;
        Ok(kubeconfig::render(user, server, self.ca_pem(), &identity))
    }

    /// The API server's serving certificate: the one on disk while it covers the names and is not about to end.
    pub fn serving(&self, names: &[String]) -> Result<CertAndKey, PkiError> {
        self.persisted(
            "apiserver",
            |kept| kept.covers(names),
            || self.issue_serving("kube-apiserver", names),
        )
    }

    /// The certificate by which the API server proves itself to kubelets.
    pub fn kubelet_client(&self) -> Result<CertAndKey, PkiError> {
        self.persisted(
            "apiserver-kubelet-client",
            |_| true,
            || self.issue_client("kube-apiserver-kubelet-client", &["system:masters"]),
        )
    }

    /// The key that signs service account tokens (PKCS #8, P-256).
    pub fn service_account_key(&self) -> Result<Vec<u8>, PkiError> {
        let _lock = self.directory.lock()?;
        let pair = authority::open_or_create_key(&self.directory, "sa.key")?;
        Ok(pair.serialize_der())
    }

    fn persisted(
        &self,
        name: &str,
        fits: impl Fn(&CertAndKey) -> bool,
        make: impl Fn() -> Result<CertAndKey, PkiError>,
    ) -> Result<CertAndKey, PkiError> {
        let _lock = self.directory.lock()?;
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        if let (Some(cert_pem), Some(key_pem)) = (
            self.directory.read(&certificate)?,
            self.directory.read(&key)?,
        ) {
            let kept = CertAndKey { cert_pem, key_pem };
            let deadline = OffsetDateTime::now_utc() + RENEW_BEFORE;
            if self.authority.issued(&kept) && kept.is_valid_until(deadline) && fits(&kept) {
                return Ok(kept);
            }
        }
        let made = make()?;
        self.directory.write_secret(&key, &made.key_pem)?;
        self.directory.write(&certificate, &made.cert_pem)?;
        Ok(made)
    }
}

/// Replaces a file that only its owner may read, in one step: a reader or a crash sees the old one or the
/// new one.
///
/// # Errors
/// Names the file.
pub fn write_secret(path: &Path, text: &str) -> Result<(), PkiError> {
    files::write(path, text, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_authority_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open_or_create(dir.path()).unwrap().ca_pem().to_owned();
        assert_eq!(Pki::open_or_create(dir.path()).unwrap().ca_pem(), first);
    }

    #[test]
    fn an_authority_whose_certificate_was_lost_keeps_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let old = Pki::open_or_create(dir.path()).unwrap();
        let issued = old.issue_client("jane", &[]).unwrap();
        std::fs::remove_file(dir.path().join("pki/ca.crt")).unwrap();
        let new = Pki::open_or_create(dir.path()).unwrap();
        assert!(new.authority.issued(&issued));
    }

    #[test]
    fn keys_are_readable_by_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open_or_create(dir.path()).unwrap();
        pki.serving(&names(&["localhost"])).unwrap();
        pki.service_account_key().unwrap();
        for name in ["ca.key", "apiserver.key", "sa.key"] {
            let mode = std::fs::metadata(dir.path().join("pki").join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn the_serving_certificate_is_kept_until_the_names_change() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open_or_create(dir.path()).unwrap();
        let first = pki.serving(&names(&["127.0.0.1", "localhost"])).unwrap();
        assert_eq!(
            pki.serving(&names(&["localhost"])).unwrap().cert_pem,
            first.cert_pem
        );
        let wider = pki.serving(&names(&["localhost", "fd00::1"])).unwrap();
        assert_ne!(wider.cert_pem, first.cert_pem);
        assert!(wider.covers(&names(&["fd00::1"])));
    }

    #[test]
    fn a_damaged_authority_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        drop(Pki::open_or_create(dir.path()).unwrap());
        let path = dir.path().join("pki/ca.key");
        std::fs::write(&path, "rubbish").unwrap();
        let error = Pki::open_or_create(dir.path()).err().unwrap().to_string();
        assert!(error.contains("ca.key"), "{error}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "rubbish");
    }
}
