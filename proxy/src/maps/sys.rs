//! The `bpf(2)` system call, as far as the agent needs it.
//!
//! aya reads the object file, creates the maps and loads the programs. What runs all the time (map
//! elements, batches) and what must not be tied to a process (links, pins) is here: few commands, each
//! with the one structure that the kernel documents for it (`union bpf_attr` in linux/bpf.h). The
//! kernel takes missing trailing fields as zero.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;

const PROG_TYPE_XDP: u32 = 6;

/// BPF_MAP_TYPE_HASH.
pub const MAP_TYPE_HASH: u32 = 1;
/// BPF_F_NO_PREALLOC.
pub const NO_PREALLOC: u32 = 1;

/// Runs a command. `attr` is the structure that it takes.
///
/// # Safety
/// Addresses in `attr` point at memory of the sizes that the command reads and writes there.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a live structure of the given size; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut T, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// Takes the descriptor that a command returned.
fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

#[repr(C)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    fn new(map: BorrowedFd<'_>, key: &[u8], value: u64) -> Self {
        Self {
            map_fd: raw(map),
            pad: 0,
            key: key.as_ptr() as u64,
            value,
            flags: 0,
        }
    }
}

/// Reads an element into `value`, whose length is the map's value size (times the number of possible
/// CPUs for per-CPU maps). `false`: it is not there.
pub fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attr = Element::new(map, key, value.as_mut_ptr() as u64);
    // SAFETY: key and value are live slices; callers size them by the map's definition.
    match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) } {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Adds or replaces an element.
pub fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = Element::new(map, key, value.as_ptr() as u64);
    // SAFETY: key and value are live slices; callers size them by the map's definition.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// Removes an element; one that is not there is no error.
pub fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    let mut attr = Element::new(map, key, 0);
    // SAFETY: key is a live slice, sized by the map's definition.
    match unsafe { bpf(MAP_DELETE_ELEM, &mut attr) } {
        Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(e),
        _ => Ok(()),
    }
}

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A place in a map between two batches: a bucket's number for hashes, a key for tries.
type Cursor = [u8; 32];

/// Elements asked for at once; a hash's bucket must fit in whole, and these hold one in practice.
const BATCH: usize = 4096;

/// Calls `each` with the key and the value of every element. Elements that come and go meanwhile may
/// or may not be seen.
pub fn for_each(
    map: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
    mut each: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let (mut keys, mut values) = (vec![0; BATCH * key_size], vec![0; BATCH * value_size]);
    let mut cursor: Cursor = [0; 32];
    let mut first = true;
    loop {
        let previous = cursor;
        let mut attr = Batch {
            in_batch: if first { 0 } else { previous.as_ptr() as u64 },
            out_batch: cursor.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH as u32,
            map_fd: raw(map),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: keys and values hold `count` elements; cursors are at least as long as any key here.
        let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
        let last = match result {
            Ok(_) => false,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => true,
            Err(e) => return Err(e),
        };
        let count = attr.count as usize;
        for (key, value) in keys
            .chunks_exact(key_size)
            .zip(values.chunks_exact(value_size))
            .take(count)
        {
            each(key, value);
        }
        if last {
            return Ok(());
        }
        first = false;
    }
}

#[repr(C)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// Creates a map that no program uses.
pub fn create_map(
    name: &str,
    map_type: u32,
    sizes: (usize, usize),
    max_entries: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = Create {
        map_type,
        key_size: sizes.0 as u32,
        value_size: sizes.1 as u32,
        max_entries,
        flags,
        inner_map_fd: 0,
        numa_node: 0,
        name: [0; 16],
    };
    for (to, from) in attr.name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the structure holds no addresses.
    unsafe { bpf(MAP_CREATE, &mut attr) }.map(owned)
}

#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens what is pinned at `path`.
pub fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = Object {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: the path is a live C string.
    unsafe { bpf(OBJ_GET, &mut attr) }.map(owned)
}

/// Pins `object` at `path`, which must not exist yet.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Object {
        path: path.as_ptr() as u64,
        fd: raw(object),
        flags: 0,
    };
    // SAFETY: the path is a live C string.
    unsafe { bpf(OBJ_PIN, &mut attr) }.map(drop)
}

#[repr(C)]
struct Info {
    fd: u32,
    len: u32,
    info: u64,
}

fn info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let address = std::ptr::from_mut(info) as u64;
    let mut attr = Info {
        fd: raw(object),
        len: size_of::<T>() as u32,
        info: address,
    };
    // SAFETY: the kernel writes at most `len` bytes of integers.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

/// What the kernel knows of a map: the beginning of `struct bpf_map_info`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MapInfo {
    /// BPF_MAP_TYPE_*.
    pub map_type: u32,
    /// Number that identifies the map.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Capacity.
    pub max_entries: u32,
    /// BPF_F_*.
    pub flags: u32,
}

/// What the kernel knows of this map.
pub fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut result = MapInfo::default();
    info(map, &mut result)?;
    Ok(result)
}

/// What the kernel knows of a link: the beginning of `struct bpf_link_info`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct LinkInfo {
    /// BPF_LINK_TYPE_*.
    pub link_type: u32,
    /// Number that identifies the link.
    pub id: u32,
    /// Number of the program that it runs.
    pub program: u32,
    pad: u32,
    /// A cgroup's id for cgroup links. For XDP and tcx the lower half is the interface's index; 0
    /// when the interface is gone.
    pub target: u64,
}

/// What the kernel knows of this link.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut result = LinkInfo::default();
    info(link, &mut result)?;
    Ok(result)
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    tcx: [u64; 2],
}

/// Attaches `program` to a cgroup's descriptor or an interface's index.
pub fn create_link(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        program: raw(program),
        target,
        attach_type,
        flags,
        tcx: [0; 2],
    };
    // SAFETY: the structure holds no addresses.
    unsafe { bpf(LINK_CREATE, &mut attr) }.map(owned)
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Makes `link` run `program` from now on, with no moment between.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate {
        link: raw(link),
        program: raw(program),
        flags: 0,
        old_program: 0,
    };
    // SAFETY: the structure holds no addresses.
    unsafe { bpf(LINK_UPDATE, &mut attr) }.map(drop)
}

#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// Loads the XDP program that passes every packet: `r0 = XDP_PASS; exit`.
pub fn load_pass_all() -> io::Result<OwnedFd> {
    const CODE: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
    let mut attr = ProgramLoad {
        program_type: PROG_TYPE_XDP,
        instructions: CODE.len() as u32,
        code: CODE.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
    };
    // SAFETY: code and licence are constants.
    unsafe { bpf(PROG_LOAD, &mut attr) }.map(owned)
}
