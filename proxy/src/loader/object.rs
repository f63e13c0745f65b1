//! The eBPF object: its maps by their pins, its programs in the kernel.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use aya::programs::{CgroupSockAddr, Program, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use sluice_common::names;

use super::{Hook, LoaderError, layout, pins};
use crate::maps::kernel::NAME_LEN;
use crate::maps::{Capacity, sys};

/// The object of this build.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluice.bpf.o"));

/// The programs; those that are loaded live as long as this or a link does.
pub(super) struct Programs(Ebpf);

impl Programs {
    /// The program of a hook, loaded when it is first asked for.
    pub(super) fn of(&mut self, hook: Hook) -> Result<BorrowedFd<'_>, LoaderError> {
        let name = hook.program();
        let missing = || LoaderError::NoProgram { program: name };
        if self.0.program(name).ok_or_else(missing)?.fd().is_err() {
            load_program(&mut self.0, name)?;
        }
        let program = self.0.program(name).and_then(|program| program.fd().ok());
        Ok(program.ok_or_else(missing)?.as_fd())
    }
}

/// Opens an object over the maps pinned under `root`; makes and pins those that are missing.
pub(super) fn open(
    object: &[u8],
    root: &Path,
    capacity: Capacity,
) -> Result<Programs, LoaderError> {
    let dir = pins::maps_dir(root);
    prepare_names(&dir, capacity)?;
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for map in layout::maps(capacity) {
        map.check(&dir)?;
        loader.map_pin_path(map.name, dir.join(map.name));
        if let Some(entries) = map.entries {
            loader.map_max_entries(map.name, entries);
        }
    }
    loader
        .load(object)
        .map(Programs)
        .map_err(LoaderError::Object)
}

/// The map of names is no program's, so the object does not define it.
fn prepare_names(dir: &Path, capacity: Capacity) -> Result<(), LoaderError> {
    let path = dir.join(names::NAMES);
    if path.exists() {
        return Ok(());
    }
    let fail = |source| LoaderError::Pin {
        path: path.clone(),
        source,
    };
    let sizes = (size_of::<u32>(), NAME_LEN);
    let map = sys::create_map(
        names::NAMES,
        sys::MAP_TYPE_HASH,
        sizes,
        capacity.services,
        sys::NO_PREALLOC,
    );
    sys::pin(map.map_err(fail)?.as_fd(), &path).map_err(fail)
}

fn load_program(ebpf: &mut Ebpf, name: &'static str) -> Result<(), LoaderError> {
    let begun = Instant::now();
    let missing = || LoaderError::NoProgram { program: name };
    let loaded = match ebpf.program_mut(name).ok_or_else(missing)? {
        Program::Xdp(program) => Xdp::load(program),
        Program::SchedClassifier(program) => SchedClassifier::load(program),
        Program::CgroupSockAddr(program) => CgroupSockAddr::load(program),
        _ => return Err(missing()),
    };
    loaded.map_err(|source| LoaderError::Program {
        program: name,
        source,
    })?;
    log_load(ebpf, name, begun.elapsed());
    Ok(())
}

/// What the verifier had to do says early when a program grows out of hand.
fn log_load(ebpf: &Ebpf, name: &'static str, elapsed: Duration) {
    let Some(info) = ebpf.program(name).and_then(|p| p.info().ok()) else {
        return;
    };
    let (verified, bytes) = (info.verified_instruction_count(), info.size_translated());
    tracing::debug!(program = name, ?verified, ?bytes, ?elapsed, "loaded");
}
