//! The example at work: who answers, how fast, and what happens when a node is cut off.

mod bars;
mod load;
pub mod next;
mod outage;
mod services;

use anyhow::{Result, bail};
use kube::Client;

use crate::cgroups::Hierarchies;
use crate::images::Binaries;
use crate::layout::{Layout, Machine};
use crate::progress::{Step, say};
use load::{Generator, Report};
use services::Addresses;

const REQUESTS: u64 = 10_000;

/// Sends traffic to the example and shows the result; a failed request is an error, save while a node is cut off.
pub async fn run(layout: &Layout, client: &Client, binaries: &Binaries) -> Result<()> {
    let pods = services::show(client).await?;
    let addresses = services::addresses(client).await?;
    let hierarchies = Hierarchies::find()?;
    let generator = Generator {
        layout,
        client,
        program: binaries.echo(),
        hierarchies: &hierarchies,
    };
    for (what, report) in measure(&generator, &addresses).await? {
        say(&format!("\n{what}: {}", report.summary()));
        bars::lines(&report, &pods)
            .iter()
            .for_each(|line| say(line));
        if report.failed > 0 {
            bail!(
                "{} of {} requests failed: {}",
                report.failed,
                report.requests,
                report.reasons()
            );
        }
    }
    outage::run(&generator, &addresses).await
}

async fn measure(generator: &Generator<'_>, to: &Addresses) -> Result<Vec<(String, Report)>> {
    let mut results = Vec::new();
    say("");
    for address in &to.cluster {
        let url = load::url(*address, to.port);
        let what = format!("pod to ClusterIP {url}");
        let step = Step::begin(what.clone());
        let report = generator.in_pod(&url, REQUESTS).await?;
        step.done(&report.summary());
        results.push((what, report));
    }
    for address in [Machine::Node(1).v4().into(), Machine::Node(1).v6().into()] {
        let url = load::url(address, to.node_port);
        let what = format!("outside to NodePort {url}");
        let step = Step::begin(what.clone());
        let report = generator.outside(&url, REQUESTS).await?;
        step.done(&report.summary());
        results.push((what, report));
    }
    Ok(results)
}
