//! GC and STATUS, which the daemon answers, and the client that asks it.

use std::time::Duration;

use super::config::NetworkConfig;
use super::error::{CniError, Code};
use crate::client::Client;
use crate::protocol::{Reply, Request};

/// How long a restarting daemon is waited for. Runtimes give an operation minutes, and retry after.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn client(config: &NetworkConfig) -> Client {
    Client::new(&config.socket, PATIENCE)
}

/// Frees everything of this network that the runtime does not name.
pub(super) fn collect(config: &NetworkConfig) -> Result<(), CniError> {
    let request = Request::Retain {
        network: config.name.clone(),
        keep: config.valid_attachments()?,
    };
    match client(config).call(&request)? {
        Reply::Freed { .. } => Ok(()),
        Reply::Failed { reason, message } => Err(CniError::refused(reason, message)),
        other => Err(CniError::new(
            Code::Decoding,
            format!("unexpected answer: {other:?}"),
        )),
    }
}

/// Whether an ADD can succeed now.
pub(super) fn status(config: &NetworkConfig) -> Result<(), CniError> {
    let unavailable = |message: String| CniError::new(Code::NotAvailable, message);
    match Client::new(&config.socket, Duration::ZERO).call(&Request::Status) {
        Ok(Reply::Ready) => Ok(()),
        Ok(Reply::Failed { message, .. }) => Err(unavailable(message)),
        Ok(other) => Err(unavailable(format!("unexpected answer: {other:?}"))),
        Err(error) => Err(unavailable(error.to_string())),
    }
}
