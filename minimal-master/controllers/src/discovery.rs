//! Which kinds the API server has, and what can be done with them.

use kube::{
    Client,
    core::ApiResource,
    discovery::{ApiCapabilities, Discovery, Scope, verbs},
};

/// One kind in its preferred version.
#[derive(Clone, Debug)]
pub struct Found {
    /// Names of the kind.
    pub resource: ApiResource,
    capabilities: ApiCapabilities,
}

impl Found {
    /// Whether its objects live in namespaces.
    pub fn is_namespaced(&self) -> bool {
        self.capabilities.scope == Scope::Namespaced
    }

    /// Whether the garbage collector can follow it.
    pub fn is_collectable(&self) -> bool {
        [verbs::LIST, verbs::WATCH, verbs::DELETE]
            .iter()
            .all(|verb| self.capabilities.supports_operation(verb))
    }

    /// Whether all objects of a namespace can be listed and deleted.
    pub fn is_deletable(&self) -> bool {
        [verbs::LIST, verbs::DELETE]
            .iter()
            .all(|verb| self.capabilities.supports_operation(verb))
    }
}

/// Asks the server.
pub async fn discover(client: &Client) -> kube::Result<Vec<Found>> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let found = discovery
        .groups()
        .flat_map(|group| group.recommended_resources());
    Ok(found
        .map(|(resource, capabilities)| Found {
            resource,
            capabilities,
        })
        .collect())
}
