//! What the machine must offer. All of it is asked before anything is changed, and each lack is one line
//! that says what is missing and how to get it.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::cgroups::Hierarchies;
use crate::images::Binaries;
use crate::layout::{BPFFS, Layout, Machine};
use crate::{links, mounts, netns, spawn};

/// What was asked for on the command line, as far as the machine has to provide it.
pub struct Wanted<'a> {
    /// The cluster.
    pub layout: &'a Layout,
    /// Port of the host's loopback.
    pub api_port: u16,
    /// Directory of the static binaries, if given.
    pub binaries: Option<&'a Path>,
}

/// One line per lack; empty when the cluster can be brought up.
pub fn check(wanted: &Wanted) -> Vec<String> {
    // Without root every other answer would be about missing permissions, not about the machine.
    if let Some(lack) = root() {
        return vec![lack];
    }
    let checks = [
        bpf(),
        bpffs(),
        cgroup2(),
        namespaces(),
        overlay(),
        binaries(wanted),
        port(wanted),
        foreign(wanted),
    ];
    let tools = TOOLS
        .iter()
        .filter_map(|(tool, package)| program(tool, package));
    checks.into_iter().flatten().chain(tools).collect()
}

/// Programs that are run, and the Debian packages that hold them.
const TOOLS: [(&str, &str); 3] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
];

fn root() -> Option<String> {
    (!nix::unistd::geteuid().is_root()).then(|| {
        "root is missing: namespaces, cgroups and BPF programs need it; run it with sudo".into()
    })
}

fn program(tool: &str, package: &str) -> Option<String> {
    find_program(tool)
        .is_none()
        .then(|| format!("{tool} is missing: apt-get install {package}"))
}

/// The program of that name on the search path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Loads the shortest XDP program there is.
fn bpf() -> Option<String> {
    let error = load_program().err()?;
    let advice = match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "the kernel was built without CONFIG_BPF_SYSCALL; boot a distribution's kernel"
        }
        Some(libc::EPERM) => {
            "this container or VM lacks CAP_BPF and CAP_NET_ADMIN; give it them, or run on the host"
        }
        _ => "a kernel of 6.6 or newer is needed",
    };
    Some(format!(
        "BPF is missing: loading an XDP program failed ({error}); {advice}"
    ))
}

fn load_program() -> io::Result<()> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_XDP: u32 = 6;
    /// The head of the kernel's `union bpf_attr` for this command; the rest counts as zero.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
    }
    // r0 = XDP_PASS; exit (an instruction is opcode, registers, 16-bit offset, 32-bit immediate).
    let program: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
    let load = Load {
        kind: BPF_PROG_TYPE_XDP,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // SAFETY: the attribute and what it points to live until the call returns; the size is its own.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const load,
            size_of::<Load>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just given to us.
    unsafe { libc::close(fd as i32) };
    Ok(())
}

fn bpffs() -> Option<String> {
    let present = mounts::is_mounted(Path::new(BPFFS), "bpf")
        || (knows_file_system("bpf") && Path::new(BPFFS).is_dir());
    (!present).then(|| format!("the BPF file system is missing: the kernel does not offer it at {BPFFS}; boot a kernel with CONFIG_BPF_SYSCALL"))
}

fn cgroup2() -> Option<String> {
    let found = Hierarchies::find().is_ok_and(|hierarchies| hierarchies.v2().is_some());
    (!found).then(|| {
        "cgroup2 is missing: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified".into()
    })
}

fn namespaces() -> Option<String> {
    let outcome = netns::on_scratch_namespace(links::probe);
    match outcome {
        Err(error) => Some(format!(
            "network namespaces are missing: unshare failed ({error}); the kernel needs CONFIG_NET_NS"
        )),
        Ok(Err(error)) => Some(format!(
            "bridge or veth links are missing: {error:#}; the kernel needs the modules bridge and veth"
        )),
        Ok(Ok(())) => None,
    }
}

fn overlay() -> Option<String> {
    (!knows_file_system("overlay")).then(|| "overlayfs is missing: modprobe overlay".into())
}

/// A file system whose module is not loaded yet shows up once something was asked of it.
fn knows_file_system(name: &str) -> bool {
    let listed = || {
        let text = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        text.lines()
            .any(|line| line.split_whitespace().last() == Some(name))
    };
    listed()
        || std::process::Command::new("modprobe")
            .arg(name)
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success() && listed())
}

fn binaries(wanted: &Wanted) -> Option<String> {
    Binaries::find(wanted.binaries).is_none().then(|| {
        "the static binaries echo and pause are missing: run `make up`, or build examples/echo and name its target directory with --static-dir".into()
    })
}

fn port(wanted: &Wanted) -> Option<String> {
    let own = spawn::pid_file(wanted.layout, Machine::Master, "master");
    if own.running().is_some() {
        return None;
    }
    let error = TcpListener::bind(("127.0.0.1", wanted.api_port)).err()?;
    Some(format!(
        "port {} of 127.0.0.1 is missing: {error}; choose another one with --api-port",
        wanted.api_port
    ))
}

/// Things of the cluster's name that no `up` of ours made, such as a cgroup called `docker`.
fn foreign(wanted: &Wanted) -> Option<String> {
    let layout = wanted.layout;
    if layout.state().exists() || layout.run().exists() {
        return None;
    }
    let taken = traces(layout).into_iter().next()?;
    Some(format!(
        "the name {:?} is missing: {taken} exists and is not known to be ours; choose another one with --name",
        layout.name()
    ))
}

/// What exists under the cluster's name outside its state and runtime directories.
pub fn traces(layout: &Layout) -> Vec<String> {
    let mut found = Vec::new();
    for name in layout.namespaces() {
        if netns::path(&name).exists() {
            found.push(format!("network namespace {name}"));
        }
    }
    let hierarchies = Hierarchies::find();
    let cgroups = hierarchies.map(|all| all.directories(Path::new(layout.name())));
    let unique: HashSet<PathBuf> = cgroups.unwrap_or_default().into_iter().collect();
    found.extend(
        unique
            .iter()
            .map(|path| format!("cgroup {}", path.display())),
    );
    if layout.pins().exists() {
        found.push(format!("pin directory {}", layout.pins().display()));
    }
    found
}
