//! One subscriber for every part: plain lines on stderr, so that a supervisor or `sluice up` decides where they go.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG` wins over the verbosity, whose steps are those that operators of kubelet
/// and kube-proxy know: up to 3 is information, 4 and 5 debugging, everything above is traced. A command
/// that talks to its user itself only warns, unless it was asked for more.
pub fn init(verbosity: u8, for_people: bool) {
    let level = match verbosity {
        0..=2 if for_people => "warn",
        0..=3 => "info",
        4..=5 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
