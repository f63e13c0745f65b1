//! Packs endpoints into slices of at most a hundred, with as few writes as the change allows.
//!
//! A slice whose content is right is never touched. Endpoints that left are removed where they
//! were, changed ones are replaced where they are, new ones go first into slices that are written
//! anyway, then into the fullest slice that has room, then into new slices (upstream's rules).

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::Service,
        discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use sluice_client::owner;

use super::{MANAGED_BY, US, desired::Group};
use crate::shared::SERVICE_NAME_LABEL;

/// Endpoints per slice (upstream's default).
pub const MAX_ENDPOINTS: usize = 100;
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The writes that lead from the existing to the desired slices.
#[derive(Debug, Default)]
pub struct Changes {
    /// New slices.
    pub create: Vec<EndpointSlice>,
    /// Slices with changed content; their resourceVersion guards against lost updates.
    pub update: Vec<EndpointSlice>,
    /// Names of slices that are empty or fit no group.
    pub delete: Vec<String>,
}

struct Slot {
    slice: EndpointSlice,
    endpoints: Vec<Endpoint>,
    dirty: bool,
}

impl Slot {
    fn room(&self) -> usize {
        MAX_ENDPOINTS.saturating_sub(self.endpoints.len())
    }

    fn into_slice(self) -> EndpointSlice {
        EndpointSlice {
            endpoints: Some(self.endpoints),
            ..self.slice
        }
    }
}

/// Compares desired groups with the slices that exist.
pub fn reconcile(
    service: &Service,
    groups: Vec<Group>,
    existing: &[Arc<EndpointSlice>],
) -> Changes {
    let mut changes = Changes::default();
    let mut rest: Vec<Arc<EndpointSlice>> = existing.to_vec();
    // A steady order makes equal inputs give equal writes.
    rest.sort_by_key(|slice| slice.name_any());
    for group in groups {
        let mine = |slice: &Arc<EndpointSlice>| {
            slice.address_type == group.family && same_ports(slice, &group.ports)
        };
        let matching: Vec<_> = rest.extract_if(.., |slice| mine(slice)).collect();
        reconcile_group(service, group, &matching, &mut changes);
    }
    changes
        .delete
        .extend(rest.iter().map(|slice| slice.name_any()));
    changes
}

fn same_ports(slice: &EndpointSlice, ports: &[EndpointPort]) -> bool {
    slice.ports.as_deref().unwrap_or_default() == ports
}

fn reconcile_group(
    service: &Service,
    group: Group,
    existing: &[Arc<EndpointSlice>],
    changes: &mut Changes,
) {
    let (family, ports) = (group.family, group.ports);
    // Without endpoints one empty slice stays: it tells readers that there are none.
    let placeholder = group.endpoints.is_empty();
    let mut missing = group.endpoints;
    let mut slots: Vec<Slot> = existing
        .iter()
        .map(|slice| keep(service, slice, &mut missing))
        .collect();
    let mut fresh: Vec<Endpoint> = missing.into_values().collect();
    fill(&mut slots, &mut fresh);
    for chunk in fresh.chunks(MAX_ENDPOINTS) {
        changes
            .create
            .push(new_slice(service, family, &ports, chunk.to_vec()));
    }
    if placeholder && slots.is_empty() {
        changes
            .create
            .push(new_slice(service, family, &ports, Vec::new()));
    }
    let mut spare = placeholder;
    for slot in slots {
        let wanted = !slot.endpoints.is_empty() || std::mem::take(&mut spare);
        if !wanted {
            changes.delete.push(slot.slice.name_any());
        } else if slot.dirty {
            changes.update.push(slot.into_slice());
        }
    }
}

/// What an existing slice keeps; kept endpoints are taken out of `missing`.
fn keep(
    service: &Service,
    slice: &EndpointSlice,
    missing: &mut BTreeMap<String, Endpoint>,
) -> Slot {
    let current = slice.endpoints.as_deref().unwrap_or_default();
    let mut endpoints = Vec::with_capacity(current.len());
    for endpoint in current {
        let address = endpoint.addresses.first();
        // A second slice with the same address is a duplicate: the first one keeps it.
        endpoints.extend(address.and_then(|address| missing.remove(address)));
    }
    let meta = metadata(service, slice);
    let dirty = endpoints != current || meta != slice.metadata;
    let mut slice = slice.clone();
    slice.metadata = meta;
    Slot {
        slice,
        endpoints,
        dirty,
    }
}

fn fill(slots: &mut [Slot], fresh: &mut Vec<Endpoint>) {
    for slot in slots.iter_mut().filter(|slot| slot.dirty) {
        top_up(slot, fresh);
    }
    while !fresh.is_empty() {
        let fits = |slot: &&mut Slot| !slot.dirty && slot.room() >= fresh.len();
        let Some(slot) = slots.iter_mut().filter(fits).min_by_key(|slot| slot.room()) else {
            return;
        };
        top_up(slot, fresh);
    }
}

