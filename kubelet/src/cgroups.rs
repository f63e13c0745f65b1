//! Pod cgroups: `kubepods`, `kubepods/burstable` and `kubepods/besteffort` under `--cgroup-root`, and one directory
//! a pod, in every cgroup v1 hierarchy and in cgroup v2 (the cgroupfs driver). The runtime puts containers below.

use std::path::{Path, PathBuf};

use crate::pods::qos::QosClass;
use crate::pods::resources::{self, PodResources};

/// Why a cgroup could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}: {source}")]
pub struct Error {
    what: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error { what, path, source }
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// v1: the controllers bound to it. v2: empty.
    controllers: Vec<String>,
    unified: bool,
}

/// The cgroups of this node's pods.
#[derive(Clone, Debug)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    /// Path of `kubepods` from the root of each hierarchy.
    kubepods: String,
}

impl Cgroups {
    /// Pods' cgroups below `root` (such as `/` or `/sluice/node1`), in the hierarchies that are mounted.
    ///
    /// # Errors
    /// When no cgroup hierarchy is mounted.
    pub fn new(root: &str) -> Result<Self, Error> {
        let table = Path::new("/proc/self/mounts");
        let text = std::fs::read_to_string(table).map_err(io("cannot read", table))?;
        let hierarchies = parse_mounts(&text);
        if hierarchies.is_empty() {
            let source = std::io::Error::other("no cgroup hierarchy is mounted (see cgroups(7))");
            return Err(io("cannot use", Path::new("/sys/fs/cgroup"))(source));
        }
        Ok(Self {
            hierarchies,
            kubepods: format!("{}/kubepods", root.trim_end_matches('/')),
        })
    }

    /// Path of a pod's cgroup from the root of each hierarchy: what the runtime is told.
    pub fn pod(&self, class: QosClass, uid: &str) -> String {
        format!("{}/pod{uid}", self.class(class))
    }

    fn class(&self, class: QosClass) -> String {
        match class {
            QosClass::Guaranteed => self.kubepods.clone(),
            QosClass::Burstable => format!("{}/burstable", self.kubepods),
            QosClass::BestEffort => format!("{}/besteffort", self.kubepods),
        }
    }

    /// Makes the directories of the three classes. `cpus` is the number of CPUs that pods may use, in thousandths.
    ///
    /// # Errors
    /// When a directory can't be made.
    pub fn create_classes(&self, cpus: i64) -> Result<(), Error> {
        let all = PodResources {
            cpu_request: cpus,
            ..PodResources::default()
        };
        self.create(&self.kubepods.clone(), &all)?;
        self.create(&self.class(QosClass::Burstable), &PodResources::default())?;
        self.create(&self.class(QosClass::BestEffort), &PodResources::default())
    }

    /// Gives the burstable class the CPU weight of its pods' requests together, in thousandths.
    pub fn weigh_burstable(&self, cpu_request: i64) -> Result<(), Error> {
        self.create(
            &self.class(QosClass::Burstable),
            &PodResources {
                cpu_request,
                ..PodResources::default()
            },
        )
    }

    /// Makes the cgroup of a pod and sets its limits. Idempotent.
    ///
    /// # Errors
    /// When a directory can't be made or a limit not be set.
    pub fn create_pod(
        &self,
        class: QosClass,
        uid: &str,
        limits: &PodResources,
    ) -> Result<(), Error> {
        self.create(&self.pod(class, uid), limits)
    }

    fn create(&self, path: &str, limits: &PodResources) -> Result<(), Error> {
        for hierarchy in &self.hierarchies {
            if hierarchy.unified {
                hierarchy.create_unified(path, limits)?;
            } else {
                hierarchy.create_v1(path, limits)?;
            }
        }
        Ok(())
    }

    /// Removes a pod's cgroup from all hierarchies. Idempotent.
    ///
    /// # Errors
    /// When processes are left in it.
    pub fn remove_pod(&self, uid: &str) -> Result<(), Error> {
        for class in [
            QosClass::Guaranteed,
            QosClass::Burstable,
            QosClass::BestEffort,
        ] {
            let path = self.pod(class, uid);
            for hierarchy in &self.hierarchies {
                remove_tree(&hierarchy.directory(&path))?;
            }
        }
        Ok(())
    }

    /// Uids of pods that have a cgroup.
    pub fn pods(&self) -> Vec<String> {
        let classes = [
            QosClass::Guaranteed,
            QosClass::Burstable,
            QosClass::BestEffort,
        ];
        let directories = classes.iter().flat_map(|class| {
            let path = self.class(*class);
            self.hierarchies
                .iter()
                .map(move |hierarchy| hierarchy.directory(&path))
        });
        let names = directories
            .filter_map(|directory| std::fs::read_dir(directory).ok())
            .flatten()
            .flatten();
        let names = names.filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("pod")
                .map(str::to_owned)
        });
        let unique: std::collections::BTreeSet<_> = names.collect();
        unique.into_iter().collect()
    }
}

