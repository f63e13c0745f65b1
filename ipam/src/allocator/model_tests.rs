//! The allocator against a plain model: random operations, crashes at every byte of the log, failing
//! disks, and many threads.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::durable::{Allocator, Config, Error};
use super::log::RawFile;
use super::owner::{Details, Owner};
use super::pool::PoolUsage;
use super::state::State;

const COOL_DOWN: u32 = 10;
const POOL_V4: &str = "10.0.0.0/28";
const POOL_V6: &str = "fd00::/64";

#[derive(Clone, Debug)]
enum Op {
    Assign(u8),
    AssignFixed(u8, u8),
    Release(u8),
    Wait(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..24u8).prop_map(Op::Assign),
        1 => (0..24u8, 0..18u8).prop_map(|(owner, host)| Op::AssignFixed(owner, host)),
        4 => (0..24u8).prop_map(Op::Release),
        2 => (1..8u8).prop_map(Op::Wait),
    ]
}

fn owner(n: u8) -> Owner {
    Owner::new(format!("{n:064x}"), "eth0")
}

fn fixed(host: u8) -> IpAddr {
    format!("10.0.0.{host}").parse().unwrap()
}

/// Lists and linear searches; obviously right.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    held: BTreeMap<Owner, Vec<IpAddr>>,
    freed: VecDeque<(IpAddr, u32)>,
    touched: HashSet<IpAddr>,
    next_v6: u128,
    free_v6: VecDeque<(IpAddr, u32)>,
}

impl Model {
    fn assign(&mut self, who: &Owner, wanted: Option<IpAddr>, now: u32) -> bool {
        if let Some(held) = self.held.get(who) {
            return wanted.is_none_or(|wanted| held.contains(&wanted));
        }
        let Some(v4) = wanted.map_or_else(|| self.any_v4(now), |wanted| self.fixed_v4(wanted, now))
        else {
            return false;
        };
        self.freed.retain(|(address, _)| *address != v4);
        self.touched.insert(v4);
        let mut addresses = vec![v4];
        if wanted.is_none() {
            self.next_v6 += 1;
            let base = u128::from("fd00::".parse::<std::net::Ipv6Addr>().unwrap());
            addresses.push(IpAddr::V6((base + self.next_v6).into()));
        }
        self.held.insert(who.clone(), addresses);
        true
    }

    fn any_v4(&self, now: u32) -> Option<IpAddr> {
        let fresh = (1..15)
            .map(fixed)
            .find(|address| !self.touched.contains(address));
        let rested = || self.freed.front().filter(|(_, at)| now - at >= COOL_DOWN);
        fresh.or_else(|| rested().map(|(address, _)| *address))
    }

    fn fixed_v4(&self, wanted: IpAddr, now: u32) -> Option<IpAddr> {
        let held = self
            .held
            .values()
            .flatten()
            .any(|address| *address == wanted);
        let cooling = self
            .freed
            .iter()
            .any(|(a, at)| *a == wanted && now - at < COOL_DOWN);
        let valid = (1..15).map(fixed).any(|address| address == wanted);
        (valid && !held && !cooling).then_some(wanted)
    }

    fn release(&mut self, who: &Owner, now: u32) {
        for address in self.held.remove(who).into_iter().flatten() {
            match address {
                IpAddr::V4(_) => self.freed.push_back((address, now)),
                IpAddr::V6(_) => self.free_v6.push_back((address, now)),
            }
        }
    }
}

fn pools() -> Vec<ipnetwork::IpNetwork> {
    vec![POOL_V4.parse().unwrap(), POOL_V6.parse().unwrap()]
}

struct World {
    directory: TempDir,
    time: Arc<AtomicU32>,
}

impl World {
    fn new() -> Self {
        let base = Path::new("/dev/shm");
        let directory = match base.is_dir() {
            true => TempDir::with_prefix_in("sluice-ipam-", base).unwrap(),
            false => TempDir::new().unwrap(),
        };
        Self {
            directory,
            time: Arc::new(AtomicU32::new(1000)),
        }
    }

