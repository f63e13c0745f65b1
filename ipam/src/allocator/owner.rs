//! Who holds addresses: one interface of one container.

use std::fmt;

/// The identity of an attachment: CNI's container id and interface name. Two requests with the same
/// owner are the same request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// CNI_CONTAINERID; with Kubernetes the pod sandbox's id.
    pub container_id: String,
    /// CNI_IFNAME inside the container.
    pub interface: String,
}

impl Owner {
    /// An owner from its two parts.
    pub fn new(container_id: impl Into<String>, interface: impl Into<String>) -> Self {
        Self {
            container_id: container_id.into(),
            interface: interface.into(),
        }
    }

    /// The compact form that the allocator keeps in memory.
    pub fn key(&self) -> Key {
        Key::of(self)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.container_id, self.interface)
    }
}

/// What an operator wants to know about an owner. Kept on disk only, so that memory stays small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The CNI network's name; garbage collection is scoped by it.
    pub network: String,
    /// The pod's namespace, empty without Kubernetes.
    pub pod_namespace: String,
    /// The pod's name, empty without Kubernetes.
    pub pod_name: String,
    /// The pod's uid, empty where the runtime does not tell it.
    pub pod_uid: String,
    /// When the addresses were assigned, in seconds since the Unix epoch.
    pub assigned_at: u64,
}

/// 96 bits of a hash over an [`Owner`], which stand for it in memory and name its link on the host.
///
/// Container ids are random, so the chance that two of a million owners share a key is below 1e-16.
/// The hash is FNV-1a over 128 bits followed by a mixer; it is stable across versions, because link
/// names are derived from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Key(pub(super) [u32; 3]);

const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

impl Key {
    fn of(owner: &Owner) -> Self {
        let container = owner.container_id.bytes();
        // A zero byte cannot occur in either part, so ("ab", "c") and ("a", "bc") differ.
        let bytes = container.chain([0]).chain(owner.interface.bytes());
        let hash = bytes.fold(FNV_OFFSET, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(FNV_PRIME)
        });
        let high = mix((hash >> 64) as u64 ^ hash as u64);
        let low = mix(hash as u64 ^ high.rotate_left(32));
        Self([(high >> 32) as u32, high as u32, low as u32])
    }

    /// The first 64 bits: a good hash for tables, names and hardware addresses.
    pub fn bits(self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }
}

/// The finaliser of MurmurHash3: every input bit reaches every output bit.
fn mix(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_of_similar_owners_differ_in_their_first_44_bits() {
        let keys: HashSet<u64> = (0..100_000)
            .map(|n| Owner::new(format!("{n:064x}"), "eth0").key().bits() >> 20)
            .collect();
        // By the birthday bound some 0.0003 collisions are expected.
        assert_eq!(keys.len(), 100_000);
    }

    #[test]
    fn the_boundary_between_container_and_interface_counts() {
        assert_ne!(Owner::new("ab", "c").key(), Owner::new("a", "bc").key());
    }

    #[test]
    fn keys_are_stable_because_link_names_come_from_them() {
        let key = Owner::new("0123456789abcdef", "eth0").key();
        assert_eq!(key, Owner::new("0123456789abcdef", "eth0").key());
        assert_eq!(format!("{:016x}", key.bits()), "56a5e64a1c069ffd");
    }
}
