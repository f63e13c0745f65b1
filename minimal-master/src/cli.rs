//! `sluice master`: its arguments, and the subcommands that hand out certificates.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use sluice_apiserver::pki::cli::{KubeconfigArgs, ServingCertArgs};

use crate::{process, settings::Settings};

/// Run a master: API server, store, scheduler and controllers.
#[derive(ClapArgs, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// File of settings in YAML, with the same keys as the flags; flags win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Write a kubeconfig with a new client certificate of this master's authority
    Kubeconfig(KubeconfigArgs),
    /// Write a serving certificate of this master's authority, such as for a kubelet
    ServingCert(ServingCertArgs),
}

/// Runs the master until SIGTERM or SIGINT, or the subcommand.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Some(Command::Kubeconfig(args)) => args.run(),
        Some(Command::ServingCert(args)) => args.run(),
        None => {
            let file = args
                .config
                .as_deref()
                .map(Settings::read)
                .transpose()?
                .unwrap_or_default();
            process::run(args.settings.or(file)).await
        }
    }
}
