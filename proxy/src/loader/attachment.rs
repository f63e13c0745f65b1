//! Programs on their hooks, by pinned links.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::object::Programs;
use super::{LoaderError, XdpMode, host, is_defunct, pins, raw_fd};
use crate::maps::sys;

/// A place in the kernel where one of the programs runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// connect over IPv4.
    Connect4,
    /// connect over IPv6.
    Connect6,
    /// sendmsg of unconnected UDP over IPv4.
    Sendmsg4,
    /// sendmsg of unconnected UDP over IPv6.
    Sendmsg6,
    /// recvmsg of UDP over IPv4.
    Recvmsg4,
    /// recvmsg of UDP over IPv6.
    Recvmsg6,
    /// getpeername over IPv4.
    Getpeername4,
    /// getpeername over IPv6.
    Getpeername6,
    /// Frames that an interface takes in, at XDP.
    Xdp,
    /// Frames that an interface takes in, where XDP is off.
    Ingress,
    /// Frames that XDP left for want of a neighbour.
    Unresolved,
    /// Frames that leave an interface.
    Egress,
}

impl Hook {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Connect4,
        Self::Connect6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::Recvmsg4,
        Self::Recvmsg6,
        Self::Getpeername4,
        Self::Getpeername6,
        Self::Xdp,
        Self::Ingress,
        Self::Unresolved,
        Self::Egress,
    ];

    /// Those of a cgroup. What asks for names comes first: a socket that was pointed elsewhere must
    /// always find its peer's name.
    pub const SOCKETS: &[Self] = &[
        Self::Recvmsg4,
        Self::Recvmsg6,
        Self::Getpeername4,
        Self::Getpeername6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::Connect4,
        Self::Connect6,
    ];

    /// The program's name in the object.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Connect4 => "sock_connect4",
            Self::Connect6 => "sock_connect6",
            Self::Sendmsg4 => "sock_sendmsg4",
            Self::Sendmsg6 => "sock_sendmsg6",
            Self::Recvmsg4 => "sock_recvmsg4",
            Self::Recvmsg6 => "sock_recvmsg6",
            Self::Getpeername4 => "sock_getpeername4",
            Self::Getpeername6 => "sock_getpeername6",
            Self::Xdp => "uplink_xdp",
            Self::Ingress => "uplink_ingress",
            Self::Unresolved => "uplink_unresolved",
            Self::Egress => "uplink_egress",
        }
    }

    /// Name of the hook, for people and for pins. The two programs of the traffic-control entrance
    /// share one: a link is theirs in turn.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::Recvmsg4 => "recvmsg4",
            Self::Recvmsg6 => "recvmsg6",
            Self::Getpeername4 => "getpeername4",
            Self::Getpeername6 => "getpeername6",
            Self::Xdp => "xdp",
            Self::Ingress | Self::Unresolved => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The kernel's number of the hook (`enum bpf_attach_type`).
    const fn attach_type(self) -> u32 {
        match self {
            Self::Connect4 => 10,
            Self::Connect6 => 11,
            Self::Sendmsg4 => 14,
            Self::Sendmsg6 => 15,
            Self::Recvmsg4 => 19,
            Self::Recvmsg6 => 20,
            Self::Getpeername4 => 29,
            Self::Getpeername6 => 30,
            Self::Xdp => 37,
            Self::Ingress | Self::Unresolved => 46,
            Self::Egress => 47,
        }
    }
}

/// How an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's generic code, after the driver.
    Generic,
}

impl Mode {
    /// `XDP_FLAGS_DRV_MODE`, `XDP_FLAGS_SKB_MODE`.
    const fn flag(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// A program on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the hook, as [`Hook::name`]; with XDP's mode behind a dash.
    pub hook: String,
    /// The interface's name, or empty for cgroups.
    pub device: String,
    /// The link's pin.
    pub pin: PathBuf,
    /// The kernel's number of the program.
    pub program: u32,
    /// The cgroup's id or the interface's index; 0: it is gone, and the link with it does nothing.
    pub target: u64,
}

/// What a program is attached to.
pub(super) struct Target<'a> {
    /// For pins: the interface's name, or empty.
    device: &'a str,
    /// For errors.
    description: String,
    /// As links tell it: a cgroup's id, an interface's index.
    id: u64,
    /// As `BPF_LINK_CREATE` takes it: a cgroup's descriptor, an interface's index.
    handle: u32,
}