impl Hierarchy {
    fn directory(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|known| known == controller)
    }

    fn create_v1(&self, path: &str, limits: &PodResources) -> Result<(), Error> {
        // The runtime makes the rest itself (cpuset needs its parents' CPUs copied, which it does).
        if !self.has("cpu") && !self.has("memory") && !self.has("pids") {
            return Ok(());
        }
        let directory = self.directory(path);
        std::fs::create_dir_all(&directory).map_err(io("cannot create cgroup", &directory))?;
        if self.has("cpu") {
            set(
                &directory.join("cpu.shares"),
                resources::cpu_shares(limits.cpu_request),
            )?;
            let quota = limits.cpu_limit.map_or(-1, resources::cpu_quota);
            set_if_there(&directory.join("cpu.cfs_quota_us"), quota)?;
        }
        if let Some(bytes) = limits.memory_limit.filter(|_| self.has("memory")) {
            set(&directory.join("memory.limit_in_bytes"), bytes)?;
        }
        Ok(())
    }

    fn create_unified(&self, path: &str, limits: &PodResources) -> Result<(), Error> {
        let directory = self.directory(path);
        std::fs::create_dir_all(&directory).map_err(io("cannot create cgroup", &directory))?;
        self.delegate(path);
        set_if_there(
            &directory.join("cpu.weight"),
            weight(resources::cpu_shares(limits.cpu_request)),
        )?;
        if let Some(milli) = limits.cpu_limit {
            let text = format!("{} {}", resources::cpu_quota(milli), resources::CPU_PERIOD);
            set_if_there(&directory.join("cpu.max"), text)?;
        }
        if let Some(bytes) = limits.memory_limit {
            set_if_there(&directory.join("memory.max"), bytes)?;
        }
        Ok(())
    }

    /// Hands the controllers that exist down to `path`. A controller that can't be had (it is bound to a v1
    /// hierarchy, or processes live in between) is left out: the limits it would set are then not enforced.
    fn delegate(&self, path: &str) {
        let mut directory = self.mount.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
                let _ = std::fs::write(
                    directory.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                );
            }
            directory.push(part);
        }
        for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
            let _ = std::fs::write(
                directory.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
    }
}

/// cgroup v2's weight (1 to 10000) for v1 shares (2 to 262144), as the runtime converts them.
fn weight(shares: i64) -> i64 {
    1 + ((shares - 2) * 9999) / 262_142
}

fn set(file: &Path, value: impl ToString) -> Result<(), Error> {
    std::fs::write(file, value.to_string()).map_err(io("cannot write", file))
}

/// Files of a controller that is not delegated are absent.
fn set_if_there(file: &Path, value: impl ToString) -> Result<(), Error> {
    if file.exists() {
        set(file, value)
    } else {
        Ok(())
    }
}

fn remove_tree(directory: &Path) -> Result<(), Error> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        remove_tree(&entry.path())?;
    }
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io("cannot remove cgroup", directory)(error))
        }
        _ => Ok(()),
    }
}

/// Cgroup mounts in the format of /proc/mounts.
fn parse_mounts(text: &str) -> Vec<Hierarchy> {
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Hierarchy> {
    let mut fields = line.split(' ').skip(1);
    let (mount, kind, options) = (
        PathBuf::from(fields.next()?),
        fields.next()?,
        fields.next()?,
    );
    match kind {
        "cgroup2" => Some(Hierarchy {
            mount,
            controllers: Vec::new(),
            unified: true,
        }),
        "cgroup" => {
            let generic = ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "xattr"];
            let controllers = options
                .split(',')
                .filter(|option| !generic.contains(option))
                .map(str::to_owned);
            Some(Hierarchy {
                mount,
                controllers: controllers.collect(),
                unified: false,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_the_mount_table() {
        let text = "proc /proc proc rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\nshort line";
        let found = parse_mounts(text);
        assert_eq!(found.len(), 3);
        assert!(found[0].has("cpu") && found[0].has("cpuacct") && !found[0].unified);
        assert!(found[2].unified);
    }

    #[test]
    fn paths_follow_root_and_class() {
        let at = |root: &str| Cgroups {
            hierarchies: vec![],
            kubepods: format!("{}/kubepods", root.trim_end_matches('/')),
        };
        assert_eq!(at("/").pod(QosClass::Guaranteed, "u"), "/kubepods/podu");
        assert_eq!(
            at("/a/b").pod(QosClass::BestEffort, "u"),
            "/a/b/kubepods/besteffort/podu"
        );
        assert_eq!(
            at("/a/").pod(QosClass::Burstable, "u"),
            "/a/kubepods/burstable/podu"
        );
    }

    #[test]
    fn weights_span_their_range() {
        assert_eq!([weight(2), weight(1024), weight(262_144)], [1, 39, 10_000]);
    }

    #[test]
    fn limits_are_written_and_trees_removed() {
        let mount = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy {
            mount: mount.path().into(),
            controllers: vec!["cpu".into(), "memory".into()],
            unified: false,
        };
        let cgroups = Cgroups {
            hierarchies: vec![hierarchy],
            kubepods: "/x/kubepods".into(),
        };
        let limits = PodResources {
            cpu_request: 500,
            cpu_limit: Some(1000),
            memory_limit: Some(1 << 20),
        };
        cgroups
            .create_pod(QosClass::Burstable, "u", &limits)
            .unwrap();
        let directory = mount.path().join("x/kubepods/burstable/podu");
        assert_eq!(
            std::fs::read_to_string(directory.join("cpu.shares")).unwrap(),
            "512"
        );
        assert_eq!(
            std::fs::read_to_string(directory.join("memory.limit_in_bytes")).unwrap(),
            "1048576"
        );
        assert_eq!(cgroups.pods(), ["u"]);
    }
}
