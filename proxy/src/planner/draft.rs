//! One port of a Service: from its eligible endpoints and its frontends to a plan.

use std::collections::BTreeSet;

use super::endpoints::Endpoints;
use super::policy::Membership;
use super::{
    EndpointSlice, Family, FrontendKind, HealthCheck, PlannedBackend, PlannedFrontend, PortId,
    PortPlan, Scope, Service,
};
use crate::maps::FrontendKey;

/// What is the same for all scopes of a port.
pub(super) struct Draft<'a> {
    pub service: &'a Service,
    pub joined: &'a Endpoints<'a>,
    pub members: &'a [Membership],
    pub exists: bool,
}

impl Draft<'_> {
    pub fn finish(&self, id: PortId, frontends: &[(FrontendKey, FrontendKind)]) -> PortPlan {
        let external = frontends.iter().any(|(_, kind)| kind.external());
        // Traffic from inside to an external frontend goes to all endpoints, whatever the policies.
        let internal_local = self.service.internal_local
            && id.scope == Scope::All
            && frontends
                .iter()
                .any(|(_, kind)| *kind == FrontendKind::ClusterIp);
        let external_local = self.service.external_local;
        let backends: Vec<_> = self
            .joined
            .iter()
            .zip(self.members)
            .map(|(((addr, port), merged), member)| PlannedBackend {
                addr: *addr,
                port: *port,
                local: merged.local,
                internal: if internal_local {
                    member.local
                } else {
                    member.cluster
                },
                external: external
                    && if external_local {
                        member.local
                    } else {
                        member.cluster
                    },
            })
            .filter(|backend| backend.internal || backend.external)
            .collect();
        let none = |test: fn(&PlannedBackend) -> bool| !backends.iter().any(test);
        let ranges: Vec<_> = self
            .service
            .source_ranges
            .iter()
            .copied()
            .filter(|network| Family::of(network.ip()) == id.family)
            .collect();
        let restricted =
            |kind: FrontendKind| kind == FrontendKind::LoadBalancer && !ranges.is_empty();
        let planned = |(key, kind): &(_, FrontendKind)| PlannedFrontend {
            key: *key,
            kind: *kind,
            source_ranges: restricted(*kind),
        };
        PortPlan {
            id,
            affinity: self.service.affinity,
            source_ranges: if frontends.iter().any(|(_, kind)| restricted(*kind)) {
                ranges.clone()
            } else {
                Vec::new()
            },
            internal_drop: self.exists && none(|backend| backend.internal),
            external_drop: external && self.exists && none(|backend| backend.external),
            external_local: external && external_local,
            frontends: frontends.iter().map(planned).collect(),
            backends,
        }
    }
}

pub(super) type ScopedFrontends = Vec<(Scope, Vec<(FrontendKey, FrontendKind)>)>;

/// Frontends by the set of backends that they share.
pub(super) fn scopes(
    service: &Service,
    frontends: &[(FrontendKey, FrontendKind)],
) -> ScopedFrontends {
    if !service.internal_local {
        return vec![(Scope::All, frontends.to_vec())];
    }
    let (cluster, external): (Vec<_>, Vec<_>) = frontends
        .iter()
        .copied()
        .partition(|(_, kind)| *kind == FrontendKind::ClusterIp);
    [(Scope::All, cluster), (Scope::External, external)]
        .into_iter()
        .filter(|(_, frontends)| !frontends.is_empty())
        .collect()
}

/// A pod of a dual-stack Service is in a slice of each family but counts once.
pub(super) fn health_check<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    service: &Service,
) -> Option<HealthCheck> {
    let port = service.health_check_node_port?;
    let of = |family| {
        let slices = slices.clone().filter(move |slice| slice.family == family);
        let endpoints = slices.flat_map(|slice| slice.endpoints.iter());
        let local = endpoints.filter(|endpoint| endpoint.local && endpoint.ready);
        local
            .map(|endpoint| endpoint.addr)
            .collect::<BTreeSet<_>>()
            .len()
    };
    let local_endpoints = Family::ALL.into_iter().map(of).max().unwrap_or_default();
    Some(HealthCheck {
        port,
        local_endpoints,
    })
}
