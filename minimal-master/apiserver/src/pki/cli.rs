//! The command line's `kubeconfig` and `serving-cert`: hand out certificates of a master's authority.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{Pki, files, write_secret};

/// Where the master keeps its data unless told otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/sluice/master";

/// Writes a kubeconfig with a new client certificate.
#[derive(Args, Debug)]
pub struct KubeconfigArgs {
    /// The master's data directory; its certificate authority is made when missing
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
    /// User name, the certificate's common name
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// Group, the certificate's organisation; may be given twice
    #[arg(long = "group", value_name = "NAME", value_delimiter = ',')]
    pub groups: Vec<String>,
    /// The API server's address
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:6443")]
    pub server: String,
    /// File to write with mode 0600; standard output when not given
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

impl KubeconfigArgs {
    /// Makes the certificate and writes the kubeconfig.
    pub fn run(self) -> anyhow::Result<()> {
        let groups: Vec<&str> = self.groups.iter().map(String::as_str).collect();
        let config =
            Pki::open_or_create(&self.data_dir)?.kubeconfig(&self.user, &groups, &self.server)?;
        match self.out {
            Some(path) => Ok(write_secret(&path, &config)?),
            None => {
                print!("{config}");
                Ok(())
            }
        }
    }
}

/// Writes a serving certificate, its key and the authority's certificate.
#[derive(Args, Debug)]
pub struct ServingCertArgs {
    /// The master's data directory; its certificate authority is made when missing
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
    /// Common name of the certificate
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// DNS names and IP addresses that the certificate holds for
    #[arg(
        long = "san",
        value_name = "NAME|IP",
        value_delimiter = ',',
        required = true
    )]
    pub sans: Vec<String>,
    /// Directory for tls.crt, tls.key and ca.crt
    #[arg(long, value_name = "DIR")]
    pub out_dir: PathBuf,
}

impl ServingCertArgs {
    /// Makes the certificate and writes the files.
    pub fn run(self) -> anyhow::Result<()> {
        let pki = Pki::open_or_create(&self.data_dir)?;
        let made = pki.issue_serving(&self.name, &self.sans)?;
        std::fs::create_dir_all(&self.out_dir)
            .with_context(|| format!("cannot create {}", self.out_dir.display()))?;
        write_secret(&self.out_dir.join("tls.key"), &made.key_pem)?;
        files::write(&self.out_dir.join("tls.crt"), &made.cert_pem, 0o644)?;
        files::write(&self.out_dir.join("ca.crt"), pki.ca_pem(), 0o644)?;
        Ok(())
    }
}
