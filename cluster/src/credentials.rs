//! Who may speak to whom: a client certificate for each node, a serving certificate for each kubelet, all
//! signed by the authority that the API server keeps in its data directory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use sluice_apiserver::pki::Pki;

use crate::layout::Machine;
use crate::parts::{Parts, api_url};

/// Writes what is missing for all nodes.
pub fn ensure(parts: &Parts) -> Result<()> {
    let pki = Pki::open_or_create(&parts.layout.machine_state(Machine::Master))?;
    for node in Machine::nodes() {
        ensure_node(parts, &pki, node)
            .with_context(|| format!("cannot write the credentials of {}", node.name()))?;
    }
    Ok(())
}

fn ensure_node(parts: &Parts, pki: &Pki, node: Machine) -> Result<()> {
    let kubeconfig = parts.kubeconfig(node);
    if !kubeconfig.exists() {
        let user = format!("system:node:{}", node.name());
        let text = pki.kubeconfig(&user, &["system:nodes"], &api_url())?;
        write_secret(&kubeconfig, &text)?;
    }
    let tls = parts.tls_directory(node);
    if !tls.join("tls.key").exists() {
        let names = [node.name(), node.v4().to_string(), node.v6().to_string()];
        let pair = pki.issue_serving(&format!("system:node:{}", node.name()), &names)?;
        fs::create_dir_all(&tls)?;
        fs::write(tls.join("ca.crt"), pki.ca_pem())?;
        fs::write(tls.join("tls.crt"), &pair.cert_pem)?;
        write_secret(&tls.join("tls.key"), &pair.key_pem)?;
    }
    Ok(())
}

/// Readable by nobody else from its first moment, and complete once it has its name.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    Ok(fs::rename(temporary, path)?)
}
