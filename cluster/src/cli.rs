//! `sluice up`, `sluice down` and `sluice status`.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};

use crate::layout::Layout;
use crate::{down, status, up};

/// Which cluster is meant.
#[derive(Args, Debug)]
pub struct Name {
    /// Name of the cluster; namespaces, cgroups, directories and pins are named after it
    #[arg(long, default_value = "sluice")]
    pub name: String,
}

impl Name {
    fn layout(&self) -> Result<Layout> {
        Layout::new(&self.name).map_err(|reason| anyhow!(reason))
    }
}

/// Arguments of `sluice up`.
#[derive(Args, Debug)]
pub struct UpArgs {
    #[command(flatten)]
    cluster: Name,
    /// Port of 127.0.0.1 at which this machine reaches the API server
    #[arg(long, default_value_t = 6443)]
    api_port: u16,
    /// Leave out the example application, its load and the outage
    #[arg(long)]
    no_demo: bool,
    /// Directory with the static binaries `echo` and `pause` [default: found beside this executable]
    #[arg(long, value_name = "DIR")]
    static_dir: Option<PathBuf>,
}

/// Arguments of `sluice down`.
#[derive(Args, Debug)]
pub struct DownArgs {
    #[command(flatten)]
    cluster: Name,
    /// Remove things of that name even though no state of a cluster of that name is found
    #[arg(long)]
    force: bool,
}

/// Arguments of `sluice status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    cluster: Name,
    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For reading
    Table,
    /// For programs
    Json,
}

/// Brings a cluster up, or heals one that is up.
pub async fn up(args: UpArgs) -> Result<()> {
    let options = up::Options {
        layout: args.cluster.layout()?,
        api_port: args.api_port,
        demo: !args.no_demo,
        binaries: args.static_dir,
    };
    up::run(&options).await
}

/// Removes a cluster.
pub async fn down(args: DownArgs) -> Result<()> {
    let layout = args.cluster.layout()?;
    tokio::task::spawn_blocking(move || down::run(&layout, args.force)).await?
}

/// Shows a cluster.
pub async fn status(args: StatusArgs) -> Result<()> {
    status::run(&args.cluster.layout()?, args.output == Output::Json).await
}
