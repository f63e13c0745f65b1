//! Brings the dataplane into the kernel, and keeps it there.
//!
//! Everything lives in pins under one directory of a BPF filesystem, not in a process: [`start`] opens
//! or creates the maps, loads the programs of this build, and puts them on their hooks, on links that
//! are pinned too. A second start, of this version or a later one, finds the maps with all that is in
//! them and replaces the programs on the existing links: not one packet passes without a program. When
//! the agent ends, by whatever signal, traffic goes on. Only [`cleanup`] takes the dataplane away.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::maps::kernel::KernelMaps;
use crate::maps::{Capacity, MapError, sys};

mod attachment;
mod error;
mod host;
mod layout;
mod object;
pub(crate) mod pins;

pub use attachment::{Attachment, Hook, Mode};
pub use error::LoaderError;
pub use host::{memory_bytes, netns_cookie};

/// How north-south traffic is taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver; where it cannot, by the kernel's generic XDP.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// By the kernel's generic XDP.
    Generic,
    /// By the traffic-control hook.
    Off,
}

/// What [`start`] is to set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on a BPF filesystem for the pins.
    pub bpf_root: PathBuf,
    /// Directory on cgroup2 whose processes' sockets are served; `None`: no sockets are.
    pub cgroup: Option<PathBuf>,
    /// Names of the interfaces to the outside, in the current network namespace.
    pub devices: Vec<String>,
    /// How they take packets in.
    pub xdp_mode: XdpMode,
    /// Sizes for maps that are yet to be made. Maps that exist keep theirs.
    pub capacity: Capacity,
}

/// A running dataplane. Dropping it leaves everything as it is.
#[derive(Debug)]
pub struct Dataplane {
    /// The tables.
    pub maps: KernelMaps,
    /// What is attached where.
    pub attachments: Vec<Attachment>,
}

/// Sets the dataplane up, or takes it over from an earlier start.
///
/// Links of hooks that `options` does not ask for (any more) are taken away, last of all.
pub fn start(options: &Options) -> Result<Dataplane, LoaderError> {
    pins::prepare(&options.bpf_root)?;
    let mut programs = object::open(object::OBJECT, &options.bpf_root, options.capacity)?;
    let mut wanted = Vec::new();
    if let Some(cgroup) = &options.cgroup {
        attach_sockets(options, cgroup, &mut programs, &mut wanted)?;
    }
    for device in &options.devices {
        attach_device(options, device, &mut programs, &mut wanted)?;
    }
    let maps = KernelMaps::open(&options.bpf_root)?;
    pins::remove_links(&options.bpf_root, |pin| {
        wanted.iter().any(|w: &Attachment| w.pin == pin)
    })?;
    Ok(Dataplane {
        maps,
        attachments: wanted,
    })
}

fn attach_sockets(
    options: &Options,
    cgroup: &Path,
    programs: &mut object::Programs,
    done: &mut Vec<Attachment>,
) -> Result<(), LoaderError> {
    let dir = File::open(cgroup).map_err(|source| LoaderError::Cgroup {
        path: cgroup.to_owned(),
        source,
    })?;
    for hook in Hook::SOCKETS {
        let target = attachment::Target::cgroup(cgroup, dir.as_fd())?;
        done.push(attachment::attach(
            &options.bpf_root,
            *hook,
            &target,
            programs,
        )?);
    }
    Ok(())
}

fn attach_device(
    options: &Options,
    device: &str,
    programs: &mut object::Programs,
    done: &mut Vec<Attachment>,
) -> Result<(), LoaderError> {
    let target = attachment::Target::device(device)?;
    let root = &options.bpf_root;
    // The way back first: a translated packet must find it.
    done.push(attachment::attach(root, Hook::Egress, &target, programs)?);
    match options.xdp_mode {
        XdpMode::Off => done.push(attachment::attach(root, Hook::Ingress, &target, programs)?),
        mode => {
            done.push(attachment::attach(
                root,
                Hook::Unresolved,
                &target,
                programs,
            )?);
            done.push(attachment::attach_xdp(root, mode, &target, programs)?);
        }
    }
    Ok(())
}

/// Has the kernel verify every program of this build, and attaches none. Makes the maps, if they are
/// missing.
pub fn verify(bpf_root: &Path, capacity: Capacity) -> Result<(), LoaderError> {
    verify_object(object::OBJECT, bpf_root, capacity)
}

/// [`verify`], for the programs of another object file.
pub fn verify_object(
    object: &[u8],
    bpf_root: &Path,
    capacity: Capacity,
) -> Result<(), LoaderError> {
    pins::prepare(bpf_root)?;
    let mut programs = object::open(object, bpf_root, capacity)?;
    Hook::ALL
        .iter()
        .try_for_each(|hook| programs.of(*hook).map(drop))
}

/// What is attached under `bpf_root`, as the kernel tells; empty when nothing is.
pub fn status(bpf_root: &Path) -> Result<Vec<Attachment>, LoaderError> {
    attachment::list(bpf_root)
}

/// Takes everything away: programs from their hooks first, then the maps with all that they hold.
pub fn cleanup(bpf_root: &Path) -> Result<(), LoaderError> {
    pins::remove_links(bpf_root, |_| false)?;
    pins::remove_maps(bpf_root)
}

/// Puts a program that passes every packet on interface `name` of the current network namespace, on a
/// link pinned at `pin`; removing that file takes it off. One that is there already stays.
///
/// Frames that XDP sends out of a veth arrive only when its peer has some XDP program as well.
pub fn attach_pass_all(name: &str, pin: &Path) -> Result<(), LoaderError> {
    let index = host::interface_index(name)?;
    if let Ok(link) = sys::get(pin) {
        if sys::link_info(link.as_fd()).is_ok_and(|info| info.target as u32 == index) {
            return Ok(());
        }
        pins::remove(pin)?;
    }
    if let Some(dir) = pin.parent() {
        pins::make_dir(dir)?;
    }
    let fail = |source| LoaderError::Attach {
        hook: "xdp".to_owned(),
        target: name.to_owned(),
        source,
    };
    let program = sys::load_pass_all().map_err(fail)?;
    let link = attachment::create_xdp(program.as_fd(), index, Mode::Native).map_err(fail)?;
    sys::pin(link.as_fd(), pin).map_err(|source| LoaderError::Pin {
        path: pin.to_owned(),
        source,
    })
}

/// The descriptor as the number that the kernel's interface wants.
fn raw_fd(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// Maps could not be opened, by way of the tables' own error.
impl From<MapError> for LoaderError {
    fn from(source: MapError) -> Self {
        Self::Maps(source)
    }
}

/// Whether an error says that the link's target is gone.
fn is_defunct(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOLINK | libc::ENODEV | libc::ENOENT)
    )
}
