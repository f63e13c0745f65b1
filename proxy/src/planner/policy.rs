//! Which endpoints traffic may go to: traffic policies, terminating endpoints, topology hints.
//!
//! The rules are kube-proxy's (`pkg/proxy/topology.go`; KEP-1669 terminating endpoints, KEP-2086
//! internal traffic policy, KEP-2433 topology hints, KEP-3015 PreferSameZone and PreferSameNode):
//!
//! - The *cluster* set: ready endpoints that the topology hints allow; without any, those that still
//!   serve while terminating.
//! - The *local* set: the node's ready endpoints; without any, its serving-terminating ones. Hints do
//!   not matter.
//! - Traffic from inside the cluster to an external frontend uses the cluster set whatever
//!   `externalTrafficPolicy` says.

use super::endpoints::Merged;

/// What the node knows about where it is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The node's zone; empty when unknown.
    pub zone: &'a str,
}

/// Which sets an endpoint is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Eligible for policy Cluster.
    pub cluster: bool,
    /// Eligible for policy Local.
    pub local: bool,
}

/// The hints that are in force for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    Anywhere,
    SameNode,
    SameZone,
}

/// Says of each endpoint, in order, which sets it is in.
pub fn classify<'a>(endpoints: &[Merged<'a>], place: Place<'_>) -> Vec<Membership> {
    let topology = topology(endpoints, place);
    let any = |test: fn(&Merged<'a>) -> bool| endpoints.iter().any(test);
    // Hints hold only if they leave a ready endpoint, so none in the cluster set means none is ready.
    let any_ready = any(ready);
    let any_local_ready = any(|e| e.local && ready(e));
    let usable =
        |e: &Merged<'a>, ready_exists: bool| if ready_exists { ready(e) } else { draining(e) };
    endpoints
        .iter()
        .map(|e| Membership {
            cluster: usable(e, any_ready) && (!any_ready || allowed(e, topology, place)),
            local: e.local && usable(e, any_local_ready),
        })
        .collect()
}

/// Whether any endpoint anywhere takes traffic: decides between dropping and rejecting what has no
/// eligible endpoint here.
pub fn exists_anywhere(endpoints: &[Merged<'_>]) -> bool {
    endpoints.iter().any(|e| ready(e) || draining(e))
}

const fn ready(e: &Merged<'_>) -> bool {
    e.endpoint.ready
}

const fn draining(e: &Merged<'_>) -> bool {
    e.endpoint.serving && e.endpoint.terminating
}

/// Hints are used only when every ready endpoint carries them and one names this node or zone; node
/// hints come first. Otherwise they are ignored as a whole.
fn topology(endpoints: &[Merged<'_>], place: Place<'_>) -> Topology {
    let all_ready = || endpoints.iter().filter(|e| ready(e));
    let by_node = all_ready().all(|e| e.endpoint.node_hint.is_some());
    if by_node && all_ready().any(|e| e.endpoint.node_hint == Some(true)) {
        return Topology::SameNode;
    }
    let by_zone = all_ready().all(|e| e.endpoint.zone_hints.is_some());
    if by_zone && all_ready().any(|e| in_zone(e, place)) {
        return Topology::SameZone;
    }
    Topology::Anywhere
}

fn allowed(e: &Merged<'_>, topology: Topology, place: Place<'_>) -> bool {
    match topology {
        Topology::Anywhere => true,
        Topology::SameNode => e.endpoint.node_hint == Some(true),
        Topology::SameZone => in_zone(e, place),
    }
}

fn in_zone(e: &Merged<'_>, place: Place<'_>) -> bool {
    let hints = e.endpoint.zone_hints.iter().flat_map(|zones| zones.iter());
    !place.zone.is_empty() && hints.into_iter().any(|zone| **zone == *place.zone)
}
