//! Keeps the kernel's routes as the topology wants them: after every change of either, and when somebody
//! else removes one of ours.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ipnetwork::IpNetwork;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::node::Topology;
use super::service::Service;
use super::{Watched, host, inventory};
use crate::links::netlink::{Netlink, groups};
use crate::links::pod;
use crate::links::routes::{self, Changes, Event, Way};

/// Bursts of events are answered once.
const SETTLE: Duration = Duration::from_millis(20);
/// After a refusal, such as a gateway whose network is not up yet.
const RETRY: Duration = Duration::from_secs(5);
/// Against what no event tells.
const PERIOD: Duration = Duration::from_secs(60);

const GROUPS: u32 = groups::LINK
    | groups::IPV4_ADDRESS
    | groups::IPV4_ROUTE
    | groups::IPV6_ADDRESS
    | groups::IPV6_ROUTE;

pub(super) async fn run(
    service: Arc<Service>,
    mut topology: Watched,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let events = Netlink::subscribe(GROUPS).context("cannot subscribe to route events")?;
    // SAFETY: the socket owns its descriptor, always returns the same one, and keeps it open until it is
    // dropped, which is after its registration; nothing below replaces it.
    let events = unsafe { AsyncFd::register(events) };
    let mut events = events.context("cannot wait for route events")?;
    let mut keeper = Keeper::new(service);
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            changed = topology.changed() => match changed {
                Ok(()) => due = due.min(Instant::now()),
                // The node's watcher has ended, and so will the daemon.
                Err(_) => cancel.cancelled().await,
            },
            woken = wake(&mut events, &keeper.service) => {
                if woken? {
                    due = due.min(Instant::now() + SETTLE);
                }
            }
            () = sleep_until(due) => {
                let wanted = topology.borrow_and_update().clone();
                let pause;
                (keeper, pause) = keeper.work(wanted).await?;
                due = Instant::now() + pause;
            }
        }
    }
}

/// Takes the waiting events; true where the whole table needs a look.
async fn wake(events: &mut AsyncFd<Netlink>, service: &Arc<Service>) -> anyhow::Result<bool> {
    let mut ready = events
        .readable_mut()
        .await
        .context("cannot wait for route events")?;
    let (messages, lost) = ready
        .get_inner_mut()
        .events()
        .context("cannot read route events")?;
    ready.clear_ready();
    let mut whole = lost;
    let mut pods = Vec::new();
    for event in messages.iter().filter_map(routes::interpret) {
        match event {
            Event::Table | Event::Network => whole = true,
            Event::PodRouteLost { address, link } => pods.push((address, link)),
        }
    }
    if !pods.is_empty() {
        let service = service.clone();
        // Not awaited: what was read above must not be lost when another branch is taken.
        tokio::task::spawn_blocking(move || restore(&service, &pods));
    }
    Ok(whole)
}

/// Routes to pods leave with their links; only one whose link and allocation are still there was taken
/// away by somebody.
fn restore(service: &Service, lost: &[(IpAddr, u32)]) {
    let Ok(mut netlink) = Netlink::open() else {
        return;
    };
    for &(address, link) in lost {
        let up = pod::find_by_index(&mut netlink, link).is_ok_and(|link| link.up);
        if up && service.allocator.is_used(address) {
            inventory::repair_one(&mut netlink, address, link);
        }
    }
}

struct Keeper {
    service: Arc<Service>,
    /// Told already, so that a lasting refusal is logged once.
    refused: HashSet<(IpNetwork, Way)>,
}

impl Keeper {
    fn new(service: Arc<Service>) -> Self {
        Self {
            service,
            refused: HashSet::new(),
        }
    }

    /// Compares and repairs everything; returns when to do so again.
    async fn work(mut self, wanted: Option<Topology>) -> anyhow::Result<(Self, Duration)> {
        let work = tokio::task::spawn_blocking(move || {
            let pause = self.reconcile(wanted).unwrap_or_else(|error| {
                tracing::warn!(error = format!("{error:#}"), "cannot reconcile the routes");
                RETRY
            });
            (self, pause)
        });
        Ok(work.await?)
    }

    fn reconcile(&mut self, wanted: Option<Topology>) -> anyhow::Result<Duration> {
        let mut netlink = Netlink::open()?;
        inventory::repair(&mut netlink, &self.service.allocator)?;
        // Until the peers are known, the routes that a predecessor left are better than none.
        let Some(topology) = wanted else {
            return Ok(PERIOD);
        };
        self.service
            .follow_mtu(host::uplink_mtu(&topology.addresses)?);
        let changes = routes::reconcile(&mut netlink, &topology.routes)?;
        Ok(self.report(changes))
    }

    fn report(&mut self, changes: Changes) -> Duration {
        for (destination, way) in &changes.set {
            tracing::info!(%destination, %way, "set a route");
        }
        for destination in &changes.removed {
            tracing::info!(%destination, "removed a route");
        }
        let mut refused = HashSet::new();
        for (destination, way, error) in changes.failed {
            if !self.refused.contains(&(destination, way)) {
                tracing::warn!(%destination, %way, %error, "cannot set a route, will try again");
            }
            refused.insert((destination, way));
        }
        self.refused = refused;
        if self.refused.is_empty() {
            PERIOD
        } else {
            RETRY
        }
    }
}
