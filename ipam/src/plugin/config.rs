//! The network configuration on standard input.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::environment::Command;
use super::error::{CniError, Code};
use crate::protocol::{Attachment, DEFAULT_SOCKET};

/// The versions of the specification that are understood, the oldest first.
pub const SUPPORTED_VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What we read of the configuration. Fields of other plugins and of the runtime are left alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfig {
    /// The version of the specification.
    #[serde(default)]
    pub cni_version: String,
    /// The network's name.
    #[serde(default)]
    pub name: String,
    /// The daemon's socket.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// In bytes, instead of the daemon's choice.
    pub mtu: Option<u32>,
    /// Passed on in the result.
    #[serde(default)]
    pub dns: Value,
    /// The result so far of a chain of plugins.
    pub prev_result: Option<Value>,
    #[serde(default)]
    runtime_config: RuntimeConfig,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<ValidAttachment>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RuntimeConfig {
    /// The "ips" capability: addresses, with or without a prefix length.
    #[serde(default)]
    ips: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct ValidAttachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

fn default_socket() -> PathBuf {
    DEFAULT_SOCKET.into()
}

/// The version that the input asks for, as far as it can be read: errors are answered in it too.
pub(super) fn version_of(input: &[u8]) -> String {
    let value: Value = serde_json::from_slice(input).unwrap_or_default();
    let asked = value["cniVersion"].as_str().unwrap_or_default();
    match SUPPORTED_VERSIONS.contains(&asked) {
        true => asked.to_owned(),
        false => SUPPORTED_VERSIONS[SUPPORTED_VERSIONS.len() - 1].to_owned(),
    }
}

impl NetworkConfig {
    /// Reads and validates the configuration for a command.
    pub fn parse(input: &[u8], command: Command) -> Result<Self, CniError> {
        let config: Self = serde_json::from_slice(input).map_err(|error| {
            CniError::new(
                Code::Decoding,
                format!("cannot decode the network configuration: {error}"),
            )
        })?;
        config.check_version(command)?;
        if config.name.is_empty() {
            return Err(CniError::new(
                Code::InvalidConfig,
                "name: the network has no name",
            ));
        }
        if config.mtu.is_some_and(|mtu| !(1280..=65535).contains(&mtu)) {
            return Err(CniError::new(
                Code::InvalidConfig,
                "mtu: expected 1280 to 65535",
            ));
        }
        Ok(config)
    }

    fn check_version(&self, command: Command) -> Result<(), CniError> {
        let since = match command {
            Command::Add | Command::Del | Command::Version => 0,
            Command::Check => 1,
            Command::Gc | Command::Status => 3,
        };
        if SUPPORTED_VERSIONS[since..].contains(&self.cni_version.as_str()) {
            return Ok(());
        }
        let message = format!(
            "cniVersion: {:?} is not supported for this command, expected one of {}",
            self.cni_version,
            SUPPORTED_VERSIONS[since..].join(", ")
        );
        Err(CniError::new(Code::IncompatibleVersion, message))
    }

    /// The addresses that the runtime asks for.
    pub(super) fn requested_addresses(&self) -> Result<Vec<IpAddr>, CniError> {
        let parse = |text: &String| {
            let address = text.split('/').next().unwrap_or(text);
            address.parse().map_err(|_| {
                CniError::new(
                    Code::InvalidConfig,
                    format!("runtimeConfig.ips: {text:?} is not an IP address"),
                )
            })
        };
        self.runtime_config.ips.iter().map(parse).collect()
    }

    /// Those that are alive, for GC.
    pub(super) fn valid_attachments(&self) -> Result<Vec<Attachment>, CniError> {
        let missing = || {
            CniError::new(
                Code::InvalidConfig,
                "cni.dev/valid-attachments: missing, GC needs it",
            )
        };
        let all = self.valid_attachments.as_ref().ok_or_else(missing)?;
        let attachment = |valid: &ValidAttachment| Attachment {
            container_id: valid.container_id.clone(),
            interface: valid.ifname.clone(),
        };
        Ok(all.iter().map(attachment).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, command: Command) -> Result<NetworkConfig, CniError> {
        NetworkConfig::parse(text.as_bytes(), command)
    }

    #[test]
    fn each_command_exists_since_its_version() {
        let config = |version: &str| {
            format!(r#"{{"cniVersion":"{version}","name":"n","type":"sluice-cni"}}"#)
        };
        for (command, oldest) in [
            (Command::Add, 0),
            (Command::Check, 1),
            (Command::Gc, 3),
            (Command::Status, 3),
        ] {
            for (at, version) in SUPPORTED_VERSIONS.iter().enumerate() {
                assert_eq!(
                    parse(&config(version), command).is_ok(),
                    at >= oldest,
                    "{command:?} {version}"
                );
            }
        }
        let error = parse(&config("0.2.0"), Command::Add).unwrap_err();
        assert_eq!(error.code, Code::IncompatibleVersion);
    }

    #[test]
    fn mistakes_are_told_by_field() {
        let code = |text: &str| parse(text, Command::Add).unwrap_err().code;
        assert_eq!(code("{"), Code::Decoding);
        assert_eq!(code(r#"{"cniVersion":"1.0.0"}"#), Code::InvalidConfig);
        assert_eq!(
            code(r#"{"cniVersion":"1.0.0","name":"n","mtu":5}"#),
            Code::InvalidConfig
        );
        let config = parse(r#"{"cniVersion":"1.1.0","name":"n"}"#, Command::Gc).unwrap();
        assert_eq!(
            config.valid_attachments().unwrap_err().code,
            Code::InvalidConfig
        );
    }

    #[test]
    fn errors_are_answered_in_the_version_that_was_asked() {
        assert_eq!(version_of(br#"{"cniVersion":"0.3.1"}"#), "0.3.1");
        assert_eq!(version_of(br#"{"cniVersion":"9"}"#), "1.1.0");
        assert_eq!(version_of(b"garbage"), "1.1.0");
    }
}