    fn config(&self, directory: &Path, compact_from: u64) -> Config {
        let time = self.time.clone();
        let mut config = Config::new(directory).with_clock(move || time.load(Ordering::Relaxed));
        config.cool_down = Duration::from_secs(COOL_DOWN.into());
        config.compact_from = compact_from;
        config
    }

    fn open(&self, compact_from: u64) -> Allocator {
        let allocator = Allocator::open(self.config(self.directory.path(), compact_from)).unwrap();
        allocator.set_pools(&pools()).unwrap();
        allocator
    }

    fn now(&self) -> u32 {
        self.time.load(Ordering::Relaxed)
    }

    fn apply(&self, allocator: &Allocator, model: &mut Model, op: &Op) {
        let now = self.now();
        match *op {
            Op::Assign(n) => {
                let given = allocator.assign(&owner(n), Details::default(), &[]);
                assert_eq!(
                    given.is_ok(),
                    model.assign(&owner(n), None, now),
                    "{given:?}"
                );
            }
            Op::AssignFixed(n, host) => {
                let given = allocator.assign(&owner(n), Details::default(), &[fixed(host)]);
                assert_eq!(
                    given.is_ok(),
                    model.assign(&owner(n), Some(fixed(host)), now),
                    "{given:?}"
                );
            }
            Op::Release(n) => {
                allocator.release(&owner(n)).unwrap();
                model.release(&owner(n), now);
            }
            Op::Wait(seconds) => {
                self.time.fetch_add(seconds.into(), Ordering::Relaxed);
            }
        }
    }
}

fn held(allocator: &Allocator) -> BTreeMap<Owner, Vec<IpAddr>> {
    let all = allocator.list().unwrap().into_iter();
    all.map(|allocation| (allocation.owner, allocation.addresses))
        .collect()
}

fn check(allocator: &Allocator, model: &Model, now: u32) {
    assert_eq!(held(allocator), model.held);
    for (who, addresses) in &model.held {
        assert_eq!(allocator.lookup(who), *addresses);
    }
    let usage: Vec<PoolUsage> = allocator.usage();
    if let Some(v4) = usage.first() {
        let cooling = model
            .freed
            .iter()
            .filter(|(_, at)| now - at < COOL_DOWN)
            .count() as u64;
        let used = model.held.len() as u64;
        assert_eq!(
            (v4.used, v4.cooling, v4.free),
            (used, cooling, 14 - used - cooling)
        );
    }
}

/// The order of the queue shows in what is handed out next.
fn check_order(allocator: &Allocator, model: &mut Model, world: &World) {
    world.time.fetch_add(COOL_DOWN, Ordering::Relaxed);
    for n in 100..116 {
        world.apply(allocator, model, &Op::Assign(n));
    }
    check(allocator, model, world.now());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn behaves_like_the_model_through_restarts_and_compactions(
        parts in prop::collection::vec(prop::collection::vec(op(), 0..40), 1..5),
    ) {
        let world = World::new();
        let mut model = Model::default();
        for part in parts {
            let allocator = world.open(600);
            check(&allocator, &model, world.now());
            part.iter().for_each(|op| world.apply(&allocator, &mut model, op));
            check(&allocator, &model, world.now());
        }
        check_order(&world.open(600), &mut model, &world);
    }

    #[test]
    fn undo_restores_the_state_exactly(ops in prop::collection::vec(op(), 0..80), keep in 0..80usize) {
        let mut state = State::new(Vec::new(), COOL_DOWN);
        state.set_pools(&pools()).unwrap();
        let mut undos = VecDeque::new();
        let mut expected = None;
        let mut now = 1000;
        for (at, op) in ops.iter().enumerate() {
            if at == keep {
                expected = Some(dump(&state));
                undos.clear();
            }
            undos.extend(match *op {
                Op::Assign(n) => state.assign(owner(n).key(), &[], now).unwrap_or(None),
                Op::AssignFixed(n, host) => {
                    state.assign(owner(n).key(), &[fixed(host)], now).unwrap_or(None)
                }
                Op::Release(n) => state.release(owner(n).key(), now),
                Op::Wait(seconds) => {
                    now += u32::from(seconds);
                    None
                }
            });
        }
        if let Some(expected) = expected {
            undos.into_iter().rev().for_each(|undo| state.undo(undo));
            prop_assert_eq!(dump(&state), expected);
        }
    }
}

