//! The few bpf(2) commands that the bench needs beside the loader's: running programs on packets in memory,
//! and asking what programs and maps cost.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const MAP_CREATE: i32 = 0;
const MAP_LOOKUP: i32 = 1;
const PROG_LOAD: i32 = 5;
const OBJ_GET: i32 = 7;
const PROG_TEST_RUN: i32 = 10;
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO: i32 = 15;
const LINK_CREATE: i32 = 28;
const ATTACH_XDP: u32 = 37;
const XDP_DRIVER: u32 = 1 << 2;
const PROG_TYPE_XDP: u32 = 6;
const MAP_TYPE_LRU_HASH: u32 = 9;

fn bpf<T>(command: i32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a live structure of this size, whose addresses are of live buffers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut T, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A program by the kernel's number of it.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf(PROG_GET_FD_BY_ID, &mut [id, 0, 0]).map(owned)
}

/// A pinned object.
pub fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf(OBJ_GET, &mut [path.as_ptr() as u64, 0]).map(owned)
}

/// Reads a map's value into `value`, which has its size.
pub fn lookup(map: &OwnedFd, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    let fd = map.as_raw_fd() as u64;
    let mut attr = [fd, key.as_ptr() as u64, value.as_mut_ptr() as u64, 0];
    bpf(MAP_LOOKUP, &mut attr).map(drop)
}

/// The XDP program that does nothing: `r0 = XDP_PASS; exit`.
pub fn empty_program() -> io::Result<OwnedFd> {
    load(&[0x0000_0002_0000_00b7, 0x0000_0000_0000_0095])
}

/// An XDP program that puts one new entry with a random key into an LRU table of keys of 16 bytes and values
/// of 40: as little as remembering a new flow can cost.
pub fn inserting_program(entries: u32) -> io::Result<OwnedFd> {
    let mut attr = [MAP_TYPE_LRU_HASH, 16, 40, entries, 0, 0, 0, 0];
    let map = bpf(MAP_CREATE, &mut attr).map(owned)?;
    let fd = map.as_raw_fd() as u64;
    // *(u64 *)(stack + offset) = 0
    let store_zero = |offset: i16| 0x0a7a | u64::from(offset as u16) << 16;
    let mut code = vec![
        0x0000_0007_0000_0085,
        random_to(-16),
        0x0000_0007_0000_0085,
        random_to(-12),
    ];
    code.extend([-8, -56, -48, -40, -32, -24].map(store_zero));
    code.extend([
        // r1 = map
        fd << 32 | 0x1118,
        0,
        // r2 = stack - 16; r3 = stack - 56; r4 = BPF_NOEXIST
        0x0000_0000_0000_a2bf,
        0xffff_fff0_0000_0207,
        0x0000_0000_0000_a3bf,
        0xffff_ffc8_0000_0307,
        0x0000_0001_0000_04b7,
        // call map_update_elem; r0 = XDP_PASS; exit
        0x0000_0002_0000_0085,
        0x0000_0002_0000_00b7,
        0x0000_0000_0000_0095,
    ]);
    load(&code)
}

/// `*(u32 *)(stack + offset) = r0`.
const fn random_to(offset: i16) -> u64 {
    0x0a63 | (offset as u16 as u64) << 16
}

fn load(code: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        code: u64,
        license: u64,
    }
    let mut attr = Load {
        kind: PROG_TYPE_XDP,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
    };
    bpf(PROG_LOAD, &mut attr).map(owned)
}

/// Attaches an XDP program to an interface of this namespace, for as long as the link is held.
///
/// Programs that are attached somewhere are called directly, and the kernel need not patch its call sites for
/// each test run, which takes it milliseconds.
pub fn attach_xdp(program: &OwnedFd, device: &str) -> io::Result<OwnedFd> {
    let name = CString::new(device)?;
    // SAFETY: a live C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    let mut attr = [0u32; 8];
    attr[..4].copy_from_slice(&[program.as_raw_fd() as u32, index, ATTACH_XDP, XDP_DRIVER]);
    bpf(LINK_CREATE, &mut attr).map(owned)
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    rest: [u64; 6],
}

/// What a program did with a packet.
pub struct Ran {
    /// `XDP_*`, of the last repetition.
    pub verdict: u32,
    /// Nanoseconds per repetition, as the kernel tells: whole ones.
    pub nanos: u32,
    /// The frame after the last repetition.
    pub frame: Vec<u8>,
}

/// Runs a program `repeat` times on a frame. The kernel does not put the frame back in between.
pub fn run(program: &OwnedFd, frame: &[u8], repeat: u32) -> io::Result<Ran> {
    let mut out = vec![0u8; frame.len() + 256];
    let mut attr = TestRun {
        program: program.as_raw_fd() as u32,
        size_in: frame.len() as u32,
        size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat,
        ..TestRun::default()
    };
    bpf(PROG_TEST_RUN, &mut attr)?;
    out.truncate(attr.size_out as usize);
    Ok(Ran {
        frame: out,
        verdict: attr.result,
        nanos: attr.duration,
    })
}

/// A program's size.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Instructions after translation.
    pub instructions: u32,
    /// Instructions that the verifier walked.
    pub verified: u32,
    /// Bytes of machine code.
    pub machine_code: u32,
}

/// How big a program is (`struct bpf_prog_info`).
pub fn size(program: &OwnedFd) -> io::Result<Size> {
    let mut info = [0u32; 58];
    #[repr(C)]
    struct Ask {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut attr = Ask {
        fd: program.as_raw_fd() as u32,
        len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    bpf(OBJ_GET_INFO, &mut attr)?;
    Ok(Size {
        instructions: info[5] / 8,
        verified: info[54],
        machine_code: info[4],
    })
}

/// Bytes of kernel memory behind the maps pinned in `dir`, by name.
pub fn map_memory(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let map = pinned(&path)?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
        let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
        let bytes = line
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        all.push((name.into_owned(), bytes));
    }
    all.sort();
    Ok(all)
}
