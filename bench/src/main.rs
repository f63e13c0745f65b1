//! How fast the dataplane and the agent are, beside nftables and iptables in kube-proxy's shapes.
//!
//! `bench` starts itself again to do the measuring, and takes away what that has made when it ends, in
//! whatever way it does.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};

mod agent;
mod api;
mod bpf;
mod child;
mod frame;
mod host;
mod machine;
mod packets;
mod plot;
mod progress;
mod report;
mod rules;
mod services;
mod spread;
mod stats;
mod tables;
mod traffic;

use progress::Progress;
use report::Results;
use services::{Effort, Side};
use traffic::Mode;

/// Measure the dataplane and the agent beside nftables and iptables; prints one table
#[derive(Clone, Debug, Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Debug, clap::Args)]
struct Options {
    /// Fewer Services and shorter rounds: the whole in a minute and a half
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Area>,
    /// Where the table, the raw figures and the plots go
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Area {
    /// Nanoseconds per packet of the XDP program
    Packets,
    /// From pod to Service
    Inside,
    /// From outside to a node port
    Outside,
    /// The agent's start, latency and costs
    Agent,
}

/// What the bench starts itself for.
#[derive(Clone, Debug, Subcommand)]
#[command(hide = true)]
enum Part {
    #[command(hide = true)]
    Measure,
    #[command(hide = true)]
    Serve {
        #[command(flatten)]
        place: child::Place,
        #[arg(long)]
        address: SocketAddr,
    },
    #[command(hide = true)]
    Load {
        #[command(flatten)]
        place: child::Place,
        #[arg(long, value_enum)]
        mode: Mode,
        #[arg(long)]
        target: Vec<SocketAddr>,
        #[arg(long)]
        millis: u64,
    },
    #[command(hide = true)]
    AgentStand(agent::Stand),
    #[command(hide = true)]
    Agent(Box<sluice_proxy::cli::Args>),
}

/// Connections of a client at once.
const CONNECTIONS: usize = 16;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.part {
        None => supervise(),
        Some(Part::Measure) => measure(&cli.options),
        Some(part) => play(part),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(part: Part) -> Result<ExitCode> {
    match part {
        Part::Measure => {}
        Part::Serve { place, address } => {
            place.enter()?;
            traffic::serve(address)?;
        }
        Part::Load {
            place,
            mode,
            target,
            millis,
        } => {
            place.enter()?;
            ensure!(!target.is_empty(), "--target is missing");
            let time = Duration::from_millis(millis);
            let load = traffic::load(mode, &target, CONNECTIONS, time)?;
            println!("{}", serde_json::to_string(&load)?);
        }
        Part::AgentStand(stand) => stand.run()?,
        Part::Agent(arguments) => {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
                .init();
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(sluice_proxy::cli::run(*arguments))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_signal: i32) {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Starts the measuring process, waits for its end, and takes away what it made.
fn supervise() -> Result<ExitCode> {
    // SAFETY: takes no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    ensure!(root, "namespaces and BPF need root: run it with sudo");
    let handler = stop as extern "C" fn(i32) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores into an atomic.
        unsafe { libc::signal(signal, handler) };
    }
    machine::remove_leftovers();
    // Options come before the subcommand.
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1)).arg("measure");
    let mut child = command.spawn().context("cannot start the measuring")?;
    let status = wait(&mut child)?;
    machine::remove_all(&machine::prefix(std::process::id()));
    Ok(if status {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn wait(child: &mut Child) -> Result<bool> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if STOPPED.load(Ordering::Relaxed) {
            let _ = child.kill();
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How much is measured.
struct Plan {
    packets: (&'static [u32], u32),
    inside: (&'static [u32], Effort),
    outside: (&'static [u32], Effort),
    agents: (&'static [u32], u32),
    /// Steps of the progress display.
    steps: u32,
}

const FULL: Plan = Plan {
    packets: (&[100, 1_000, 10_000, 100_000], 300),
    inside: (
        &[1, 1_000, 10_000],
        Effort {
            rounds: 5,
            time: Duration::from_millis(600),
        },
    ),
    outside: (
        &[1_000],
        Effort {
            rounds: 5,
            time: Duration::from_millis(600),
        },
    ),
    agents: (&[1_000, 10_000], 400),
    steps: 8 + 9 + 50 + 3 + 20 + 2,
};

const QUICK: Plan = Plan {
    packets: (&[100, 10_000], 150),
    inside: (
        &[1, 1_000],
        Effort {
            rounds: 3,
            time: Duration::from_millis(300),
        },
    ),
    outside: (
        &[1],
        Effort {
            rounds: 3,
            time: Duration::from_millis(300),
        },
    ),
    agents: (&[1_000], 100),
    steps: 4 + 6 + 21 + 3 + 12 + 1,
};

fn measure(options: &Options) -> Result<ExitCode> {
    // A signal from the terminal meets the whole group: here it simply ends.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the default disposition runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    prefer();
    let plan = if options.quick { &QUICK } else { &FULL };
    let prefix = &machine::prefix(std::os::unix::process::parent_id());
    let wanted = |area| options.only.is_empty() || options.only.contains(&area);
    let progress = Progress::new(plan.steps);
    let mut results = Results {
        host: host::Host::new(),
        quick: options.quick,
        packets: None,
        cases: Vec::new(),
        agents: Vec::new(),
        moved: spread::measure(),
    };
    if wanted(Area::Packets) {
        let (sizes, rounds) = plan.packets;
        results.packets = Some(packets::measure(prefix, sizes, rounds, &progress)?);
    }
    for (area, side, (sizes, effort)) in [
        (Area::Inside, Side::Inside, plan.inside),
        (Area::Outside, Side::Outside, plan.outside),
    ] {
        if wanted(area) {
            let cases = services::measure(prefix, side, sizes, effort, &progress)?;
            results.cases.extend(cases);
        }
    }
    if wanted(Area::Agent) {
        let (sizes, updates) = plan.agents;
        for services in sizes {
            progress.step(&format!("agent, {services} Services"));
            results
                .agents
                .push(agent::measure(prefix, *services, updates)?);
        }
    }
    results.host.ended();
    progress.end();
    write(&options.out, &results)?;
    Ok(ExitCode::SUCCESS)
}

/// What else runs on this machine is to wait.
fn prefer() {
    // SAFETY: takes integers.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -19) };
    if result < 0 {
        eprintln!("bench: cannot raise the priority; other processes disturb more");
    }
}

/// The table to the terminal and beside the raw figures and the plots.
fn write(dir: &Path, results: &Results) -> Result<()> {
    let text = report::text(results);
    println!("{text}");
    let json = serde_json::to_string_pretty(results)?;
    let mut files = plot::all(results);
    files.push(("results.json".to_owned(), json + "\n"));
    files.push(("results.txt".to_owned(), text));
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (name, content) in files {
        let path = dir.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    eprintln!("bench: raw figures and plots are in {}", dir.display());
    Ok(())
}
