//! CHECK: the addresses are still ours, and the link is as ADD made it.

use std::net::IpAddr;

use super::add::open_pod;
use super::config::NetworkConfig;
use super::environment::Attachment;
use super::error::{CniError, Code};
use super::maintenance::client;
use super::result::previous_addresses;
use crate::links::pod::{self, PodLink};
use crate::protocol::{Reply, Request};

pub(super) fn run(attachment: Attachment<'_>, config: &NetworkConfig) -> Result<(), CniError> {
    let missing = || CniError::new(Code::InvalidConfig, "prevResult: missing, CHECK needs it");
    let previous = config.prev_result.as_ref().ok_or_else(missing)?;
    let namespace = open_pod(&attachment)?;
    let (addresses, mtu) = lookup(&attachment, config)?;
    let reported = previous_addresses(previous);
    if let Some(lost) = addresses.iter().find(|address| !reported.contains(address)) {
        let message = format!("prevResult.ips: {lost}, which the container holds, is not in it");
        return Err(CniError::new(Code::Mismatch, message));
    }
    let link = PodLink::new(&attachment.owner, addresses, config.mtu.unwrap_or(mtu), "");
    match pod::verify(&link, &namespace) {
        Ok(findings) if findings.is_empty() => Ok(()),
        Ok(findings) => Err(CniError::new(Code::Mismatch, findings.join("; "))),
        Err(error) => Err(CniError::new(Code::Network, error.to_string())),
    }
}

fn lookup(
    attachment: &Attachment<'_>,
    config: &NetworkConfig,
) -> Result<(Vec<IpAddr>, u32), CniError> {
    let request = Request::Lookup {
        owner: (&attachment.owner).into(),
    };
    match client(config).call(&request)? {
        Reply::Assigned { addresses, mtu } => Ok((addresses, mtu)),
        Reply::Failed { reason, message } => Err(CniError::refused(reason, message)),
        other => Err(CniError::new(
            Code::Decoding,
            format!("unexpected answer: {other:?}"),
        )),
    }
}
