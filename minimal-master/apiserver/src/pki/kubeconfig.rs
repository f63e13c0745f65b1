//! A kubeconfig for one user of this cluster, with everything embedded.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::CertAndKey;

const CLUSTER: &str = "sluice";

pub(super) fn render(user: &str, server: &str, ca_pem: &str, identity: &CertAndKey) -> String {
    let context = format!("{user}@{CLUSTER}");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": CLUSTER,
            "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(ca_pem)},
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&identity.cert_pem),
                "client-key-data": STANDARD.encode(&identity.key_pem),
            },
        }],
        "contexts": [{"name": context, "context": {"cluster": CLUSTER, "user": user}}],
        "current-context": context,
    });
    // Plain JSON values always have a YAML form.
    serde_yaml_ng::to_string(&config).unwrap_or_else(|_| config.to_string())
}
