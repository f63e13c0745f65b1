//! Errors as the specification wants them: a number, a message, details, in JSON on standard output.

use serde_json::json;

use crate::client::ClientError;
use crate::protocol::Reason;

/// The specification's error numbers, and ours from 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 1: the configuration's version is not supported.
    IncompatibleVersion,
    /// 2: a field of the configuration is not supported.
    UnsupportedField,
    /// 3: the container is unknown or gone; no clean-up is needed.
    UnknownContainer,
    /// 4: an environment variable is missing or wrong.
    InvalidEnvironment,
    /// 5: reading or writing failed.
    Io,
    /// 6: something could not be decoded.
    Decoding,
    /// 7: the configuration is wrong.
    InvalidConfig,
    /// 11: try again later.
    TryAgainLater,
    /// 50: the plugin is not available (STATUS).
    NotAvailable,
    /// 100: the kernel refused a link, address or route.
    Network,
    /// 101: the requested address cannot be had.
    Address,
    /// 102: CHECK found something missing.
    Mismatch,
}

impl Code {
    /// The number.
    pub fn number(self) -> u32 {
        match self {
            Code::IncompatibleVersion => 1,
            Code::UnsupportedField => 2,
            Code::UnknownContainer => 3,
            Code::InvalidEnvironment => 4,
            Code::Io => 5,
            Code::Decoding => 6,
            Code::InvalidConfig => 7,
            Code::TryAgainLater => 11,
            Code::NotAvailable => 50,
            Code::Network => 100,
            Code::Address => 101,
            Code::Mismatch => 102,
        }
    }
}

/// A failed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    /// What kind.
    pub code: Code,
    /// One line.
    pub message: String,
    /// More, may be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: String::new(),
        }
    }

    /// Adds to the details.
    pub fn with_details(mut self, details: impl AsRef<str>) -> Self {
        if !self.details.is_empty() {
            self.details.push_str("; ");
        }
        self.details.push_str(details.as_ref());
        self
    }

    /// The daemon's refusal as CNI knows it.
    pub fn refused(reason: Reason, message: String) -> Self {
        let code = match reason {
            Reason::NotReady | Reason::Exhausted | Reason::Disk | Reason::Version => {
                Code::TryAgainLater
            }
            Reason::NotFound => Code::UnknownContainer,
            Reason::Invalid | Reason::InUse => Code::Address,
            Reason::Kernel => Code::Network,
        };
        Self::new(code, message)
    }

    /// The JSON of the specification.
    pub fn to_json(&self, version: &str) -> String {
        let error = json!({
            "cniVersion": version,
            "code": self.code.number(),
            "msg": self.message,
            "details": self.details,
        });
        format!("{error}\n")
    }
}

impl From<ClientError> for CniError {
    fn from(error: ClientError) -> Self {
        Self::new(Code::TryAgainLater, error.to_string())
            .with_details("is `sluice ipam daemon` running on this node?")
    }
}
