//! What can go wrong when the dataplane is set up.

use std::io;
use std::path::PathBuf;

use crate::maps::MapError;

/// The dataplane could not be set up or taken away. What was attached before stays attached.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// The pins' directory is not on a BPF filesystem.
    #[error("{path} is not on a BPF filesystem; mount one: mount -t bpf bpf /sys/fs/bpf")]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// A directory or pin could not be made, read or removed.
    #[error("cannot use pin {path}")]
    Pin {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The cgroup for the socket hooks cannot be used.
    #[error("cannot open cgroup {path}; it must be a directory of a cgroup2 hierarchy")]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// There is no such interface in this network namespace.
    #[error("no interface {name} in this network namespace")]
    NoInterface {
        /// Its name.
        name: String,
    },
    /// A pinned map is not what this version writes.
    #[error(
        "pinned map {map} has {found}, this version needs {expected}; `sluice proxy --cleanup` removes it, with all flows"
    )]
    Incompatible {
        /// The map's name.
        map: &'static str,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The object file cannot be used: its maps could not be made, or it is broken.
    #[error("cannot load the eBPF object")]
    Object(#[source] aya::EbpfError),
    /// The kernel did not accept a program.
    #[error("the kernel does not accept program {program}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// The verifier's words are in here.
        #[source]
        source: aya::programs::ProgramError,
    },
    /// The object file lacks a program: it was built from other sources.
    #[error("the eBPF object has no program {program}")]
    NoProgram {
        /// The program's name.
        program: &'static str,
    },
    /// A program could not be put on its hook.
    #[error("cannot attach to {hook} of {target}")]
    Attach {
        /// The hook.
        hook: String,
        /// The interface or cgroup.
        target: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The node does not tell something about itself.
    #[error("cannot find out {what}")]
    Host {
        /// What was asked.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A map could not be used.
    #[error(transparent)]
    Maps(MapError),
}
