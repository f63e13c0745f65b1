//! Tables that fail now and then, for the reconciler's tests.

use ipnetwork::IpNetwork;

use super::{Backend, Capacity, Config, Frontend, FrontendKey, MapError, Pool, Range, Tables};

/// Wraps tables so that each write fails with a given probability, leaving them unchanged. Reads do
/// not fail: what a restarted agent does when it cannot read is to end, which needs no such test.
#[derive(Debug)]
pub struct Faulty<T> {
    inner: T,
    /// A write fails when the next random number is below this.
    threshold: u64,
    state: u64,
    failures: u64,
}

impl<T> Faulty<T> {
    /// `probability` from 0.0 (never) to 1.0 (always); the same seed fails the same writes.
    pub fn new(inner: T, probability: f64, seed: u64) -> Self {
        let threshold = (probability.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        Self {
            inner,
            threshold,
            state: seed,
            failures: 0,
        }
    }

    /// The tables inside.
    pub const fn inner(&self) -> &T {
        &self.inner
    }

    /// The tables inside, past the failures.
    pub const fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// The tables alone.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// How many writes have failed.
    pub const fn failures(&self) -> u64 {
        self.failures
    }

    fn dice(&mut self, operation: &'static str) -> Result<(), MapError> {
        if self.next_random() >= self.threshold {
            return Ok(());
        }
        self.failures += 1;
        Err(MapError::Injected { operation })
    }

    /// splitmix64: small, seedable, good enough for dice.
    fn next_random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl<T: Tables> Tables for Faulty<T> {
    fn capacity(&self) -> Capacity {
        self.inner.capacity()
    }
    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        self.inner.frontends()
    }
    fn put_frontend(&mut self, key: &FrontendKey, value: &Frontend) -> Result<(), MapError> {
        self.dice("put_frontend")?;
        self.inner.put_frontend(key, value)
    }
    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), MapError> {
        self.dice("delete_frontend")?;
        self.inner.delete_frontend(key)
    }
    fn backends(&self) -> Result<Vec<(u32, Backend)>, MapError> {
        self.inner.backends()
    }
    fn put_backend(&mut self, id: u32, value: &Backend) -> Result<(), MapError> {
        self.dice("put_backend")?;
        self.inner.put_backend(id, value)
    }
    fn read_range(&self, pool: Pool, range: Range) -> Result<Vec<u32>, MapError> {
        self.inner.read_range(pool, range)
    }
    fn write_range(&mut self, pool: Pool, offset: u32, ids: &[u32]) -> Result<(), MapError> {
        self.dice("write_range")?;
        self.inner.write_range(pool, offset, ids)
    }
    fn cidrs(&self) -> Result<Vec<(IpNetwork, u32)>, MapError> {
        self.inner.cidrs()
    }
    fn put_cidr(&mut self, network: IpNetwork, flags: u32) -> Result<(), MapError> {
        self.dice("put_cidr")?;
        self.inner.put_cidr(network, flags)
    }
    fn delete_cidr(&mut self, network: IpNetwork) -> Result<(), MapError> {
        self.dice("delete_cidr")?;
        self.inner.delete_cidr(network)
    }
    fn source_ranges(&self) -> Result<Vec<(u32, IpNetwork)>, MapError> {
        self.inner.source_ranges()
    }
    fn put_source_range(&mut self, service_id: u32, network: IpNetwork) -> Result<(), MapError> {
        self.dice("put_source_range")?;
        self.inner.put_source_range(service_id, network)
    }
    fn delete_source_range(&mut self, service_id: u32, network: IpNetwork) -> Result<(), MapError> {
        self.dice("delete_source_range")?;
        self.inner.delete_source_range(service_id, network)
    }
    fn config(&self) -> Result<Config, MapError> {
        self.inner.config()
    }
    fn put_config(&mut self, config: &Config) -> Result<(), MapError> {
        self.dice("put_config")?;
        self.inner.put_config(config)
    }
    fn reset_service_counter(&mut self, service_id: u32) -> Result<(), MapError> {
        self.dice("reset_service_counter")?;
        self.inner.reset_service_counter(service_id)
    }
    fn reset_backend_counter(&mut self, backend_id: u32) -> Result<(), MapError> {
        self.dice("reset_backend_counter")?;
        self.inner.reset_backend_counter(backend_id)
    }
    fn names(&self) -> Result<Vec<(u32, String)>, MapError> {
        self.inner.names()
    }
    fn put_name(&mut self, service_id: u32, name: &str) -> Result<(), MapError> {
        self.dice("put_name")?;
        self.inner.put_name(service_id, name)
    }
    fn delete_name(&mut self, service_id: u32) -> Result<(), MapError> {
        self.dice("delete_name")?;
        self.inner.delete_name(service_id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeMaps;
    use super::*;

    fn failed_writes(probability: f64, seed: u64) -> Vec<bool> {
        let mut maps = Faulty::new(FakeMaps::new(Capacity::default()), probability, seed);
        (1..1000)
            .map(|id| maps.put_backend(id, &Backend::default()).is_err())
            .collect()
    }

    #[test]
    fn failures_follow_the_seed_and_the_probability() {
        assert_eq!(failed_writes(0.1, 7), failed_writes(0.1, 7));
        assert_ne!(failed_writes(0.1, 7), failed_writes(0.1, 8));
        let failed = failed_writes(0.1, 7).into_iter().filter(|f| *f).count();
        assert!((50..150).contains(&failed), "{failed} of 999 failed");
        assert!(failed_writes(0.0, 7).into_iter().all(|f| !f));
        assert!(failed_writes(1.0, 7).into_iter().all(|f| f));
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let mut maps = Faulty::new(FakeMaps::new(Capacity::default()), 1.0, 1);
        assert!(
            maps.put_config(&Config {
                flags: 1,
                ..Config::default()
            })
            .is_err()
        );
        assert_eq!(maps.config().unwrap(), Config::default());
    }
}
