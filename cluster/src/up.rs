//! Bringing a cluster up. Every step makes what is missing and leaves what is there, so that running it
//! again after a crash, a kill or a reboot heals the cluster.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use crate::cgroups::Hierarchies;
use crate::images::Binaries;
use crate::layout::{Layout, Machine};
use crate::lock::Lock;
use crate::parts::Parts;
use crate::preflight::{self, Wanted};
use crate::progress::{say, step};
use crate::spawn::Part;
use crate::{borrowed, client, containerd, credentials, demo, images, links, manifests, readiness};

/// What was asked for.
pub struct Options {
    /// The cluster.
    pub layout: Layout,
    /// Port of the host's loopback for the API server.
    pub api_port: u16,
    /// Whether to deploy and exercise the example.
    pub demo: bool,
    /// Directory of the static binaries, if given.
    pub binaries: Option<PathBuf>,
}

/// Brings the cluster up and, if asked for, shows it at work.
pub async fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    refuse_unless_possible(options)?;
    let _lock = Lock::take(&options.layout)?;
    say(&format!("cluster {:?}", options.layout.name()));
    tokio::task::block_in_place(|| make(options))?;
    let client = client::wait_until_ready(&options.layout).await?;
    readiness::nodes(&options.layout, &client).await?;
    let binaries = static_binaries(options)?;
    if options.demo {
        manifests::apply(&client, manifests::ECHO).await?;
        readiness::pods(&options.layout, &client).await?;
        demo::run(&options.layout, &client, &binaries).await?;
    }
    demo::next::print(
        &options.layout,
        started.elapsed(),
        options.demo,
        &binaries.echo(),
    );
    Ok(())
}

fn refuse_unless_possible(options: &Options) -> Result<()> {
    let lacks = preflight::check(&Wanted {
        layout: &options.layout,
        api_port: options.api_port,
        binaries: options.binaries.as_deref(),
    });
    match lacks.as_slice() {
        [] => Ok(()),
        [only] => bail!("{only}"),
        several => bail!("nothing was changed, since\n  {}", several.join("\n  ")),
    }
}

fn static_binaries(options: &Options) -> Result<Binaries> {
    let found = Binaries::find(options.binaries.as_deref());
    found.context("the static binaries have vanished")
}

/// Everything that needs no API server yet, and the processes.
fn make(options: &Options) -> Result<()> {
    let layout = &options.layout;
    let program = std::env::current_exe().context("cannot find this executable")?;
    let hierarchies = Hierarchies::find()?;
    let parts = Parts {
        layout,
        program: &program,
        hierarchies: &hierarchies,
    };
    step("directories and cgroups", || {
        directories(layout, &hierarchies)
    })?;
    step("namespaces and links", || links::ensure(layout))?;
    step("certificates and the master", || {
        credentials::ensure(&parts)?;
        parts.master(options.api_port).ensure(layout, &hierarchies)
    })?;
    let archives = step("images", || {
        images::build(layout, &static_binaries(options)?)
    })?;
    step("containerd, proxy, kubelet", || nodes(&parts, &archives))
}

fn directories(layout: &Layout, hierarchies: &Hierarchies) -> Result<()> {
    borrowed::borrow(layout)?;
    for machine in Machine::all() {
        fs::create_dir_all(layout.machine_state(machine))?;
        fs::create_dir_all(layout.machine_run(machine))?;
    }
    fs::create_dir_all(layout.pins())?;
    for machine in Machine::all() {
        hierarchies.create(&layout.cgroup(machine))?;
    }
    Ok(())
}

fn nodes(parts: &Parts, archives: &[PathBuf]) -> Result<()> {
    let major = containerd::major_version()?;
    thread::scope(|scope| {
        let start = |machine| scope.spawn(move || node(parts, machine, major, archives));
        let started: Vec<_> = Machine::nodes().map(start).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a worker panicked")))
        };
        started.into_iter().try_for_each(join)
    })
}

/// The kubelet comes last: a node that says it is ready has its images and its network.
fn node(parts: &Parts, machine: Machine, major: u32, archives: &[PathBuf]) -> Result<()> {
    let runtime = containerd::part(parts.layout, machine, major)?;
    let (kubelet, others) = (
        parts.kubelet(machine),
        [parts.ipam(machine), parts.proxy(machine)],
    );
    ensure(parts, &runtime)?;
    others.iter().try_for_each(|part| ensure(parts, part))?;
    containerd::wait_until_ready(parts.layout, &runtime)?;
    import(parts, machine, archives)?;
    ensure(parts, &kubelet)
}

fn import(parts: &Parts, machine: Machine, archives: &[PathBuf]) -> Result<()> {
    let give =
        |archive: &PathBuf| containerd::import(parts.layout, parts.hierarchies, machine, archive);
    archives.iter().try_for_each(give)
}

fn ensure(parts: &Parts, part: &Part) -> Result<()> {
    part.ensure(parts.layout, parts.hierarchies).map(drop)
}
