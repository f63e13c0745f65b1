//! What the datapath's tests share: pins, machines in network namespaces, tables, sockets.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use sluice_proxy::loader::{self, Dataplane, Options, XdpMode};
use sluice_proxy::maps::Capacity;

pub mod cgroup;
pub mod echo;
pub mod machine;
pub mod packet;
pub mod tables;
pub mod world;

/// An error with all its causes, for a failing test's message.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A name that no other test, process or run uses.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("dp{}-{number}-{what}", std::process::id())
}

/// A directory of pins; the dataplane in it is taken away at the end.
pub struct Pins(pub PathBuf);

impl Pins {
    pub fn new(what: &str) -> Self {
        Self(PathBuf::from("/sys/fs/bpf").join(unique(what)))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = loader::cleanup(&self.0) {
            eprintln!("cleaning up {}: {}", self.0.display(), chain(&error));
        }
    }
}

/// Small tables.
pub fn capacity() -> Capacity {
    Capacity {
        frontends: 1024,
        services: 256,
        backends: 1024,
        counted_backends: 1024,
        slots: 4096,
        maglev: 16384,
        flows: 8192,
        affinity: 1024,
        cidrs: 64,
        source_ranges: 64,
    }
}

/// A dataplane with nothing attached.
pub fn options(pins: &Pins) -> Options {
    Options {
        bpf_root: pins.0.clone(),
        cgroup: None,
        devices: Vec::new(),
        xdp_mode: XdpMode::Auto,
        capacity: capacity(),
    }
}

/// Starts a dataplane in the current network namespace, or fails the test with all causes.
pub fn start(options: &Options) -> Dataplane {
    loader::start(options).unwrap_or_else(|error| panic!("{}", chain(&error)))
}
