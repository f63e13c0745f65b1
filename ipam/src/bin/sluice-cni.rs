//! The CNI plugin as a program of its own: small, and quick to start. See `sluice_ipam::plugin`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_ipam::plugin::main()
}
