//! Removing a cluster. Nothing is asked of its processes, which may be dead or half-started: they are found
//! by the cgroups that they can't leave, mounts and namespaces by their names. Each step goes on past what
//! it could not remove; the end is a check that nothing is left, and an error that names what is.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::borrowed::Borrowed;
use crate::cgroups::Hierarchies;
use crate::layout::{Layout, Machine};
use crate::lock::Lock;
use crate::progress::{Step, say};
use crate::{containerd, kill, mounts, netns, parts, preflight, spawn};

const KILL_TIMEOUT: Duration = Duration::from_secs(20);
const CGROUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Removes every trace of the cluster.
pub fn run(layout: &Layout, force: bool) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("root is missing: run it with sudo");
    }
    if is_absent(layout, force)? {
        say(&format!("there is no cluster {:?}", layout.name()));
        return Ok(());
    }
    let _lock = Lock::take(layout)?;
    let step = Step::begin(format!("removing cluster {:?}", layout.name()));
    remove(layout)?;
    let left = leftovers(layout);
    if !left.is_empty() {
        bail!("could not remove:\n  {}", left.join("\n  "));
    }
    step.done("");
    Ok(())
}

/// Without a state directory nothing shows that things of that name are ours.
fn is_absent(layout: &Layout, force: bool) -> Result<bool> {
    if force || layout.state().exists() || layout.run().exists() {
        return Ok(false);
    }
    match preflight::traces(layout).first() {
        None => Ok(true),
        Some(trace) => bail!(
            "{trace} exists, but no state of a cluster {:?}: if it is not somebody else's, add --force",
            layout.name()
        ),
    }
}

fn remove(layout: &Layout) -> Result<()> {
    let hierarchies = Hierarchies::find()?;
    let borrowed = Borrowed::read(layout);
    stop_managers(layout);
    kill::all_in(&hierarchies, Path::new(layout.name()), KILL_TIMEOUT);
    let shims: Vec<PathBuf> = Machine::nodes()
        .flat_map(|node| containerd::shim_sockets(layout, node))
        .collect();
    shims
        .iter()
        .for_each(|socket| drop(fs::remove_file(socket)));
    for directory in [layout.run(), layout.state()] {
        attempt(&directory, mounts::unmount_below(&directory));
    }
    for name in layout.namespaces() {
        attempt(&netns::path(&name), netns::remove(&name));
    }
    remove_cgroups(layout, &hierarchies);
    attempt(&layout.pins(), remove_tree(&layout.pins()));
    attempt(&layout.run(), remove_tree(&layout.run()));
    attempt(&layout.state(), remove_tree(&layout.state()));
    borrowed.give_back();
    Ok(())
}

/// Those that would start something again go first, the master before the kubelets that obey it.
fn stop_managers(layout: &Layout) {
    let nodes = Machine::nodes().flat_map(|node| parts::NODE_PARTS.map(|part| (node, part)));
    for (machine, part) in [(Machine::Master, "master")].into_iter().chain(nodes) {
        if let Some(identity) = spawn::pid_file(layout, machine, part).running() {
            kill::end(&identity, Duration::ZERO);
        }
    }
}

/// The kernel lets go of a cgroup a moment after its last process ended.
fn remove_cgroups(layout: &Layout, hierarchies: &Hierarchies) {
    let deadline = Instant::now() + CGROUP_TIMEOUT;
    while !hierarchies.remove(Path::new(layout.name())).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn attempt(what: &Path, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        say(&format!("cannot remove {}: {error}", what.display()));
    }
}

/// What is still there.
fn leftovers(layout: &Layout) -> Vec<String> {
    let mut left = preflight::traces(layout);
    if let Ok(hierarchies) = Hierarchies::find() {
        let members: BTreeSet<i32> = hierarchies.members(Path::new(layout.name()));
        left.extend(members.iter().map(|pid| format!("process {pid}")));
    }
    for directory in [layout.run(), layout.state()] {
        let mounted = mounts::below(&directory).unwrap_or_default();
        left.extend(
            mounted
                .iter()
                .map(|target| format!("mount {}", target.display())),
        );
        if directory.exists() {
            left.push(format!("directory {}", directory.display()));
        }
    }
    left
}
