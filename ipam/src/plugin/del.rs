//! DEL: the link first, then the addresses. Repeating it is fine, as is a namespace that is gone.

use super::add::remove_by_name;
use super::config::NetworkConfig;
use super::environment::Environment;
use super::error::{CniError, Code};
use super::maintenance::client;
use crate::links::names;
use crate::protocol::{Reply, Request};

pub(super) fn run(environment: &Environment, config: &NetworkConfig) -> Result<(), CniError> {
    let owner = environment.owner();
    remove_by_name(&names::host_link(owner.key()))?;
    match client(config).call(&Request::Release {
        owner: (&owner).into(),
    })? {
        Reply::Released { .. } => Ok(()),
        Reply::Failed { reason, message } => Err(CniError::refused(reason, message)),
        other => Err(CniError::new(
            Code::Decoding,
            format!("unexpected answer: {other:?}"),
        )),
    }
}
