//! What the pinned maps look like in this version, and whether those that are there do.

use std::os::fd::AsFd;
use std::path::Path;

use sluice_common::{
    AffinityKey, AffinityValue, Backend, Cidr, Config, Counter, Flow, Frontend, FrontendKey, Ipv4,
    Ipv6, ServiceCounter, SocketPeers, SourceRange, Tuple, names,
};

use super::LoaderError;
use crate::maps::{Capacity, sys};

/// Numbers of `enum bpf_map_type`.
mod kind {
    pub const HASH: u32 = 1;
    pub const ARRAY: u32 = 2;
    pub const PERCPU_ARRAY: u32 = 6;
    pub const LRU_HASH: u32 = 9;
    pub const LPM_TRIE: u32 = 11;
    pub const SK_STORAGE: u32 = 24;
}

/// Bytes of the prefix length that keys of tries begin with.
const PREFIX: usize = size_of::<u32>();

/// A map that is pinned.
pub(super) struct Layout {
    /// Its name.
    pub(super) name: &'static str,
    kind: u32,
    key: usize,
    value: usize,
    /// Its capacity, where the object does not say.
    pub(super) entries: Option<u32>,
}

/// The maps of this version's programs.
pub(super) fn maps(capacity: Capacity) -> [Layout; 17] {
    let frontends = Some(capacity.frontends);
    let (flows, cidrs) = (Some(capacity.flows), Some(capacity.cidrs));
    let ranges = Some(capacity.source_ranges);
    [
        map::<FrontendKey<Ipv4>, Frontend>(names::FRONTENDS_V4, kind::HASH, frontends),
        map::<FrontendKey<Ipv6>, Frontend>(names::FRONTENDS_V6, kind::HASH, frontends),
        map::<u32, Backend>(names::BACKENDS, kind::ARRAY, Some(capacity.backends)),
        map::<u32, u32>(names::SLOTS, kind::ARRAY, Some(capacity.slots)),
        map::<u32, u32>(names::MAGLEV, kind::ARRAY, Some(capacity.maglev)),
        map::<AffinityKey, AffinityValue>(names::AFFINITY, kind::LRU_HASH, Some(capacity.affinity)),
        map::<Tuple<Ipv4>, Flow<Ipv4>>(names::FLOWS_V4, kind::LRU_HASH, flows),
        map::<Tuple<Ipv6>, Flow<Ipv6>>(names::FLOWS_V6, kind::LRU_HASH, flows),
        map::<u32, SocketPeers>(names::SOCKETS, kind::SK_STORAGE, None),
        map::<u32, Config>(names::CONFIG, kind::ARRAY, None),
        trie::<Ipv4, Cidr>(names::CIDRS_V4, cidrs),
        trie::<Ipv6, Cidr>(names::CIDRS_V6, cidrs),
        trie::<SourceRange<Ipv4>, u32>(names::SOURCE_RANGES_V4, ranges),
        trie::<SourceRange<Ipv6>, u32>(names::SOURCE_RANGES_V6, ranges),
        map::<u32, Counter>(names::DROPS, kind::PERCPU_ARRAY, None),
        counters(names::SERVICE_COUNTERS, capacity.services),
        counters(names::BACKEND_COUNTERS, capacity.counted_backends),
    ]
}

fn map<K, V>(name: &'static str, kind: u32, entries: Option<u32>) -> Layout {
    let (key, value) = (size_of::<K>(), size_of::<V>());
    Layout {
        name,
        kind,
        key,
        value,
        entries,
    }
}

fn trie<K, V>(name: &'static str, entries: Option<u32>) -> Layout {
    let (key, value) = (PREFIX + size_of::<K>(), size_of::<V>());
    Layout {
        name,
        kind: kind::LPM_TRIE,
        key,
        value,
        entries,
    }
}

fn counters(name: &'static str, entries: u32) -> Layout {
    map::<u32, ServiceCounter>(name, kind::PERCPU_ARRAY, Some(entries))
}

impl Layout {
    /// Refuses a pinned map that this version would misread. One that has another capacity is taken
    /// as it is: what is in it counts more.
    pub(super) fn check(&self, dir: &Path) -> Result<(), LoaderError> {
        let path = dir.join(self.name);
        if !path.exists() {
            return Ok(());
        }
        let fail = |source| LoaderError::Pin {
            path: path.clone(),
            source,
        };
        let map = sys::get(&path).map_err(fail)?;
        let found = sys::map_info(map.as_fd()).map_err(fail)?;
        let shape = (
            found.map_type,
            found.key_size as usize,
            found.value_size as usize,
        );
        if shape != (self.kind, self.key, self.value) {
            return Err(self.incompatible(shape));
        }
        match self.entries {
            Some(entries) if entries != found.max_entries => tracing::info!(
                map = self.name,
                capacity = found.max_entries,
                configured = entries,
                "kept a pinned map of another capacity"
            ),
            _ => {}
        }
        Ok(())
    }

    fn incompatible(&self, found: (u32, usize, usize)) -> LoaderError {
        let describe = |(kind, key, value): (u32, usize, usize)| {
            format!("type {kind}, keys of {key} and values of {value} bytes")
        };
        LoaderError::Incompatible {
            map: self.name,
            found: describe(found),
            expected: describe((self.kind, self.key, self.value)),
        }
    }
}