impl<'a> Target<'a> {
    /// A cgroup, open as `dir`, which must stay open.
    pub(super) fn cgroup(path: &Path, dir: BorrowedFd<'_>) -> Result<Self, LoaderError> {
        let metadata = std::fs::metadata(path);
        let metadata = metadata.map_err(|source| LoaderError::Cgroup {
            path: path.to_owned(),
            source,
        })?;
        // A cgroup2 directory's inode number is the cgroup's id.
        let (id, handle) = (metadata.ino(), raw_fd(dir));
        Ok(Self {
            device: "",
            description: path.display().to_string(),
            id,
            handle,
        })
    }

    /// An interface of the current network namespace.
    pub(super) fn device(name: &'a str) -> Result<Self, LoaderError> {
        let index = host::interface_index(name)?;
        Ok(Self {
            device: name,
            description: name.to_owned(),
            id: index.into(),
            handle: index,
        })
    }

    fn pin(&self, root: &Path, hook: &str) -> PathBuf {
        let dir = pins::links_dir(root);
        // A BPF filesystem takes no dots in names; interfaces (VLANs) may have them.
        let device = self.device.replace('.', "@");
        if device.is_empty() {
            dir.join(hook)
        } else {
            dir.join(format!("{hook}-{device}"))
        }
    }
}

/// Puts the hook's program on `target`: on the pinned link where there is one, else on a new one.
pub(super) fn attach(
    root: &Path,
    hook: Hook,
    target: &Target<'_>,
    programs: &mut Programs,
) -> Result<Attachment, LoaderError> {
    let program = programs.of(hook)?;
    let create = || sys::create_link(program, target.handle, hook.attach_type(), 0);
    ensure(root, hook.name(), target, program, create)
}

/// Puts the XDP program on an interface, in the mode asked for or the best that it can.
pub(super) fn attach_xdp(
    root: &Path,
    mode: XdpMode,
    target: &Target<'_>,
    programs: &mut Programs,
) -> Result<Attachment, LoaderError> {
    let modes: &[Mode] = match mode {
        XdpMode::Native => &[Mode::Native],
        XdpMode::Generic => &[Mode::Generic],
        XdpMode::Auto | XdpMode::Off => &[Mode::Native, Mode::Generic],
    };
    let program = programs.of(Hook::Xdp)?;
    drop_other_modes(root, modes, target)?;
    let mut result = None;
    for mode in modes {
        let hook = format!("xdp-{}", mode.name());
        let create = || create_xdp(program, target.handle, *mode);
        match ensure(root, &hook, target, program, create) {
            Ok(done) => return Ok(done),
            Err(error) => result = Some(error),
        }
    }
    Err(result.unwrap_or_else(|| LoaderError::NoInterface {
        name: target.description.clone(),
    }))
}

/// An interface has one XDP program: one in a mode that is not asked for makes room.
fn drop_other_modes(root: &Path, wanted: &[Mode], target: &Target<'_>) -> Result<(), LoaderError> {
    for mode in [Mode::Native, Mode::Generic] {
        if !wanted.contains(&mode) {
            pins::remove(&target.pin(root, &format!("xdp-{}", mode.name())))?;
        }
    }
    Ok(())
}

/// Attaches an XDP program to the interface with this index.
pub(super) fn create_xdp(program: BorrowedFd<'_>, index: u32, mode: Mode) -> io::Result<OwnedFd> {
    sys::create_link(program, index, Hook::Xdp.attach_type(), mode.flag())
}

