//! The `loopback` plugin, which runtimes run for every pod: brings the loopback interface up.

use serde_json::Value;

use super::config::version_of;
use super::environment::{Command, Environment};
use super::error::{CniError, Code};
use super::result;
use crate::links::netlink::Netlink;
use crate::links::netns::{NetNs, NetNsError};
use crate::links::pod;

pub(super) fn run(environment: &Environment, input: &[u8]) -> Result<Option<String>, CniError> {
    match environment.command {
        Command::Version => Ok(Some(result::versions(&version_of(input)))),
        Command::Add => add(environment, input).map(Some),
        Command::Check => check(environment).map(|()| None),
        // The interface goes with its namespace.
        Command::Del | Command::Gc | Command::Status => Ok(None),
    }
}

fn add(environment: &Environment, input: &[u8]) -> Result<String, CniError> {
    let attachment = environment.attachment()?;
    let config: Value = serde_json::from_slice(input).map_err(|error| {
        CniError::new(
            Code::Decoding,
            format!("cannot decode the network configuration: {error}"),
        )
    })?;
    visit(environment, |netlink| pod::bring_up(netlink, "lo"))?;
    match &config["prevResult"] {
        previous @ Value::Object(_) => Ok(format!("{previous}\n")),
        _ => Ok(result::loopback(&version_of(input), attachment.netns)),
    }
}

fn check(environment: &Environment) -> Result<(), CniError> {
    match visit(environment, |netlink| pod::find(netlink, "lo"))?.up {
        true => Ok(()),
        false => Err(CniError::new(Code::Mismatch, "the pod's link lo is down")),
    }
}

fn visit<T, E: std::fmt::Display>(
    environment: &Environment,
    work: impl FnOnce(&mut Netlink) -> Result<T, E>,
) -> Result<T, CniError> {
    let namespace = NetNs::open(environment.attachment()?.netns).map_err(unreachable)?;
    let network =
        |error: &dyn std::fmt::Display| CniError::new(Code::Network, format!("loopback: {error}"));
    let inside = namespace.enter(|| {
        let mut netlink = Netlink::open().map_err(|error| network(&error))?;
        work(&mut netlink).map_err(|error| network(&error))
    });
    inside.map_err(unreachable)?
}

fn unreachable(error: NetNsError) -> CniError {
    match &error {
        NetNsError::Gone(_) => CniError::new(Code::UnknownContainer, error.to_string()),
        _ => CniError::new(Code::Io, error.to_string()),
    }
}
