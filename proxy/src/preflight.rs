//! What the machine must have, checked before anything is changed.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, FsType, statfs};

use crate::planner::Node;

/// The magic number of a BPF filesystem (linux/magic.h).
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// What is missing, and how to get it.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// Not root.
    #[error(
        "this needs root (CAP_BPF and CAP_NET_ADMIN); run it with sudo, or in a privileged container with hostNetwork"
    )]
    NotRoot,
    /// No bpf(2).
    #[error(
        "the kernel does not let us use BPF; it needs CONFIG_BPF_SYSCALL, Linux 6.6 or later, and no seccomp filter in between"
    )]
    NoBpf(#[source] io::Error),
    /// No BPF filesystem.
    #[error(
        "--bpf-root {path} is not on a BPF filesystem; mount one with: mount -t bpf bpf /sys/fs/bpf"
    )]
    NoBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// No cgroup2 hierarchy.
    #[error(
        "no cgroup2 hierarchy is mounted; mount one with: mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NoCgroup2,
    /// The given directory is none of cgroup2.
    #[error("--cgroup-path {path} is not a directory of a cgroup2 hierarchy")]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
    },
    /// The system does not tell about itself.
    #[error("cannot read {what}")]
    Read {
        /// What.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Checks rights, BPF, and the pins' file system.
///
/// # Errors
/// The first thing that is missing.
pub fn check(bpf_root: &Path) -> Result<(), PreflightError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(PreflightError::NotRoot);
    }
    bpf_works()?;
    if existing(bpf_root).is_some_and(|dir| is_on(dir, BPF_FS_MAGIC)) {
        return Ok(());
    }
    Err(PreflightError::NoBpffs {
        path: bpf_root.to_owned(),
    })
}

/// Lists the first loaded program: harmless, and refused where BPF cannot be used.
fn bpf_works() -> Result<(), PreflightError> {
    match aya::programs::loaded_programs().next() {
        Some(Err(error)) => Err(PreflightError::NoBpf(io::Error::other(error))),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// The cgroup2 directory whose processes' sockets are served: the given one, or the hierarchy's root.
///
/// # Errors
/// When there is none.
pub fn cgroup(given: Option<&Path>) -> Result<PathBuf, PreflightError> {
    if let Some(path) = given {
        return if is_on(path, CGROUP2_SUPER_MAGIC) && path.is_dir() {
            Ok(path.to_owned())
        } else {
            Err(PreflightError::NotCgroup2 {
                path: path.to_owned(),
            })
        };
    }
    let mounts =
        std::fs::read_to_string("/proc/mounts").map_err(|source| PreflightError::Read {
            what: "/proc/mounts",
            source,
        })?;
    cgroup2_mount(&mounts).ok_or(PreflightError::NoCgroup2)
}

fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let mut points = fields.filter(|fields| fields.get(2) == Some(&"cgroup2"));
    points.find_map(|fields| Some(PathBuf::from(fields.get(1)?)))
}

/// The devices to the outside: those that carry one of the Node's addresses or a default route.
///
/// # Errors
/// When the routing table cannot be read.
pub fn devices(local: &[(String, IpAddr)], node: &Node) -> Result<Vec<String>, PreflightError> {
    let read = |path: &'static str| match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(PreflightError::Read { what: path, source }),
    };
    let carriers = local
        .iter()
        .filter(|(_, addr)| node.addresses.contains(addr));
    let mut found: Vec<String> = carriers.map(|(name, _)| name.clone()).collect();
    found.extend(default_v4(&read("/proc/net/route")?));
    found.extend(default_v6(&read("/proc/net/ipv6_route")?));
    found.retain(|name| name != "lo");
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Interfaces of `/proc/net/route` with destination and mask zero.
fn default_v4(table: &str) -> Vec<String> {
    let rows = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let default =
        rows.filter(|row| row.get(1) == Some(&"00000000") && row.get(7) == Some(&"00000000"));
    default
        .filter_map(|row| row.first().map(ToString::to_string))
        .collect()
}

/// Interfaces of `/proc/net/ipv6_route` with a prefix of length zero and a gateway.
fn default_v6(table: &str) -> Vec<String> {
    let rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let default = rows.filter(|row| {
        row.get(1) == Some(&"00") && row.get(4).is_some_and(|hop| hop.contains(|c| c != '0'))
    });
    default
        .filter_map(|row| row.last().map(ToString::to_string))
        .collect()
}

fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|dir| dir.is_dir())
}

fn is_on(path: &Path, kind: FsType) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found_on_hybrid_machines() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0\n";
        assert_eq!(cgroup2_mount(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_mount("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn default_routes_name_their_devices() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
                  eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\n\
                  eth1\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\n";
        assert_eq!(default_v4(v4), ["eth0"]);
        let zero = "00000000000000000000000000000000";
        let hop = "fe800000000000000000000000000001";
        let v6 = format!(
            "{zero} 00 {zero} 00 {hop} 00000400 00000001 00000000 00000003     eth2\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(default_v6(&v6), ["eth2"]);
    }

    #[test]
    fn a_directory_on_another_file_system_is_no_bpf_root() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_on(
            existing(&dir.path().join("a/b")).unwrap(),
            BPF_FS_MAGIC
        ));
        assert!(matches!(
            cgroup(Some(dir.path())),
            Err(PreflightError::NotCgroup2 { .. })
        ));
    }
}
