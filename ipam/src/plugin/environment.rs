//! The environment variables of the specification, validated by command.

use std::net::IpAddr;
use std::path::PathBuf;

use super::error::{CniError, Code};
use crate::allocator::Owner;
use crate::protocol::Pod;

/// CNI_COMMAND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Connect a container.
    Add,
    /// Disconnect a container; repeated without harm.
    Del,
    /// Is a container still connected as it was.
    Check,
    /// Remove what belongs to no living container.
    Gc,
    /// Can containers be connected.
    Status,
    /// Which versions of the specification are understood.
    Version,
}

impl Command {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "ADD" => Some(Command::Add),
            "DEL" => Some(Command::Del),
            "CHECK" => Some(Command::Check),
            "GC" => Some(Command::Gc),
            "STATUS" => Some(Command::Status),
            "VERSION" => Some(Command::Version),
            _ => None,
        }
    }

    fn needs(self) -> &'static [&'static str] {
        match self {
            Command::Add | Command::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Command::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Command::Gc | Command::Status | Command::Version => &[],
        }
    }
}

/// One invocation. Strings are empty where the command does not need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// CNI_COMMAND.
    pub command: Command,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_NETNS.
    pub netns: Option<PathBuf>,
    /// CNI_IFNAME.
    pub interface: String,
    /// From CNI_ARGS: K8S_POD_*.
    pub pod: Pod,
    /// From CNI_ARGS: IP, as with host-local.
    pub addresses: Vec<IpAddr>,
}

/// What ADD and CHECK work on.
#[derive(Clone, Debug)]
pub(super) struct Attachment<'a> {
    pub(super) owner: Owner,
    pub(super) netns: &'a PathBuf,
    pub(super) pod: &'a Pod,
    pub(super) addresses: &'a [IpAddr],
}

fn invalid(message: String) -> CniError {
    CniError::new(Code::InvalidEnvironment, message)
}

impl Environment {
    /// Reads and validates the variables.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let name = set("CNI_COMMAND").ok_or_else(|| {
            invalid(
                "CNI_COMMAND is not set: this is a CNI plugin, which a container runtime runs"
                    .into(),
            )
        })?;
        let command = Command::parse(&name).ok_or_else(|| {
            invalid(format!(
                "CNI_COMMAND={name}: expected ADD, DEL, CHECK, GC, STATUS or VERSION"
            ))
        })?;
        let missing: Vec<&str> = command
            .needs()
            .iter()
            .copied()
            .filter(|name| set(name).is_none())
            .collect();
        if !missing.is_empty() {
            return Err(invalid(format!(
                "{name} needs {}, which is not set",
                missing.join(" and ")
            )));
        }
        let (pod, addresses) = parse_arguments(&set("CNI_ARGS").unwrap_or_default())?;
        let environment = Self {
            command,
            container_id: set("CNI_CONTAINERID").unwrap_or_default(),
            netns: set("CNI_NETNS").map(PathBuf::from),
            interface: set("CNI_IFNAME").unwrap_or_default(),
            pod,
            addresses,
        };
        if !command.needs().is_empty() {
            check_container_id(&environment.container_id)?;
            check_interface(&environment.interface)?;
        }
        Ok(environment)
    }

    /// The allocator's name for the container's interface.
    pub fn owner(&self) -> Owner {
        Owner::new(&self.container_id, &self.interface)
    }

    pub(super) fn attachment(&self) -> Result<Attachment<'_>, CniError> {
        let missing = || invalid("CNI_NETNS is not set".into());
        Ok(Attachment {
            owner: self.owner(),
            netns: self.netns.as_ref().ok_or_else(missing)?,
            pod: &self.pod,
            addresses: &self.addresses,
        })
    }
}

/// The specification's rule: alphanumeric first, then also underscore, dot and hyphen.
fn check_container_id(id: &str) -> Result<(), CniError> {
    let valid = id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    match valid {
        true => Ok(()),
        false => Err(invalid(format!(
            "CNI_CONTAINERID={id:?}: expected letters, digits, '_', '.' and '-'"
        ))),
    }
}

/// The kernel's rule (dev_valid_name).
fn check_interface(name: &str) -> Result<(), CniError> {
    let valid = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .contains(|c: char| c == '/' || c == ':' || c.is_ascii_whitespace() || c.is_control());
    match valid {
        true => Ok(()),
        false => Err(invalid(format!(
            "CNI_IFNAME={name:?} is not a valid interface name"
        ))),
    }
}

/// `KEY=VALUE;KEY=VALUE`; unknown keys are for others.
fn parse_arguments(text: &str) -> Result<(Pod, Vec<IpAddr>), CniError> {
    let (mut pod, mut addresses) = (Pod::default(), Vec::new());
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let malformed = || invalid(format!("CNI_ARGS: {pair:?} is not KEY=VALUE"));
        let (key, value) = pair.split_once('=').ok_or_else(malformed)?;
        match key {
            "K8S_POD_NAMESPACE" => pod.namespace = value.to_owned(),
            "K8S_POD_NAME" => pod.name = value.to_owned(),
            "K8S_POD_UID" => pod.uid = value.to_owned(),
            "IP" => addresses = parse_addresses(value)?,
            _ => {}
        }
    }
    Ok((pod, addresses))
}

fn parse_addresses(value: &str) -> Result<Vec<IpAddr>, CniError> {
    let parse = |part: &str| {
        let address = part.split('/').next().unwrap_or(part);
        address
            .parse()
            .map_err(|_| invalid(format!("CNI_ARGS: IP={part} is not an IP address")))
    };
    value.split(',').map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, CniError> {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        Environment::read(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    const ADD: [(&str, &str); 4] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "0a1b"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
    ];

    fn with(name: &'static str, value: &'static str) -> Result<Environment, CniError> {
        let mut variables = ADD.to_vec();
        variables.push((name, value));
        read(&variables)
    }

    #[test]
    fn kubernetes_arguments_are_understood_and_others_ignored() {
        let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=u;IP=10.0.0.7,fd00::7/64";
        let environment = with("CNI_ARGS", arguments).unwrap();
        assert_eq!(environment.pod.name, "web-0");
        let expected: Vec<IpAddr> = vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(environment.addresses, expected);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = read(&ADD[..2]).unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        assert_eq!(
            error.message,
            "ADD needs CNI_NETNS and CNI_IFNAME, which is not set"
        );
        assert!(read(&[]).unwrap_err().message.contains("CNI_COMMAND"));
        assert!(
            read(&[("CNI_COMMAND", "PING")])
                .unwrap_err()
                .message
                .contains("PING")
        );
    }

    #[test]
    fn names_that_could_leave_their_place_are_refused() {
        for id in ["../x", "-x", "a b", "ä"] {
            assert!(with("CNI_CONTAINERID", id).is_err(), "{id}");
        }
        for name in ["..", "a/b", "sixteen-letters1", "a b"] {
            assert!(with("CNI_IFNAME", name).is_err(), "{name}");
        }
        assert!(with("CNI_ARGS", "nonsense").is_err());
        assert!(with("CNI_ARGS", "IP=10.0.0").is_err());
    }

    #[test]
    fn del_needs_no_namespace_and_gc_nothing() {
        let del = [ADD[1], ADD[3], ("CNI_COMMAND", "DEL")];
        assert_eq!(read(&del).unwrap().netns, None);
        assert!(read(&[("CNI_COMMAND", "GC")]).is_ok());
    }
}
