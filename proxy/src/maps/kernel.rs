//! The tables in the kernel: pinned maps, and arrays in this process's memory.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ipnetwork::IpNetwork;
use sluice_common::{
    self as abi, AffinityKey, AffinityValue, Backend, Config, Counter, DropReason, Flow, Frontend,
    Ipv4, Ipv6, Plain, Range, ServiceCounter, Tuple, names,
};

use super::mapped::MappedArray;
use super::{
    AffinityEntry, Capacity, FlowEntry, FrontendKey, MapError, Observe, Pool, Tables, prefix, sys,
};

/// Bytes of a service's name in the `names` map; longer ones are cut.
pub const NAME_LEN: usize = 192;

/// A map by its descriptor.
#[derive(Debug)]
struct KernelMap {
    name: &'static str,
    fd: OwnedFd,
    capacity: u32,
}

impl KernelMap {
    fn open(dir: &Path, name: &'static str) -> Result<Self, MapError> {
        let fail = |operation, source| MapError::Kernel {
            map: name,
            operation,
            source,
        };
        let fd = sys::get(&dir.join(name)).map_err(|e| fail("open", e))?;
        let info = sys::map_info(fd.as_fd()).map_err(|e| fail("inspect", e))?;
        Ok(Self {
            name,
            fd,
            capacity: info.max_entries,
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn error(&self, operation: &'static str, source: io::Error) -> MapError {
        match source.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => MapError::Full {
                map: self.name,
                capacity: self.capacity,
            },
            _ => MapError::Kernel {
                map: self.name,
                operation,
                source,
            },
        }
    }

    fn put<K: Plain, V: Plain>(&self, key: &K, value: &V) -> Result<(), MapError> {
        self.put_bytes(key.bytes(), value.bytes())
    }

    fn put_bytes(&self, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        sys::update(self.fd(), key, value).map_err(|e| self.error("write", e))
    }

    fn delete(&self, key: &[u8]) -> Result<(), MapError> {
        sys::delete(self.fd(), key).map_err(|e| self.error("delete from", e))
    }

    /// All elements, converted by `convert`, which gives `None` for what cannot be.
    fn entries<T>(
        &self,
        (key_size, value_size): (usize, usize),
        mut convert: impl FnMut(&[u8], &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, MapError> {
        let (mut found, mut corrupt) = (Vec::new(), None);
        sys::for_each(
            self.fd(),
            key_size,
            value_size,
            |key, value| match convert(key, value) {
                Some(entry) => found.push(entry),
                None => corrupt = Some(format!("key {key:02x?}, value {value:02x?}")),
            },
        )
        .map_err(|e| self.error("read", e))?;
        match corrupt {
            Some(what) => Err(MapError::Corrupt {
                map: self.name,
                what,
            }),
            None => Ok(found),
        }
    }

    fn typed<K: Plain, V: Plain, T>(
        &self,
        mut convert: impl FnMut(K, V) -> Option<T>,
    ) -> Result<Vec<T>, MapError> {
        self.entries((size_of::<K>(), size_of::<V>()), |key, value| {
            convert(K::from_bytes(key)?, V::from_bytes(value)?)
        })
    }

    fn out_of_bounds(&self, index: u64) -> MapError {
        MapError::OutOfBounds {
            map: self.name,
            index,
            capacity: self.capacity,
        }
    }
}

/// An array that is mapped into this process.
#[derive(Debug)]
struct Mapped<T> {
    map: KernelMap,
    array: MappedArray<T>,
}

impl<T: Plain> Mapped<T> {
    fn open(dir: &Path, name: &'static str) -> Result<Self, MapError> {
        let map = KernelMap::open(dir, name)?;
        let array = MappedArray::map(map.fd(), map.capacity).map_err(|e| map.error("map", e))?;
        Ok(Self { map, array })
    }

    fn get(&self, index: u32) -> Result<T, MapError> {
        self.array
            .get(index)
            .ok_or_else(|| self.map.out_of_bounds(index.into()))
    }

    fn set(&mut self, index: u32, value: &T) -> Result<(), MapError> {
        let done = self.array.set(index, value);
        done.ok_or_else(|| self.map.out_of_bounds(index.into()))
    }

    fn check(&self, offset: u32, len: usize) -> Result<(), MapError> {
        let end = u64::from(offset) + len as u64;
        if end > u64::from(self.array.len()) {
            Err(self.map.out_of_bounds(end - 1))
        } else {
            Ok(())
        }
    }
}

/// The maps of one node, by their pins.
#[derive(Debug)]
pub struct KernelMaps {
    frontends_v4: KernelMap,
    frontends_v6: KernelMap,
    backends: Mapped<Backend>,
    slots: Mapped<u32>,
    maglev: Mapped<u32>,
    affinity: KernelMap,
    flows_v4: KernelMap,
    flows_v6: KernelMap,
    config: Mapped<Config>,
    cidrs_v4: KernelMap,
    cidrs_v6: KernelMap,
    source_ranges_v4: KernelMap,
    source_ranges_v6: KernelMap,
    drops: KernelMap,
    service_counters: KernelMap,
    backend_counters: KernelMap,
    names: KernelMap,
    cpus: usize,
}

impl KernelMaps {
    /// Opens the maps that the agent has pinned under `bpf_root`. Any number of processes may.
    pub fn open(bpf_root: &Path) -> Result<Self, MapError> {
        let dir = &crate::loader::pins::maps_dir(bpf_root);
        Ok(Self {
            frontends_v4: KernelMap::open(dir, names::FRONTENDS_V4)?,
            frontends_v6: KernelMap::open(dir, names::FRONTENDS_V6)?,
            backends: Mapped::open(dir, names::BACKENDS)?,
            slots: Mapped::open(dir, names::SLOTS)?,
            maglev: Mapped::open(dir, names::MAGLEV)?,
            affinity: KernelMap::open(dir, names::AFFINITY)?,
            flows_v4: KernelMap::open(dir, names::FLOWS_V4)?,
            flows_v6: KernelMap::open(dir, names::FLOWS_V6)?,
            config: Mapped::open(dir, names::CONFIG)?,
            cidrs_v4: KernelMap::open(dir, names::CIDRS_V4)?,
            cidrs_v6: KernelMap::open(dir, names::CIDRS_V6)?,
            source_ranges_v4: KernelMap::open(dir, names::SOURCE_RANGES_V4)?,
            source_ranges_v6: KernelMap::open(dir, names::SOURCE_RANGES_V6)?,
            drops: KernelMap::open(dir, names::DROPS)?,
            service_counters: KernelMap::open(dir, names::SERVICE_COUNTERS)?,
            backend_counters: KernelMap::open(dir, names::BACKEND_COUNTERS)?,
            names: KernelMap::open(dir, names::NAMES)?,
            cpus: possible_cpus()?,
        })
    }

    fn pool(&self, pool: Pool) -> &Mapped<u32> {
        match pool {
            Pool::Slots => &self.slots,
            Pool::Maglev => &self.maglev,
        }
    }

    fn per_cpu<T: Plain>(&self, map: &KernelMap, index: u32) -> Result<Vec<T>, MapError> {
        let mut bytes = vec![0; size_of::<T>().next_multiple_of(8) * self.cpus];
        let found =
            sys::lookup(map.fd(), index.bytes(), &mut bytes).map_err(|e| map.error("read", e))?;
        if !found {
            return Err(map.out_of_bounds(index.into()));
        }
        Ok(bytes
            .chunks_exact(size_of::<T>())
            .filter_map(T::from_bytes)
            .collect())
    }

    fn sum_counters(&self, map: &KernelMap, index: u32) -> Result<ServiceCounter, MapError> {
        let sum = |mut sum: ServiceCounter, one: ServiceCounter| {
            sum.connections += one.connections;
            sum.packets += one.packets;
            sum.bytes += one.bytes;
            sum.refused += one.refused;
            sum
        };
        let values = self.per_cpu(map, index)?;
        Ok(values.into_iter().fold(ServiceCounter::default(), sum))
    }

    fn reset_counters(&self, map: &KernelMap, index: u32) -> Result<(), MapError> {
        map.put_bytes(
            index.bytes(),
            &vec![0; size_of::<ServiceCounter>() * self.cpus],
        )
    }
}

fn possible_cpus() -> Result<usize, MapError> {
    aya::util::nr_cpus().map_err(|(_, source)| MapError::Kernel {
        map: names::DROPS,
        operation: "count the CPUs for",
        source,
    })
}

impl Tables for KernelMaps {
    fn capacity(&self) -> Capacity {
        Capacity {
            frontends: self.frontends_v4.capacity.min(self.frontends_v6.capacity),
            services: self.service_counters.capacity,
            backends: self.backends.map.capacity,
            counted_backends: self.backend_counters.capacity,
            slots: self.slots.map.capacity,
            maglev: self.maglev.map.capacity,
            flows: self.flows_v4.capacity,
            affinity: self.affinity.capacity,
            cidrs: self.cidrs_v4.capacity,
            source_ranges: self.source_ranges_v4.capacity,
        }
    }

    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        let mut all = self
            .frontends_v4
            .typed(|key, value| Some((FrontendKey::from_v4(key)?, value)))?;
        all.extend(
            self.frontends_v6
                .typed(|key, value| Some((FrontendKey::from_v6(key)?, value)))?,
        );
        Ok(all)
    }

    fn put_frontend(&mut self, key: &FrontendKey, value: &Frontend) -> Result<(), MapError> {
        match key.addr {
            IpAddr::V4(addr) => self.frontends_v4.put(&key.abi(Ipv4::from(addr)), value),
            IpAddr::V6(addr) => self.frontends_v6.put(&key.abi(Ipv6::from(addr)), value),
        }
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), MapError> {
        match key.addr {
            IpAddr::V4(addr) => self.frontends_v4.delete(key.abi(Ipv4::from(addr)).bytes()),
            IpAddr::V6(addr) => self.frontends_v6.delete(key.abi(Ipv6::from(addr)).bytes()),
        }
    }

    fn backends(&self) -> Result<Vec<(u32, Backend)>, MapError> {
        let array = &self.backends.array;
        let used = |id| {
            array
                .get(id)
                .filter(|b| *b != Backend::default())
                .map(|b| (id, b))
        };
        Ok((1..array.len()).filter_map(used).collect())
    }

    fn put_backend(&mut self, id: u32, value: &Backend) -> Result<(), MapError> {
        if id == 0 {
            return Err(self.backends.map.out_of_bounds(0));
        }
        self.backends.set(id, value)
    }

    fn read_range(&self, pool: Pool, range: Range) -> Result<Vec<u32>, MapError> {
        let array = self.pool(pool);
        array.check(range.offset, range.len as usize)?;
        (range.offset..range.offset + range.len)
            .map(|index| array.get(index))
            .collect()
    }

    fn write_range(&mut self, pool: Pool, offset: u32, ids: &[u32]) -> Result<(), MapError> {
        let array = match pool {
            Pool::Slots => &mut self.slots,
            Pool::Maglev => &mut self.maglev,
        };
        array.check(offset, ids.len())?;
        (offset..)
            .zip(ids)
            .try_for_each(|(index, id)| array.set(index, id))
    }

    fn cidrs(&self) -> Result<Vec<(IpNetwork, u32)>, MapError> {
        let sizes = (prefix::V4_CIDR, size_of::<u32>());
        let mut all = self.cidrs_v4.entries(sizes, |key, value| {
            Some((prefix::parse_v4(key)?, u32::from_bytes(value)?))
        })?;
        let sizes = (prefix::V6_CIDR, size_of::<u32>());
        all.extend(self.cidrs_v6.entries(sizes, |key, value| {
            Some((prefix::parse_v6(key)?, u32::from_bytes(value)?))
        })?);
        Ok(all)
    }

    fn put_cidr(&mut self, network: IpNetwork, flags: u32) -> Result<(), MapError> {
        let map = if network.is_ipv4() {
            &self.cidrs_v4
        } else {
            &self.cidrs_v6
        };
        map.put_bytes(&prefix::key(network), flags.bytes())
    }

    fn delete_cidr(&mut self, network: IpNetwork) -> Result<(), MapError> {
        let map = if network.is_ipv4() {
            &self.cidrs_v4
        } else {
            &self.cidrs_v6
        };
        map.delete(&prefix::key(network))
    }

    fn source_ranges(&self) -> Result<Vec<(u32, IpNetwork)>, MapError> {
        let sizes = (prefix::V4_CIDR + 4, size_of::<u32>());
        let mut all = self
            .source_ranges_v4
            .entries(sizes, |key, _| prefix::parse_service_v4(key))?;
        let sizes = (prefix::V6_CIDR + 4, size_of::<u32>());
        all.extend(
            self.source_ranges_v6
                .entries(sizes, |key, _| prefix::parse_service_v6(key))?,
        );
        Ok(all)
    }

    fn put_source_range(&mut self, service_id: u32, network: IpNetwork) -> Result<(), MapError> {
        let map = if network.is_ipv4() {
            &self.source_ranges_v4
        } else {
            &self.source_ranges_v6
        };
        map.put_bytes(&prefix::service_key(service_id, network), 1u32.bytes())
    }

    fn delete_source_range(&mut self, service_id: u32, network: IpNetwork) -> Result<(), MapError> {
        let map = if network.is_ipv4() {
            &self.source_ranges_v4
        } else {
            &self.source_ranges_v6
        };
        map.delete(&prefix::service_key(service_id, network))
    }

    fn config(&self) -> Result<Config, MapError> {
        self.config.get(0)
    }

    fn put_config(&mut self, config: &Config) -> Result<(), MapError> {
        self.config.set(0, config)
    }

    fn reset_service_counter(&mut self, service_id: u32) -> Result<(), MapError> {
        self.reset_counters(&self.service_counters, service_id)
    }

    fn reset_backend_counter(&mut self, backend_id: u32) -> Result<(), MapError> {
        if backend_id >= self.backend_counters.capacity {
            return Ok(());
        }
        self.reset_counters(&self.backend_counters, backend_id)
    }

    fn names(&self) -> Result<Vec<(u32, String)>, MapError> {
        self.names
            .entries((size_of::<u32>(), NAME_LEN), |key, value| {
                let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
                Some((
                    u32::from_bytes(key)?,
                    String::from_utf8_lossy(&value[..end]).into_owned(),
                ))
            })
    }

    fn put_name(&mut self, service_id: u32, name: &str) -> Result<(), MapError> {
        let mut value = [0; NAME_LEN];
        let len = (0..=name.len().min(NAME_LEN))
            .rev()
            .find(|i| name.is_char_boundary(*i))
            .unwrap_or(0);
        value[..len].copy_from_slice(&name.as_bytes()[..len]);
        self.names.put_bytes(service_id.bytes(), &value)
    }

    fn delete_name(&mut self, service_id: u32) -> Result<(), MapError> {
        self.names.delete(service_id.bytes())
    }
}

impl Observe for KernelMaps {
    fn drops(&self) -> Result<Vec<(DropReason, Counter)>, MapError> {
        let sum = |mut sum: Counter, one: Counter| {
            sum.packets += one.packets;
            sum.bytes += one.bytes;
            sum
        };
        let read = |reason: &DropReason| {
            let values = self.per_cpu(&self.drops, *reason as u32)?;
            Ok((*reason, values.into_iter().fold(Counter::default(), sum)))
        };
        DropReason::ALL.iter().map(read).collect()
    }

    fn service_counter(&self, service_id: u32) -> Result<ServiceCounter, MapError> {
        self.sum_counters(&self.service_counters, service_id)
    }

    fn backend_counter(&self, backend_id: u32) -> Result<ServiceCounter, MapError> {
        if backend_id >= self.backend_counters.capacity {
            return Ok(ServiceCounter::default());
        }
        self.sum_counters(&self.backend_counters, backend_id)
    }

    fn flows(&self) -> Result<Vec<FlowEntry>, MapError> {
        let mut all = self.flows_v4.typed(|key: Tuple<Ipv4>, flow: Flow<Ipv4>| {
            Some(flow_entry(key, flow, |addr| IpAddr::V4(addr.into())))
        })?;
        all.extend(self.flows_v6.typed(|key: Tuple<Ipv6>, flow: Flow<Ipv6>| {
            Some(flow_entry(key, flow, |addr| IpAddr::V6(addr.into())))
        })?);
        Ok(all)
    }

    fn affinities(&self) -> Result<Vec<AffinityEntry>, MapError> {
        self.affinity
            .typed(|key: AffinityKey, value: AffinityValue| Some(AffinityEntry { key, value }))
    }

    fn delete_flow(&self, key: &Tuple<IpAddr>) -> Result<(), MapError> {
        match (key.src, key.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self
                .flows_v4
                .delete(with_addresses(key, Ipv4::from(src), Ipv4::from(dst)).bytes()),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self
                .flows_v6
                .delete(with_addresses(key, Ipv6::from(src), Ipv6::from(dst)).bytes()),
            _ => Ok(()),
        }
    }
}

fn with_addresses<A>(key: &Tuple<IpAddr>, src: A, dst: A) -> Tuple<A> {
    Tuple {
        src,
        dst,
        sport: key.sport,
        dport: key.dport,
        protocol: key.protocol,
    }
}

fn flow_entry<A>(key: Tuple<A>, flow: Flow<A>, ip: impl Fn(A) -> IpAddr) -> FlowEntry {
    FlowEntry {
        key: Tuple {
            src: ip(key.src),
            dst: ip(key.dst),
            sport: key.sport,
            dport: key.dport,
            protocol: key.protocol,
        },
        flow: abi::Flow {
            src: ip(flow.src),
            dst: ip(flow.dst),
            sport: flow.sport,
            dport: flow.dport,
            flags: flow.flags,
            state: flow.state,
            last_seen: flow.last_seen,
            lifetime: flow.lifetime,
            created: flow.created,
            backend_id: flow.backend_id,
            service_id: flow.service_id,
        },
    }
}
