//! The `sluice` command line: parses arguments, starts the part that was asked for, turns errors into exit codes.

mod command;
mod logging;

use std::process::ExitCode;

use clap::Parser;

use command::Cli;

fn main() -> ExitCode {
    if is_cni_plugin() {
        return sluice_ipam::plugin::main();
    }
    let cli = Cli::parse();
    logging::init(cli.verbosity, cli.command.is_for_people());
    let name = cli.command.name();
    // Fails only when a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match runtime().and_then(|runtime| runtime.block_on(cli.command.run())) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sluice {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A container runtime starts the plugin for every pod, several times: it gets by without an async
/// runtime and a command line parser.
fn is_cni_plugin() -> bool {
    let called_as = sluice_ipam::plugin::called_as;
    called_as("sluice-cni") || called_as("loopback") || std::env::args().skip(1).eq(["cni"])
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}