type Dump = (
    BTreeMap<super::Key, Vec<IpAddr>>,
    Vec<((u16, u64), u32)>,
    Vec<PoolUsage>,
    Vec<IpAddr>,
);

fn dump(state: &State) -> Dump {
    let used = (0..16)
        .map(fixed)
        .filter(|address| state.is_used(*address))
        .collect();
    (
        state.owners().collect(),
        state.freed().collect(),
        state.usage(0),
        used,
    )
}

fn random_ops(count: usize, seed: u64) -> Vec<Op> {
    let mut random = seed;
    let mut next = move |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((random >> 33) % below) as u8
    };
    let mut op = || match next(10) {
        0..=4 => Op::Assign(next(20)),
        5 => Op::AssignFixed(next(20), next(18)),
        6..=8 => Op::Release(next(20)),
        _ => Op::Wait(1 + next(7)),
    };
    (0..count).map(|_| op()).collect()
}

fn log_length(directory: &Path) -> u64 {
    fs::metadata(directory.join("log.0")).unwrap().len()
}

#[test]
fn a_crash_at_every_byte_of_the_log_loses_nothing_acknowledged() {
    let world = World::new();
    let directory = world.directory.path();
    let allocator = world.open(u64::MAX);
    let mut model = Model::default();
    let mut history = vec![(log_length(directory), model.clone())];
    for op in random_ops(60, 7) {
        world.apply(&allocator, &mut model, &op);
        history.push((log_length(directory), model.clone()));
    }
    drop(allocator);
    let log = fs::read(directory.join("log.0")).unwrap();
    for cut in 0..=log.len() {
        let crashed = World::new();
        crashed.time.store(world.now(), Ordering::Relaxed);
        fs::write(crashed.directory.path().join("log.0"), &log[..cut]).unwrap();
        let acknowledged = history
            .iter()
            .rev()
            .find(|(length, _)| *length <= cut as u64);
        let mut model = acknowledged
            .map(|(_, model)| model.clone())
            .unwrap_or_default();
        let allocator = crashed.open(u64::MAX);
        check(&allocator, &model, crashed.now());
        if cut % 16 == 0 {
            check_order(&allocator, &mut model, &crashed);
        }
    }
}

#[test]
fn a_crash_between_any_two_steps_of_a_compaction_loses_nothing() {
    let world = World::new();
    let directory = world.directory.path();
    let mut model = Model::default();
    let allocator = world.open(u64::MAX);
    random_ops(60, 3)
        .iter()
        .for_each(|op| world.apply(&allocator, &mut model, op));
    drop(allocator);
    let old = fs::read(directory.join("log.0")).unwrap();
    // The next change rotates the log and folds the old one.
    let allocator = world.open(1);
    world.apply(&allocator, &mut model, &Op::Release(0));
    world.apply(&allocator, &mut model, &Op::Assign(0));
    drop(allocator);
    let new_log = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: HashSet<String> = new_log.collect();
    assert!(
        names.contains("snapshot") && !names.contains("log.0"),
        "{names:?}"
    );

    // Died before the rename: the draft is ignored. Died before the old log went: it is not applied again.
    fs::write(directory.join("snapshot.tmp"), b"half a snap").unwrap();
    fs::write(directory.join("log.0"), old).unwrap();
    let allocator = world.open(u64::MAX);
    check(&allocator, &model, world.now());
    check_order(&allocator, &mut model, &world);
}