fn top_up(slot: &mut Slot, fresh: &mut Vec<Endpoint>) {
    let room = slot.room().min(fresh.len());
    if room > 0 {
        slot.endpoints.extend(fresh.drain(..room));
        slot.dirty = true;
    }
}

fn metadata(service: &Service, slice: &EndpointSlice) -> ObjectMeta {
    ObjectMeta {
        labels: Some(labels(service)),
        ..slice.metadata.clone()
    }
}

/// The Service's own labels, and those by which slices are found.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME_LABEL.into(), service.name_any());
    labels.insert(MANAGED_BY.into(), US.into());
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

fn new_slice(
    service: &Service,
    family: &str,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels(service)),
            owner_references: Some(vec![owner::controller_ref(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.into(),
        endpoints: Some(endpoints),
        ports: Some(ports.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::endpointslice::desired::IPV4;

    fn service() -> Service {
        let mut service = Service::default();
        service.metadata.name = Some("web".into());
        service.metadata.uid = Some("u".into());
        service
    }

    fn endpoint(n: u16, ready: bool) -> Endpoint {
        let mut endpoint = Endpoint {
            addresses: vec![address(n)],
            ..Endpoint::default()
        };
        endpoint.conditions.get_or_insert_default().ready = Some(ready);
        endpoint
    }

    fn address(n: u16) -> String {
        format!("10.0.{}.{}", n / 256, n % 256)
    }

    fn group(endpoints: impl IntoIterator<Item = (u16, bool)>) -> Group {
        let port = EndpointPort {
            port: Some(80),
            ..EndpointPort::default()
        };
        Group {
            family: IPV4,
            ports: vec![port],
            endpoints: endpoints
                .into_iter()
                .map(|(n, ready)| (address(n), endpoint(n, ready)))
                .collect(),
        }
    }

    /// Plays the API server.
    fn apply(store: &mut Vec<Arc<EndpointSlice>>, changes: Changes, names: &mut usize) {
        store.retain(|slice| !changes.delete.contains(&slice.name_any()));
        for updated in changes.update {
            let at = store
                .iter()
                .position(|s| s.name_any() == updated.name_any())
                .unwrap();
            store[at] = Arc::new(updated);
        }
        for mut created in changes.create {
            *names += 1;
            created.metadata.name = Some(format!("web-{names}"));
            store.push(Arc::new(created));
        }
    }

    fn writes(changes: &Changes) -> (usize, usize, usize) {
        (
            changes.create.len(),
            changes.update.len(),
            changes.delete.len(),
        )
    }

    #[test]
    fn nothing_is_written_when_nothing_changed_and_one_slice_when_one_endpoint_did() {
        let (mut store, mut names) = (Vec::new(), 0);
        let all = || group((0..250).map(|n| (n, true)));
        let first = reconcile(&service(), vec![all()], &store);
        assert_eq!(writes(&first), (3, 0, 0));
        apply(&mut store, first, &mut names);
        assert_eq!(
            writes(&reconcile(&service(), vec![all()], &store)),
            (0, 0, 0)
        );
        let mut one = all();
        one.endpoints.insert(address(7), endpoint(7, false));
        assert_eq!(writes(&reconcile(&service(), vec![one], &store)), (0, 1, 0));
        let grown = group((0..251).map(|n| (n, true)));
        assert_eq!(
            writes(&reconcile(&service(), vec![grown], &store)),
            (0, 1, 0)
        );
    }

    #[test]
    fn without_endpoints_one_empty_slice_stays() {
        let (mut store, mut names) = (Vec::new(), 0);
        let changes = reconcile(&service(), vec![group((0..150).map(|n| (n, true)))], &store);
        apply(&mut store, changes, &mut names);
        let changes = reconcile(&service(), vec![group([])], &store);
        apply(&mut store, changes, &mut names);
        assert_eq!(store.len(), 1);
        assert_eq!(store[0].endpoints, Some(Vec::new()));
        assert_eq!(
            writes(&reconcile(&service(), vec![group([])], &store)),
            (0, 0, 0)
        );
    }

    proptest! {
        #[test]
        fn after_every_change_the_slices_hold_exactly_the_desired_endpoints(
            rounds in proptest::collection::vec(proptest::collection::btree_map(0u16..400, any::<bool>(), 0..300), 1..8),
        ) {
            let (mut store, mut names) = (Vec::new(), 0);
            for round in rounds {
                let wanted = group(round.clone());
                let changes = reconcile(&service(), vec![wanted.clone()], &store);
                apply(&mut store, changes, &mut names);
                let mut found = BTreeMap::new();
                for slice in &store {
                    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
                    prop_assert!(endpoints.len() <= MAX_ENDPOINTS);
                    for endpoint in endpoints {
                        let twice = found.insert(endpoint.addresses[0].clone(), endpoint.clone());
                        prop_assert!(twice.is_none());
                    }
                }
                prop_assert_eq!(&found, &wanted.endpoints);
                let again = reconcile(&service(), vec![wanted], &store);
                prop_assert_eq!(writes(&again), (0, 0, 0));
            }
        }
    }
}
