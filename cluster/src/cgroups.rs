//! A directory per machine in every cgroup hierarchy: version 1 with its many trees, version 2 with its
//! one, or both at once. They bound the pods, carry the socket hooks, and name every process of the cluster.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::mounts;

/// The cgroup of a machine's own processes, beside its pods' `kubepods`.
pub const SYSTEM: &str = "system";

const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Mount points of all hierarchies.
#[derive(Clone, Debug)]
pub struct Hierarchies {
    v1: Vec<PathBuf>,
    v2: Option<PathBuf>,
}

impl Hierarchies {
    /// Finds what is mounted; a hierarchy that is mounted twice counts once.
    pub fn find() -> io::Result<Self> {
        let mut seen = HashSet::new();
        let mut found = Self {
            v1: Vec::new(),
            v2: None,
        };
        for mount in mounts::list()? {
            match mount.kind.as_str() {
                "cgroup" if seen.insert(mount.device.clone()) => found.v1.push(mount.target),
                "cgroup2" if found.v2.is_none() => found.v2 = Some(mount.target),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Where version 2 is mounted.
    pub fn v2(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1.iter().chain(&self.v2)
    }

    /// Makes a machine's cgroup and the one for its processes in every hierarchy, ready to hold processes.
    pub fn create(&self, cgroup: &Path) -> io::Result<()> {
        for root in &self.v1 {
            for directory in descent(root, &cgroup.join(SYSTEM)) {
                ensure_directory(&directory)?;
                inherit_cpuset(&directory)?;
            }
        }
        if let Some(root) = &self.v2 {
            for directory in descent(root, &cgroup.join(SYSTEM)) {
                // Controllers are handed down by the parent; a cgroup with processes in it can't.
                delegate(directory.parent().unwrap_or(root));
                ensure_directory(&directory)?;
            }
        }
        Ok(())
    }

    /// The files into which a process writes `0` to move itself, one per hierarchy.
    pub fn doors(&self, cgroup: &Path) -> io::Result<Vec<File>> {
        let open = |root: &PathBuf| {
            let path = root.join(cgroup).join("cgroup.procs");
            OpenOptions::new().write(true).open(&path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })
        };
        self.roots().map(open).collect()
    }

    /// Every process at or below the cgroup, in any hierarchy.
    pub fn members(&self, cgroup: &Path) -> BTreeSet<i32> {
        let directories = self.roots().flat_map(|root| tree(&root.join(cgroup)));
        let lists = directories
            .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok());
        lists
            .flat_map(|list| {
                list.lines()
                    .filter_map(|line| line.parse().ok())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// The cgroup's directories that exist, innermost first.
    pub fn directories(&self, cgroup: &Path) -> Vec<PathBuf> {
        let trees = self.roots().flat_map(|root| tree(&root.join(cgroup)));
        trees.collect()
    }

    /// Removes the cgroup from every hierarchy; the names of what is still in use.
    pub fn remove(&self, cgroup: &Path) -> Vec<PathBuf> {
        for directory in self.directories(cgroup) {
            let _ = fs::remove_dir(directory);
        }
        self.directories(cgroup)
    }
}

/// The directories from below the root down to the cgroup, outermost first.
fn descent(root: &Path, cgroup: &Path) -> Vec<PathBuf> {
    let mut path = root.to_path_buf();
    cgroup
        .iter()
        .map(|part| {
            path.push(part);
            path.clone()
        })
        .collect()
}

/// A directory and all below it, innermost first; nothing when it does not exist.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let children = entries.flatten().filter(is_directory);
    let mut all: Vec<PathBuf> = children.flat_map(|child| tree(&child.path())).collect();
    all.push(directory.to_path_buf());
    all
}

fn ensure_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io::Error::new(
            error.kind(),
            format!("cannot create cgroup {}: {error}", path.display()),
        )),
        _ => Ok(()),
    }
}

/// A cpuset of version 1 starts empty and refuses processes until it has processors and memory nodes.
fn inherit_cpuset(directory: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = directory.join(file);
        let Ok(value) = fs::read_to_string(&own) else {
            continue;
        };
        if value.trim().is_empty() {
            let parent = directory.parent().unwrap_or(directory).join(file);
            fs::write(&own, fs::read(parent)?)?;
        }
    }
    Ok(())
}

/// Hands the usual controllers down to the children. A controller that is not there, or that version 1
/// holds, can't be handed down: then limits are set through version 1, or not at all.
fn delegate(directory: &Path) {
    let available = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    let available: Vec<&str> = available.split_whitespace().collect();
    let control = directory.join("cgroup.subtree_control");
    for controller in CONTROLLERS.iter().filter(|name| available.contains(name)) {
        let written = OpenOptions::new()
            .write(true)
            .open(&control)
            .and_then(|mut file| file.write_all(format!("+{controller}").as_bytes()));
        if let Err(error) = written {
            tracing::debug!(cgroup = %directory.display(), controller, %error, "cannot hand down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descent_names_every_level() {
        let paths = descent(Path::new("/c"), Path::new("a/b"));
        assert_eq!(paths, [PathBuf::from("/c/a"), PathBuf::from("/c/a/b")]);
    }

    #[test]
    fn a_tree_lists_children_before_their_parent() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        let a = root.path().join("a");
        assert_eq!(tree(&a), [a.join("b"), a.clone()]);
        assert!(tree(&root.path().join("none")).is_empty());
    }
}
