//! The CNI plugin (specification 1.1.0): a short-lived process that the container runtime runs for each
//! operation. It asks the daemon for addresses and does the link work itself, so that many pods start side
//! by side and the daemon's death stops none of them half way.
//!
//! Order is what keeps addresses safe: an address is assigned before its link is made, and the link is
//! removed before the address is released. Whatever dies in between, the runtime's DEL puts right.

mod add;
mod check;
mod config;
mod del;
mod environment;
mod error;
mod loopback;
mod maintenance;
mod result;

use std::io::{Read, Write};
use std::process::ExitCode;

pub use config::{NetworkConfig, SUPPORTED_VERSIONS};
pub use environment::{Command, Environment};
pub use error::{CniError, Code};

use crate::links::pod::{Gate, open_gate};

/// The process: reads the environment and standard input, writes the result to standard output.
pub fn main() -> ExitCode {
    let mut input = Vec::new();
    if let Err(error) = std::io::stdin().read_to_end(&mut input) {
        return finish(
            &input,
            Err(CniError::new(
                Code::Io,
                format!("cannot read standard input: {error}"),
            )),
        );
    }
    let variables = |name: &str| std::env::var(name).ok();
    let loopback = called_as("loopback");
    let outcome = Environment::read(variables).and_then(|environment| match loopback {
        true => loopback::run(&environment, &input),
        false => run(&environment, &input, &open_gate),
    });
    finish(&input, outcome)
}

/// Whether the program was started under this name.
pub fn called_as(name: &str) -> bool {
    let program = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&program)
        .file_name()
        .is_some_and(|file| file == name)
}

fn finish(input: &[u8], outcome: Result<Option<String>, CniError>) -> ExitCode {
    let (text, code) = match outcome {
        Ok(result) => (result.unwrap_or_default(), ExitCode::SUCCESS),
        Err(error) => (error.to_json(&config::version_of(input)), ExitCode::FAILURE),
    };
    let mut output = std::io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs one command and returns what belongs on standard output. `gate` lets tests make steps fail.
pub fn run(
    environment: &Environment,
    input: &[u8],
    gate: Gate<'_>,
) -> Result<Option<String>, CniError> {
    if environment.command == Command::Version {
        return Ok(Some(result::versions(&config::version_of(input))));
    }
    let config = NetworkConfig::parse(input, environment.command)?;
    match environment.command {
        Command::Add => add::run(environment.attachment()?, &config, gate).map(Some),
        Command::Del => del::run(environment, &config).map(|()| None),
        Command::Check => check::run(environment.attachment()?, &config).map(|()| None),
        Command::Gc => maintenance::collect(&config).map(|()| None),
        Command::Status => maintenance::status(&config).map(|()| None),
        Command::Version => Ok(None),
    }
}