#[test]
fn a_crash_while_the_next_log_is_made_loses_nothing() {
    let world = World::new();
    let mut model = Model::default();
    let allocator = world.open(u64::MAX);
    random_ops(30, 5)
        .iter()
        .for_each(|op| world.apply(&allocator, &mut model, op));
    drop(allocator);
    for header in [0, 7, 30] {
        fs::write(world.directory.path().join("log.1"), vec![1; header]).unwrap();
        let allocator = world.open(u64::MAX);
        check(&allocator, &model, world.now());
    }
}

#[test]
fn damage_to_acknowledged_records_is_an_error_that_names_the_place() {
    let world = World::new();
    let mut model = Model::default();
    let allocator = world.open(u64::MAX);
    random_ops(30, 5)
        .iter()
        .for_each(|op| world.apply(&allocator, &mut model, op));
    drop(allocator);
    let path = world.directory.path().join("log.0");
    let mut log = fs::read(&path).unwrap();
    log[200] ^= 1;
    fs::write(&path, &log).unwrap();
    let error = Allocator::open(world.config(world.directory.path(), u64::MAX))
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(text.contains("log.0 is damaged at byte"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), log, "the evidence was changed");
}

#[test]
fn a_missing_log_is_an_error() {
    let world = World::new();
    drop(world.open(1));
    let allocator = world.open(1);
    allocator
        .assign(&owner(1), Details::default(), &[])
        .unwrap();
    drop(allocator);
    let logs: Vec<_> = fs::read_dir(world.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("log.")
        })
        .collect();
    logs.iter().for_each(|path| fs::remove_file(path).unwrap());
    let error = Allocator::open(world.config(world.directory.path(), 1))
        .err()
        .unwrap();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn a_second_process_is_kept_out() {
    let world = World::new();
    let _first = world.open(u64::MAX);
    let error = Allocator::open(world.config(world.directory.path(), 1))
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );
}

/// A disk that fails every third write or sync, after writing a part.
struct Faulty {
    file: fs::File,
    calls: Arc<AtomicU32>,
}

impl Faulty {
    fn fails(&self) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed) % 3 == 2
    }

    fn full() -> std::io::Error {
        std::io::Error::from_raw_os_error(libc::ENOSPC)
    }
}

impl RawFile for Faulty {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        if self.fails() {
            RawFile::write_all_at(&mut self.file, &bytes[..bytes.len() / 2], offset)?;
            return Err(Self::full());
        }
        RawFile::write_all_at(&mut self.file, bytes, offset)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        if self.fails() {
            Err(Self::full())
        } else {
            self.file.sync()
        }
    }

    fn truncate(&mut self, length: u64) -> std::io::Result<()> {
        if self.fails() {
            Err(Self::full())
        } else {
            self.file.truncate(length)
        }
    }
}

fn faulty_config(world: &World, compact_from: u64) -> Config {
    let calls = Arc::new(AtomicU32::new(0));
    let config = world.config(world.directory.path(), compact_from);
    config.with_files(Arc::new(move |file| {
        Box::new(Faulty {
            file,
            calls: calls.clone(),
        })
    }))
}

#[test]
fn a_failing_disk_is_an_error_and_changes_nothing() {
    let world = World::new();
    drop(world.open(u64::MAX));
    let allocator = Allocator::open(faulty_config(&world, 2000)).unwrap();
    let mut model = Model::default();
    let mut failures = 0;
    for op in random_ops(400, 11) {
        let now = world.now();
        let (who, result) = match op {
            Op::Wait(seconds) => {
                world.time.fetch_add(seconds.into(), Ordering::Relaxed);
                continue;
            }
            Op::Assign(n) | Op::AssignFixed(n, _) => (
                owner(n),
                allocator
                    .assign(&owner(n), Details::default(), &[])
                    .map(drop),
            ),
            Op::Release(n) => (owner(n), allocator.release(&owner(n)).map(drop)),
        };
        match (&result, op) {
            (Err(Error::Write(error)), _) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
                failures += 1;
            }
            (_, Op::Release(_)) => model.release(&who, now),
            _ => assert_eq!(result.is_ok(), model.assign(&who, None, now)),
        }
        check(&allocator, &model, world.now());
    }
    assert!(failures > 30, "{failures}");
    drop(allocator);
    check(&world.open(u64::MAX), &model, world.now());
}

