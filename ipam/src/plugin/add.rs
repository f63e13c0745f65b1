//! ADD: addresses from the daemon, then the link. What fails half way is taken back.

use std::net::IpAddr;

use super::config::NetworkConfig;
use super::environment::Attachment;
use super::error::{CniError, Code};
use super::maintenance::client;
use super::result;
use crate::links::netlink::Netlink;
use crate::links::netns::{NetNs, NetNsError};
use crate::links::pod::{self, AttachError, Gate, PodLink};
use crate::protocol::{Reply, Request};

pub(super) fn run(
    attachment: Attachment<'_>,
    config: &NetworkConfig,
    gate: Gate<'_>,
) -> Result<String, CniError> {
    let namespace = open_pod(&attachment)?;
    let (addresses, mtu) = assign(&attachment, config)?;
    let mtu = config.mtu.unwrap_or(mtu);
    let note = format!("{}/{}", attachment.pod.namespace, attachment.pod.name);
    let link = PodLink::new(&attachment.owner, addresses, mtu, note.trim_matches('/'));
    // The result first: a chain's nonsense must not cost a link.
    let result = result::added(
        &config.cni_version,
        &link,
        attachment.netns,
        &config.dns,
        config.prev_result.as_ref(),
    );
    result
        .and_then(|result| attach(&link, &namespace, gate).map(|()| result))
        .map_err(|error| take_back(&attachment, config, &link.host, error))
}

/// The pod's namespace, which must not be the one we are in: a link within it would be the host's own.
pub(super) fn open_pod(attachment: &Attachment<'_>) -> Result<NetNs, CniError> {
    let namespace = NetNs::open(attachment.netns).map_err(|error| match &error {
        NetNsError::Gone(_) => CniError::new(Code::UnknownContainer, error.to_string()),
        NetNsError::NotANamespace(_) => {
            CniError::new(Code::InvalidEnvironment, format!("CNI_NETNS: {error}"))
        }
        NetNsError::Io { .. } => CniError::new(Code::Io, error.to_string()),
    })?;
    let own = NetNs::current().map_err(|error| CniError::new(Code::Io, error.to_string()))?;
    match namespace.is_same(&own) {
        Ok(false) => Ok(namespace),
        Ok(true) => Err(CniError::new(
            Code::InvalidEnvironment,
            "CNI_NETNS is the host's own network namespace, not a pod's",
        )),
        Err(error) => Err(CniError::new(Code::Io, error.to_string())),
    }
}

fn assign(
    attachment: &Attachment<'_>,
    config: &NetworkConfig,
) -> Result<(Vec<IpAddr>, u32), CniError> {
    let mut fixed = config.requested_addresses()?;
    if fixed.is_empty() {
        fixed = attachment.addresses.to_vec();
    }
    let request = Request::Assign {
        owner: (&attachment.owner).into(),
        network: config.name.clone(),
        pod: attachment.pod.clone(),
        fixed,
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

/// A second ADD finds its link. Whole, it is the result of the first; a fragment, which a killed plugin
/// left, makes place. An interface that is not ours stays.
fn attach(link: &PodLink, namespace: &NetNs, gate: Gate<'_>) -> Result<(), CniError> {
    match pod::attach(link, namespace, gate) {
        Err(error) if error.is_taken() => {}
        outcome => return outcome.map_err(failed),
    }
    match pod::verify(link, namespace) {
        Ok(findings) if findings.is_empty() => return Ok(()),
        Ok(_) => {}
        Err(error) => {
            return Err(CniError::new(
                Code::Network,
                format!("cannot look at the link: {error}"),
            ));
        }
    }
    if !remove_by_name(&link.host)? {
        let message = format!(
            "the container already has an interface {}, which is not ours",
            link.interface
        );
        return Err(CniError::new(Code::InvalidEnvironment, message));
    }
    pod::attach(link, namespace, gate).map_err(failed)
}

fn failed(error: AttachError) -> CniError {
    CniError::new(Code::Network, error.to_string())
}

/// Removes a link by its host-side name; `false` where there is none.
pub(super) fn remove_by_name(host: &str) -> Result<bool, CniError> {
    let removed = Netlink::open().and_then(|mut netlink| pod::remove(&mut netlink, host));
    removed.map_err(|error| {
        CniError::new(Code::Network, format!("cannot remove link {host}: {error}"))
    })
}

/// Gives the addresses back, unless a link that answers for them is still there, as after a second ADD
/// that failed. What stays, the runtime's DEL removes.
fn take_back(
    attachment: &Attachment<'_>,
    config: &NetworkConfig,
    host: &str,
    error: CniError,
) -> CniError {
    let found = Netlink::open().and_then(|mut netlink| pod::find(&mut netlink, host));
    if !matches!(found, Err(missing) if missing.errno() == libc::ENODEV) {
        return error.with_details(format!("link {host} and its addresses are left to DEL"));
    }
    let request = Request::Release {
        owner: (&attachment.owner).into(),
    };
    match client(config).call(&request) {
        Ok(Reply::Failed { message, .. }) => {
            error.with_details(format!("addresses not yet released: {message}"))
        }
        Ok(_) => error,
        Err(unreachable) => {
            error.with_details(format!("addresses not yet released: {unreachable}"))
        }
    }
}
