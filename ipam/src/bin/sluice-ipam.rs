//! Pod addresses without the rest of Sluice: the daemon and its command line. Called by a name of the CNI
//! plugin, it is the plugin, which it installs when `sluice-cni` is not beside it.

use std::process::ExitCode;

use clap::Parser;
use sluice_ipam::{cli, plugin};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    if plugin::called_as("sluice-cni") || plugin::called_as("loopback") {
        return plugin::main();
    }
    let args = cli::Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-ipam: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: cli::Args) -> anyhow::Result<()> {
    // Fails only where a provider was installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(cli::run(args))
}