#[derive(Default)]
struct Ledger {
    holder: HashMap<IpAddr, Owner>,
}

impl Ledger {
    fn enter(&mut self, addresses: &[IpAddr], who: &Owner) {
        for address in addresses {
            let other = self.holder.insert(*address, who.clone());
            assert!(
                other.as_ref().is_none_or(|other| other == who),
                "{address}: {other:?} and {who}"
            );
        }
    }

    fn leave(&mut self, addresses: &[IpAddr]) {
        addresses
            .iter()
            .for_each(|address| drop(self.holder.remove(address)));
    }
}

/// Each thread has owners of its own, so what a thread believes is true.
fn churn(allocator: &Allocator, ledger: &Mutex<Ledger>, thread: u8, rounds: usize) {
    let mut mine: HashMap<Owner, Vec<IpAddr>> = HashMap::new();
    for op in random_ops(rounds, u64::from(thread) + 99) {
        match op {
            Op::Assign(n) | Op::AssignFixed(n, _) => {
                let who = Owner::new(format!("{thread}-{n}"), "eth0");
                if let Ok(addresses) = allocator.assign(&who, Details::default(), &[]) {
                    ledger.lock().unwrap().enter(&addresses, &who);
                    mine.insert(who, addresses);
                }
            }
            Op::Release(n) => {
                let who = Owner::new(format!("{thread}-{n}"), "eth0");
                let Some(addresses) = mine.remove(&who) else {
                    continue;
                };
                ledger.lock().unwrap().leave(&addresses);
                if allocator.release(&who).is_err() {
                    // Refused, so still held: nobody else may have got it meanwhile.
                    ledger.lock().unwrap().enter(&addresses, &who);
                    mine.insert(who, addresses);
                }
            }
            Op::Wait(_) => {}
        }
    }
}

fn threads_share(config: impl Fn(&World) -> Config) {
    let world = World::new();
    let mut first = world.config(world.directory.path(), u64::MAX);
    first.cool_down = Duration::ZERO;
    let pools = ["10.0.0.0/25".parse().unwrap(), POOL_V6.parse().unwrap()];
    Allocator::open(first).unwrap().set_pools(&pools).unwrap();
    let mut config = config(&world);
    config.cool_down = Duration::ZERO;
    let allocator = Allocator::open(config).unwrap();
    let ledger = Mutex::new(Ledger::default());
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (allocator, ledger) = (&allocator, &ledger);
            scope.spawn(move || churn(allocator, ledger, thread, 400));
        }
    });
    drop(allocator);
    let allocator = Allocator::open(world.config(world.directory.path(), u64::MAX)).unwrap();
    let mut survivors = HashMap::new();
    for allocation in allocator.list().unwrap() {
        for address in allocation.addresses {
            survivors.insert(address, allocation.owner.clone());
        }
    }
    assert_eq!(survivors, ledger.into_inner().unwrap().holder);
}

#[test]
fn threads_never_share_an_address() {
    threads_share(|world| world.config(world.directory.path(), 20_000));
}

#[test]
fn threads_never_share_an_address_on_a_failing_disk() {
    threads_share(|world| faulty_config(world, 20_000));
}

#[test]
fn names_that_are_too_long_are_refused_by_field() {
    let world = World::new();
    let allocator = world.open(u64::MAX);
    let details = Details {
        pod_name: "x".repeat(5000),
        ..Details::default()
    };
    let error = allocator.assign(&owner(1), details, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the pod's name has 5000 bytes, more than 4096"
    );
}
