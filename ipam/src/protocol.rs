//! What the plugin and the command line say to the daemon over its unix socket, and its answers.
//!
//! A message is a u32 length, little-endian, and so many bytes of JSON. One connection carries any number
//! of requests, each answered in turn. Every request may be repeated: the daemon's answer is the same.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::allocator::{Allocation, Owner, PoolUsage};

/// The protocol's version. A daemon answers only its own; plugin and daemon are installed together.
pub const VERSION: u16 = 1;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/sluice/ipam.sock";

/// The largest message: a garbage collection that names 100,000 attachments fits.
pub const MAX_MESSAGE: usize = 64 << 20;

/// A message with the version that its sender speaks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// [`VERSION`].
    pub version: u16,
    /// The message itself.
    pub body: T,
}

/// One interface of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub interface: String,
}

impl From<&Attachment> for Owner {
    fn from(attachment: &Attachment) -> Self {
        Owner::new(&attachment.container_id, &attachment.interface)
    }
}

impl From<&Owner> for Attachment {
    fn from(owner: &Owner) -> Self {
        Self {
            container_id: owner.container_id.clone(),
            interface: owner.interface.clone(),
        }
    }
}

/// What the runtime tells of a pod; empty without Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_NAME.
    pub name: String,
    /// K8S_POD_UID.
    pub uid: String,
}

/// A question to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Request {
    /// Addresses for an attachment: those that it has, or new ones.
    Assign {
        /// Whose.
        owner: Attachment,
        /// The CNI network's name.
        network: String,
        /// The pod.
        pod: Pod,
        /// Exactly these addresses; any where empty.
        fixed: Vec<IpAddr>,
    },
    /// What an attachment has.
    Lookup {
        /// Whose.
        owner: Attachment,
    },
    /// Frees what an attachment has. Its link must be gone.
    Release {
        /// Whose.
        owner: Attachment,
    },
    /// Removes the links and frees the addresses of all attachments of a network but these.
    Retain {
        /// The CNI network's name.
        network: String,
        /// Those that are alive.
        keep: Vec<Attachment>,
    },
    /// Whether the daemon can serve [`Request::Assign`].
    Status,
    /// Pools and allocations.
    Show,
    /// Allocations beside the links and routes that the kernel has.
    Check,
    /// An operator frees an allocation, named by an address of it, or by its container id.
    Free {
        /// An address, or a container id, or CONTAINER/INTERFACE.
        target: String,
        /// Also when its link is still there.
        force: bool,
    },
}

/// One owner and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Whose.
    pub owner: Attachment,
    /// The CNI network's name.
    pub network: String,
    /// The pod.
    pub pod: Pod,
    /// The addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Seconds since the Unix epoch.
    pub assigned_at: u64,
    /// The host-side link's name.
    pub link: String,
}

impl From<Allocation> for Held {
    fn from(allocation: Allocation) -> Self {
        let details = allocation.details;
        Self {
            link: crate::links::names::host_link(allocation.owner.key()),
            owner: (&allocation.owner).into(),
            network: details.network,
            pod: Pod {
                namespace: details.pod_namespace,
                name: details.pod_name,
                uid: details.pod_uid,
            },
            addresses: allocation.addresses,
            assigned_at: details.assigned_at,
        }
    }
}

/// A difference between what is allocated and what the kernel has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// An allocation without a link: a pod that is being made or removed, or a leak.
    NoLink {
        /// The allocation.
        held: Held,
    },
    /// A link of ours that belongs to no allocation.
    NoAllocation {
        /// The link.
        link: String,
    },
    /// A pod's address that the host does not route to its link.
    NoRoute {
        /// The allocation.
        held: Held,
        /// The address.
        address: IpAddr,
    },
}

/// Why a request failed, as far as the asker acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The daemon has no pools yet. Ask again later.
    NotReady,
    /// No address is free. Ask again later.
    Exhausted,
    /// The disk refuses. Ask again later.
    Disk,
    /// The request cannot be fulfilled as it is.
    Invalid,
    /// There is no such allocation.
    NotFound,
    /// The allocation's link is still there.
    InUse,
    /// Asker and daemon speak different versions.
    Version,
    /// The kernel refuses.
    Kernel,
}

/// The daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Reply {
    /// To Assign and Lookup.
    Assigned {
        /// IPv4 first.
        addresses: Vec<IpAddr>,
        /// For the pod's link, in bytes.
        mtu: u32,
    },
    /// To Release; empty where nothing was held.
    Released {
        /// IPv4 first.
        addresses: Vec<IpAddr>,
    },
    /// To Retain and Free.
    Freed {
        /// What was freed.
        gone: Vec<Held>,
    },
    /// To Status.
    Ready,
    /// To Show.
    Shown {
        /// How full the pools are.
        pools: Vec<PoolUsage>,
        /// By address.
        held: Vec<Held>,
    },
    /// To Check.
    Checked {
        /// Empty where all is well.
        findings: Vec<Finding>,
    },
    /// To anything.
    Failed {
        /// For the program.
        reason: Reason,
        /// For the reader.
        message: String,
    },
}

/// Encodes a message with its length.
pub fn encode<T: Serialize>(body: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(
        &mut bytes,
        &Envelope {
            version: VERSION,
            body,
        },
    )?;
    let length = bytes.len() - 4;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the message is too long",
        ));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// Checks a length that was received.
pub fn length(bytes: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(bytes) as usize;
    match length <= MAX_MESSAGE {
        true => Ok(length),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the message is too long",
        )),
    }
}

/// Writes one message.
pub fn send<T: Serialize>(stream: &mut impl Write, body: &T) -> io::Result<()> {
    stream.write_all(&encode(body)?)
}

/// Reads one message.
pub fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Envelope<T>> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let mut bytes = Vec::new();
    let length = length(prefix)?;
    stream.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let request = Request::Release {
            owner: Attachment {
                container_id: "abc".into(),
                interface: "eth0".into(),
            },
        };
        let mut wire = Vec::new();
        send(&mut wire, &request).unwrap();
        let received: Envelope<Request> = receive(&mut wire.as_slice()).unwrap();
        assert_eq!((received.version, received.body), (VERSION, request));
    }

    #[test]
    fn truncated_and_oversized_messages_are_errors() {
        let mut wire = Vec::new();
        send(&mut wire, &Request::Status).unwrap();
        for length in 0..wire.len() {
            assert!(receive::<Request>(&mut &wire[..length]).is_err());
        }
        let huge = u32::MAX.to_le_bytes();
        assert!(receive::<Request>(&mut huge.as_slice()).is_err());
    }
}
