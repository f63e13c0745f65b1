//! What every cluster has: four namespaces, and the `kubernetes` Service that leads to this server.
//!
//! Looked after for as long as the server runs: what somebody deletes comes back.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use sluice_api::{ApiError, Kind, kinds};

use crate::app::App;
use crate::rest::{At, DeleteOptions, Part};
use crate::services::first_address;

const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
const EVERY: Duration = Duration::from_secs(10);
const NAME: &str = "kubernetes";

/// Where this server is.
pub(crate) struct Endpoint {
    pub(crate) cidrs: Vec<IpNetwork>,
    /// `None` when there is no address that others could reach.
    pub(crate) address: Option<SocketAddr>,
}

/// Makes what is missing, once; then again and again in the background.
pub(crate) async fn start(app: Arc<App>, endpoint: Endpoint) -> Result<(), ApiError> {
    ensure(&app, &endpoint).await?;
    app.set_bootstrapped();
    let stop = app.stopping.clone();
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = ensure(&app, &endpoint).await {
                tracing::warn!(%error, "the cluster's own objects could not be restored");
            }
        }
    }));
    Ok(())
}

async fn ensure(app: &App, endpoint: &Endpoint) -> Result<(), ApiError> {
    for name in NAMESPACES {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create(app, &kinds::NAMESPACE, "", namespace).await?;
    }
    if let Some(address) = endpoint.address {
        create(
            app,
            &kinds::SERVICE,
            "default",
            service(&endpoint.cidrs, address),
        )
        .await?;
        put(app, &kinds::ENDPOINTS, endpoints(address)).await?;
        put(app, &kinds::ENDPOINT_SLICE, slice(address)).await?;
    }
    Ok(())
}

async fn create(
    app: &App,
    kind: &'static Kind,
    namespace: &str,
    object: Value,
) -> Result<(), ApiError> {
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if app
        .stored(At {
            kind,
            namespace,
            name: &name,
        })
        .await?
        .is_some()
    {
        return Ok(());
    }
    match app.create(kind, namespace, object, false).await {
        Err(error) if error.code != 409 => Err(error),
        _ => Ok(()),
    }
}

/// Creates the object, or gives it this server's address. Nothing is written when it has it.
async fn put(app: &App, kind: &'static Kind, object: Value) -> Result<(), ApiError> {
    create(app, kind, "default", object.clone()).await?;
    let at = At {
        kind,
        namespace: "default",
        name: NAME,
    };
    let written = app.modify(at, Part::Object, false, |stored| {
        let mut new = stored.clone();
        for field in ["subsets", "endpoints", "ports", "addressType"] {
            if let Some(value) = object.get(field) {
                new[field] = value.clone();
            }
        }
        sluice_api::defaults::apply(kind, &mut new);
        Ok(new)
    });
    match written.await {
        // A slice can't change its address family: one for the new address takes its place.
        Err(error) if error.code == 422 => {
            app.delete(at, &DeleteOptions::default()).await?;
            create(app, kind, "default", object).await
        }
        other => other.map(drop),
    }
}

/// The Service takes the first address of the primary range, as clients expect.
fn service(cidrs: &[IpNetwork], address: SocketAddr) -> Value {
    let address_of = cidrs.first().map(|cidr| first_address(*cidr).to_string());
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address_of,
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": address.port()}],
        },
    })
}

fn endpoints(address: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        // The slice below is made here too; nothing is to mirror this object.
        "metadata": {"name": NAME, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": address.ip().to_string()}],
            "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
        }],
    })
}

fn slice(address: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": NAME, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": if address.is_ipv6() { "IPv6" } else { "IPv4" },
        "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
    })
}

/// The address that others reach this machine by: what was configured, what is bound, or the first that an
/// interface other than loopback has.
pub(crate) fn advertised(configured: Option<IpAddr>, bound: IpAddr) -> Option<IpAddr> {
    configured
        .or_else(|| {
            if bound.is_unspecified() {
                interface_address()
            } else {
                Some(bound)
            }
        })
        .filter(|address| !address.is_loopback())
}

fn interface_address() -> Option<IpAddr> {
    let addresses = nix::ifaddrs::getifaddrs().ok()?.filter_map(|interface| {
        let address = interface.address?;
        Some(IpAddr::from(address.as_sockaddr_in()?.ip()))
    });
    addresses.into_iter().find(|address| !address.is_loopback())
}
