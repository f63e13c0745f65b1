//! A node is cut off under load and comes back: how many requests fail, and for how long.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, ListParams};

use super::load::{self, Generator, Report};
use super::services::{Addresses, NODE_PORT_SERVICE, belongs_to, is_ready};
use crate::layout::{Layout, Machine};
use crate::links;
use crate::progress::{Step, say};

const VICTIM: Machine = Machine::Node(3);
const CALM: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(40);
const INTERVAL: Duration = Duration::from_millis(25);

/// Times since the load began.
struct Course {
    cut: Duration,
    gone: Duration,
    restored: Duration,
    back: Duration,
}

/// Cuts a node off and brings it back, under load from outside through another node.
pub async fn run(generator: &Generator<'_>, to: &Addresses) -> Result<()> {
    say("");
    let url = load::url(Machine::Node(1).v4().into(), to.node_port);
    let load = generator.continuous(&url)?;
    let started = Instant::now();
    let cable = Cable {
        layout: generator.layout,
    };
    tokio::time::sleep(CALM).await;
    let course = follow(generator, &cable, started).await?;
    tokio::time::sleep(CALM).await;
    let intervals = tokio::task::block_in_place(|| load.stop());
    report(&course, &intervals);
    Ok(())
}

async fn follow(generator: &Generator<'_>, cable: &Cable<'_>, started: Instant) -> Result<Course> {
    let name = VICTIM.name();
    let step = Step::begin(format!("{name} cut off, its endpoints gone"));
    cable.connect(false)?;
    let cut = started.elapsed();
    wait_for_endpoints(generator.client, false).await?;
    let gone = started.elapsed();
    step.done(&format!("after {:.1} s", (gone - cut).as_secs_f64()));
    tokio::time::sleep(CALM).await;
    let step = Step::begin(format!("{name} brought back, its endpoints too"));
    cable.connect(true)?;
    let restored = started.elapsed();
    wait_for_endpoints(generator.client, true).await?;
    let back = started.elapsed();
    step.done(&format!("after {:.1} s", (back - restored).as_secs_f64()));
    Ok(Course {
        cut,
        gone,
        restored,
        back,
    })
}

fn report(course: &Course, intervals: &[Report]) {
    let total: u64 = intervals.iter().map(|interval| interval.requests).sum();
    let failed = |from: Duration, to: Duration| {
        let inside = |interval: &&Report| {
            let at = Duration::from_millis(interval.at_millis.unwrap_or(0));
            from < at && at <= to
        };
        intervals
            .iter()
            .filter(inside)
            .map(|interval| interval.failed)
            .sum::<u64>()
    };
    // A request that was sent to the lost node is counted when it gives up.
    let settled = course.gone + Duration::from_millis(load::TIMEOUT_MILLIS + 200);
    say(&format!(
        "      {total} requests through {}: {} failed before the cut, {} until the endpoints were gone, {} after that, {} once the node was back",
        Machine::Node(1).name(),
        failed(Duration::ZERO, course.cut),
        failed(course.cut, settled),
        failed(settled, course.restored.max(settled)),
        failed(course.restored.max(settled), course.back + CALM * 2),
    ));
}

/// Waits until the node has endpoints of the Service that are ready, or none.
async fn wait_for_endpoints(client: &Client, present: bool) -> Result<()> {
    let api: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let name = VICTIM.name();
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        let slices = api.list(&ListParams::default()).await?.items;
        let mut endpoints = slices
            .iter()
            .filter(|slice| belongs_to(slice, NODE_PORT_SERVICE))
            .flat_map(|slice| slice.endpoints.iter().flatten());
        let found = endpoints
            .any(|endpoint| endpoint.node_name.as_ref() == Some(&name) && is_ready(endpoint));
        if found == present {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
    let what = if present {
        "did not come back"
    } else {
        "are still there"
    };
    bail!(
        "the endpoints of {name} {what} after {} s",
        TIMEOUT.as_secs()
    )
}

/// The victim's cable; put back however this ends.
struct Cable<'a> {
    layout: &'a Layout,
}

impl Cable<'_> {
    fn connect(&self, connected: bool) -> Result<()> {
        tokio::task::block_in_place(|| links::set_cable(self.layout, VICTIM, connected))
    }
}

impl Drop for Cable<'_> {
    fn drop(&mut self) {
        let _ = self.connect(true);
    }
}
