//! The commands that look at the maps.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use sluice_common::{Ticks, ticks_from_nanos};

use super::{backends, drops, flows, services};
use crate::maps::kernel::KernelMaps;

/// What all of them take.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// Directory that the agent has pinned its maps in
    #[arg(long, value_name = "DIR", default_value = crate::cli::BPF_ROOT)]
    bpf_root: PathBuf,

    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// The Services that this node balances
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceArgs {
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ServiceCommand {
    /// List frontends with their backends and counters
    List(List),
}

#[derive(Clone, Debug, clap::Args)]
struct List {
    #[command(flatten)]
    common: Common,
}

/// The backends that traffic goes to
#[derive(Clone, Debug, clap::Args)]
pub struct BackendArgs {
    #[command(subcommand)]
    command: BackendCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum BackendCommand {
    /// List backends with their counters
    List {
        #[command(flatten)]
        common: Common,

        /// Only those of Services whose namespace/name:port contains this
        #[arg(long, value_name = "TEXT")]
        service: Option<String>,
    },
}

/// The flows that are translated
#[derive(Clone, Debug, clap::Args)]
pub struct FlowArgs {
    #[command(subcommand)]
    command: FlowCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum FlowCommand {
    /// List translated flows, each with an entry per direction
    List(List),
}

/// Count what was dropped or refused, by reason
#[derive(Clone, Debug, clap::Args)]
pub struct DropsArgs {
    #[command(flatten)]
    common: Common,
}

/// Runs `sluice service`.
///
/// # Errors
/// When the maps cannot be read.
pub fn run_service(args: ServiceArgs) -> anyhow::Result<()> {
    let ServiceCommand::List(List { common }) = args.command;
    let rows = services::list(&open(&common)?)?;
    print(common.output, &rows, services::render)
}

/// Runs `sluice backend`.
///
/// # Errors
/// When the maps cannot be read.
pub fn run_backend(args: BackendArgs) -> anyhow::Result<()> {
    let BackendCommand::List { common, service } = args.command;
    let rows = backends::list(&open(&common)?, service.as_deref())?;
    print(common.output, &rows, backends::render)
}

/// Runs `sluice flow`.
///
/// # Errors
/// When the maps cannot be read.
pub fn run_flow(args: FlowArgs) -> anyhow::Result<()> {
    let FlowCommand::List(List { common }) = args.command;
    let rows = flows::list(&open(&common)?, now()?)?;
    print(common.output, &rows, flows::render)
}

/// Runs `sluice drops`.
///
/// # Errors
/// When the maps cannot be read.
pub fn run_drops(args: DropsArgs) -> anyhow::Result<()> {
    let rows = drops::list(&open(&args.common)?)?;
    print(args.common.output, &rows, drops::render)
}

fn open(common: &Common) -> anyhow::Result<KernelMaps> {
    KernelMaps::open(&common.bpf_root).with_context(|| {
        format!(
            "no agent's maps can be read at {} (see --bpf-root; root is needed)",
            common.bpf_root.display()
        )
    })
}

fn print<T: Serialize>(
    format: Format,
    rows: &[T],
    render: fn(&[T]) -> String,
) -> anyhow::Result<()> {
    let text = match format {
        Format::Table => render(rows),
        Format::Json => serde_json::to_string_pretty(rows)? + "\n",
    };
    match io::stdout().write_all(text.as_bytes()) {
        // A reader such as `head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// The programs' clock.
fn now() -> anyhow::Result<Ticks> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec to a live one.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot read the clock");
    }
    Ok(ticks_from_nanos(
        time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs(),
    ))
}
