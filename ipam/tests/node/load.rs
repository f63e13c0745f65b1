//! Many pods at once, and a daemon that dies in the middle of it.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::support::{Namespace, Node, Outcome, eventually};

#[test]
fn sixty_four_pods_come_and_go_at_once() {
    let node = Node::alone();
    let spaces: Vec<Namespace> = (0..64).map(|_| Namespace::new()).collect();
    let at_once = |work: &(dyn Fn(usize, &Namespace) -> Outcome + Sync)| -> Vec<Outcome> {
        std::thread::scope(|scope| {
            let jobs: Vec<_> = spaces
                .iter()
                .enumerate()
                .map(|(at, space)| scope.spawn(move || work(at, space)))
                .collect();
            jobs.into_iter().map(|job| job.join().unwrap()).collect()
        })
    };
    let config = node.config("1.0.0");
    let added = at_once(&|at, space| node.cni("ADD", &format!("pod{at}"), space.path(), &config));
    let failed: Vec<_> = added.iter().filter(|outcome| !outcome.success).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let addresses: BTreeSet<IpAddr> = added.iter().flat_map(Outcome::addresses).collect();
    assert_eq!(addresses.len(), 128, "an address was handed out twice");
    assert!(node.findings().is_empty(), "{:?}", node.findings());
    let deleted = at_once(&|at, space| node.del(&format!("pod{at}"), space));
    assert!(deleted.iter().all(|outcome| outcome.success), "{deleted:?}");
    assert!(node.held().is_empty());
    assert!(node.pod_links().is_empty());
}

/// Who holds what, as the runtime believes.
#[derive(Default)]
struct Ledger(HashMap<IpAddr, String>);

impl Ledger {
    fn enter(&mut self, id: &str, addresses: &[IpAddr]) {
        for address in addresses {
            let other = self.0.insert(*address, id.to_owned());
            assert_eq!(other, None, "{address} was given to {id} too");
        }
    }

    fn leave(&mut self, addresses: &[IpAddr]) {
        addresses
            .iter()
            .for_each(|address| drop(self.0.remove(address)));
    }
}

/// A runtime that repeats what failed, as the specification wants.
fn insist(node: &Node, command: &str, id: &str, space: &Namespace) -> Outcome {
    loop {
        let outcome = node.cni(command, id, space.path(), &node.config("1.0.0"));
        match (outcome.success, outcome.code()) {
            (true, _) => return outcome,
            (false, 11) => {}
            _ => panic!("{command} {id}: {outcome:?}"),
        }
    }
}

/// Two pods at a time, the older of which leaves when a new one has come.
fn churn(
    node: &Node,
    worker: usize,
    spaces: &[Namespace; 2],
    ledger: &Mutex<Ledger>,
    stop: &AtomicBool,
) -> usize {
    let mut older: Option<(String, Vec<IpAddr>)> = None;
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) || round < 3 {
        let id = format!("pod-{worker}-{round}");
        let addresses = insist(node, "ADD", &id, &spaces[round % 2]).addresses();
        ledger.lock().unwrap().enter(&id, &addresses);
        if let Some((id, addresses)) = older.replace((id, addresses)) {
            // Before the DEL: from then on another pod may get them.
            ledger.lock().unwrap().leave(&addresses);
            insist(node, "DEL", &id, &spaces[(round + 1) % 2]);
        }
        round += 1;
    }
    round
}

#[test]
fn killing_the_daemon_under_load_doubles_nothing_and_leaks_nothing() {
    let node = Node::alone();
    let spaces: Vec<[Namespace; 2]> = (0..8)
        .map(|_| [Namespace::new(), Namespace::new()])
        .collect();
    let (ledger, stop) = (Mutex::new(Ledger::default()), AtomicBool::new(false));
    let rounds: usize = std::thread::scope(|scope| {
        let worker = |(at, spaces)| {
            let (node, ledger, stop) = (&node, &ledger, &stop);
            scope.spawn(move || churn(node, at, spaces, ledger, stop))
        };
        let workers: Vec<_> = spaces.iter().enumerate().map(worker).collect();
        for pause in 0..20 {
            // At another point of the work each time.
            std::thread::sleep(Duration::from_millis(40 + 7 * pause));
            node.kill();
            node.start();
        }
        stop.store(true, Ordering::Relaxed);
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    });
    node.wait_ready();
    // Each worker's last pod is left, and nothing else.
    let held = node.held().into_iter().flat_map(|held| {
        let id = held.owner.container_id;
        held.addresses
            .into_iter()
            .map(move |address| (address, id.clone()))
    });
    assert_eq!(
        held.collect::<HashMap<_, _>>(),
        ledger.into_inner().unwrap().0
    );
    assert_eq!(node.pod_links().len(), 8, "after {rounds} rounds");
    assert!(node.findings().is_empty(), "{:?}", node.findings());
}

#[test]
fn a_plugin_that_is_killed_half_way_leaves_nothing_after_del() {
    let node = Node::alone();
    let space = Namespace::new();
    let mut finished = 0;
    for round in 0..60 {
        let id = format!("pod-{round}");
        let mut plugin = node.spawn_add(&id, space.path());
        // From before it has begun until after it is done.
        std::thread::sleep(Duration::from_micros(150 * round));
        plugin.kill().unwrap();
        finished += usize::from(plugin.wait().unwrap().success());
        let deleted = node.del(&id, &space);
        assert!(deleted.success, "{deleted:?}");
        assert_eq!(space.links(), ["lo"], "round {round}");
        // What the killed plugin had asked for may be answered only now.
        eventually("the address is free", || {
            assert!(node.del(&id, &space).success);
            node.held().is_empty()
        });
    }
    assert!(node.pod_links().is_empty());
    assert!(finished < 60, "no plugin was killed in time");
}
