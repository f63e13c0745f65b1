//! Maglev tables: which backend a flow from outside goes to.
//!
//! The flow's hash indexes a table that every node fills alike, from the backends' addresses and
//! ports alone, so that any node picks the same backend for a packet. (Eisenbud et al., "Maglev: A
//! Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4.) When a backend leaves,
//! its entries go to the others, and one or two in a hundred of the rest move too.
//!
//! The table's size follows from the number of backends, because a shared array holds the tables of
//! all services. Where that number crosses a step of [`SIZES`], the table is drawn anew and most
//! flows that the flow table does not know yet move; the steps double, so a service that grows meets
//! few of them.

use std::net::IpAddr;

/// Table sizes: primes (the permutations need that), each about twice the one before. Beyond 655
/// backends the last one serves, less evenly.
const SIZES: [u32; 10] = [
    1, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071,
];

/// Entries per backend that a table has at least, while it can: shares differ by less than 1%, and one
/// of 100 backends that leaves moves 0.9% of the others' entries, 1.2% at worst (of 400 random sets). With
/// fewer entries or fewer backends it is more: 1.4% of 40 backends' entries, 2.4% at worst.
const PER_BACKEND: u32 = 200;

/// The size of the table for so many backends; 0 for none.
pub fn table_size(backends: usize) -> u32 {
    match backends {
        0 => 0,
        1 => 1,
        n => {
            let least = u32::try_from(n)
                .unwrap_or(u32::MAX)
                .saturating_mul(PER_BACKEND);
            let last = SIZES[SIZES.len() - 1];
            SIZES
                .into_iter()
                .find(|size| *size >= least)
                .unwrap_or(last)
        }
    }
}

/// The table for `backends`, as indices into it. Backends must be in ascending order without
/// duplicates, since the order decides who takes a contested entry.
pub fn table(backends: &[(IpAddr, u16)]) -> Vec<u32> {
    debug_assert!(backends.is_sorted());
    let size = table_size(backends.len());
    if size <= 1 {
        return vec![0; size as usize];
    }
    let mut turns: Vec<Turn> = backends
        .iter()
        .map(|backend| Turn::new(*backend, size))
        .collect();
    let mut table = vec![u32::MAX; size as usize];
    let mut left = size;
    while left > 0 {
        for (i, turn) in (0..).zip(&mut turns) {
            if left == 0 {
                break;
            }
            let entry = turn.next_free(&table, size);
            table[entry] = i;
            left -= 1;
        }
    }
    table
}

/// Where a backend's permutation of the entries has come to.
struct Turn {
    at: u32,
    skip: u32,
}

impl Turn {
    fn new(backend: (IpAddr, u16), size: u32) -> Self {
        let hash = hash(backend);
        Self {
            at: (hash % u64::from(size)) as u32,
            skip: (mix(hash) % u64::from(size - 1)) as u32 + 1,
        }
    }

    /// The first entry of the permutation, from here on, that nobody has. There must be one.
    fn next_free(&mut self, table: &[u32], size: u32) -> usize {
        loop {
            let entry = self.at as usize;
            self.at = (self.at + self.skip) % size;
            if table[entry] == u32::MAX {
                return entry;
            }
        }
    }
}

/// A hash that is the same everywhere and forever: nodes of different versions must agree.
fn hash((addr, port): (IpAddr, u16)) -> u64 {
    let bits = match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let words = [(bits >> 64) as u64, bits as u64, u64::from(port)];
    words.into_iter().fold(0, |hash, word| mix(hash ^ word))
}

/// The finaliser of splitmix64 with its increment: every input bit reaches every output bit.
const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn backends(addrs: impl IntoIterator<Item = u32>) -> Vec<(IpAddr, u16)> {
        addrs
            .into_iter()
            .map(|addr| (IpAddr::from(addr.to_be_bytes()), 8080))
            .collect()
    }

    fn owners(backends: &[(IpAddr, u16)]) -> Vec<(IpAddr, u16)> {
        table(backends)
            .into_iter()
            .map(|i| backends[i as usize])
            .collect()
    }

    #[test]
    fn sizes_are_primes() {
        for size in &SIZES[1..] {
            let root = f64::from(*size).sqrt() as u32;
            assert!((2..=root).all(|divisor| size % divisor != 0), "{size}");
        }
    }

    #[test]
    fn no_backends_give_no_table_and_one_gives_one_entry() {
        assert_eq!(table(&[]), Vec::<u32>::new());
        assert_eq!(table(&backends([7])), [0]);
    }

    #[test]
    fn the_hash_never_changes() {
        // Written down once; another value would send half of a cluster's flows elsewhere during an
        // upgrade.
        assert_eq!(hash(("10.0.0.1".parse().unwrap(), 80)), GOLDEN_V4);
        assert_eq!(hash(("fd00::1".parse().unwrap(), 80)), GOLDEN_V6);
    }

    const GOLDEN_V4: u64 = 5_403_951_813_634_116_874;
    const GOLDEN_V6: u64 = 11_937_631_795_282_112_536;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_backend_gets_an_even_share(addrs in prop::collection::btree_set(any::<u32>(), 2..300)) {
            let backends = backends(addrs);
            let table = table(&backends);
            let mut shares = vec![0u32; backends.len()];
            for i in &table {
                shares[*i as usize] += 1;
            }
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            // Backends take turns, so nobody is more than one entry ahead.
            prop_assert!(most - least <= 1, "{least}..{most}");
        }

        #[test]
        fn removing_a_backend_moves_few_of_the_others(
            addrs in prop::collection::btree_set(any::<u32>(), 83..164),
            pick in any::<prop::sample::Index>(),
        ) {
            let before: BTreeSet<_> = addrs;
            let gone = *pick.get(&before.iter().copied().collect::<Vec<_>>());
            let after: Vec<_> = before.iter().copied().filter(|addr| *addr != gone).collect();
            let (old, new) = (owners(&backends(before)), owners(&backends(after)));
            prop_assert_eq!(old.len(), new.len());
            let gone = backends([gone])[0];
            let kept = old.iter().filter(|owner| **owner != gone).count();
            let moved = old.iter().zip(&new).filter(|(a, b)| **a != gone && a != b).count();
            prop_assert!(moved * 100 <= kept * 2, "{} of {} moved", moved, kept);
        }
    }
}