/// Makes the link pinned for `hook` and `target` run `program`, creating it if it is missing or if its
/// target has been replaced.
fn ensure(
    root: &Path,
    hook: &str,
    target: &Target<'_>,
    program: BorrowedFd<'_>,
    create: impl FnOnce() -> io::Result<OwnedFd>,
) -> Result<Attachment, LoaderError> {
    let pin = target.pin(root, hook);
    if !take_over(&pin, target, program)? {
        let fail = |source| attach_error(hook, target, source);
        let link = create().map_err(fail)?;
        sys::pin(link.as_fd(), &pin).map_err(|source| LoaderError::Pin {
            path: pin.clone(),
            source,
        })?;
    }
    describe(&pin)
}

/// Replaces the program on a pinned link. `false`: there is none (any more) for this target.
fn take_over(
    pin: &Path,
    target: &Target<'_>,
    program: BorrowedFd<'_>,
) -> Result<bool, LoaderError> {
    let Ok(link) = sys::get(pin) else {
        return Ok(false);
    };
    let info = sys::link_info(link.as_fd()).map_err(|source| LoaderError::Pin {
        path: pin.to_owned(),
        source,
    })?;
    if target_of(&info) == target.id {
        match sys::update_link(link.as_fd(), program) {
            Ok(()) => return Ok(true),
            Err(error) if is_defunct(&error) => {}
            Err(error) => return Err(attach_error("a pinned link", target, error)),
        }
    }
    pins::remove(pin)?;
    Ok(false)
}

/// `BPF_LINK_TYPE_CGROUP`; only such links have 64-bit targets.
const LINK_TYPE_CGROUP: u32 = 3;

fn target_of(info: &sys::LinkInfo) -> u64 {
    if info.link_type == LINK_TYPE_CGROUP {
        info.target
    } else {
        u64::from(info.target as u32)
    }
}

fn attach_error(hook: &str, target: &Target<'_>, source: io::Error) -> LoaderError {
    LoaderError::Attach {
        hook: hook.to_owned(),
        target: target.description.clone(),
        source,
    }
}

/// What the link pinned at `pin` does.
fn describe(pin: &Path) -> Result<Attachment, LoaderError> {
    let fail = |source| LoaderError::Pin {
        path: pin.to_owned(),
        source,
    };
    let link = sys::get(pin).map_err(fail)?;
    let info = sys::link_info(link.as_fd()).map_err(fail)?;
    let name = pin
        .file_name()
        .map(|name| name.to_string_lossy().replace('@', "."));
    let (hook, device) = split_name(name.as_deref().unwrap_or_default());
    Ok(Attachment {
        hook,
        device,
        pin: pin.to_owned(),
        program: info.program,
        target: target_of(&info),
    })
}

/// Splits a pin's name into the hook and the device.
fn split_name(name: &str) -> (String, String) {
    for hook in ["xdp-native", "xdp-generic", "ingress", "egress"] {
        if let Some(device) = name
            .strip_prefix(hook)
            .and_then(|rest| rest.strip_prefix('-'))
        {
            return (hook.to_owned(), device.to_owned());
        }
    }
    (name.to_owned(), String::new())
}

/// All links under `root`.
pub(super) fn list(root: &Path) -> Result<Vec<Attachment>, LoaderError> {
    let mut all = pins::links(root)?
        .iter()
        .map(|pin| describe(pin))
        .collect::<Result<Vec<_>, _>>()?;
    all.sort_by(|a, b| (&a.device, &a.hook).cmp(&(&b.device, &b.hook)));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pins_name_tells_hook_and_device() {
        let split = |name| split_name(name);
        assert_eq!(split("connect4"), ("connect4".into(), String::new()));
        assert_eq!(
            split("xdp-native-eth0"),
            ("xdp-native".into(), "eth0".into())
        );
        assert_eq!(
            split("egress-bond-1.7"),
            ("egress".into(), "bond-1.7".into())
        );
    }
}
