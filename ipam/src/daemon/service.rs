//! The daemon's answers. Everything here may block.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::inventory;
use crate::allocator::{Allocation, Allocator, Details, Error, Owner, Refusal};
use crate::links::netlink::{Netlink, NetlinkError};
use crate::links::{names, pod};
use crate::protocol::{Attachment, Held, Pod, Reason, Reply, Request};

/// What requests are answered from.
pub(super) struct Service {
    pub(super) allocator: Allocator,
    fixed_mtu: Option<u32>,
    mtu: AtomicU32,
}

/// A request that failed.
struct Failure {
    reason: Reason,
    message: String,
}

impl Failure {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::Refused(Refusal::NoPool) => Reason::NotReady,
            Error::Refused(Refusal::Exhausted { .. }) => Reason::Exhausted,
            Error::Refused(_) | Error::TooLong { .. } => Reason::Invalid,
            Error::Write(_) | Error::Read(_) => Reason::Disk,
        };
        // With all its causes.
        Self::new(reason, format!("{:#}", anyhow::Error::from(error)))
    }
}

impl From<NetlinkError> for Failure {
    fn from(error: NetlinkError) -> Self {
        Self::new(Reason::Kernel, error.to_string())
    }
}

impl Service {
    pub(super) fn new(allocator: Allocator, fixed_mtu: Option<u32>) -> Self {
        let mtu = AtomicU32::new(fixed_mtu.unwrap_or(1500));
        Self {
            allocator,
            fixed_mtu,
            mtu,
        }
    }

    /// Follows the uplink's MTU, unless the operator chose one. New pods get it.
    pub(super) fn follow_mtu(&self, uplink: u32) {
        let mtu = self.fixed_mtu.unwrap_or(uplink);
        if self.mtu.swap(mtu, Ordering::Relaxed) != mtu {
            tracing::info!(mtu, "pods' links get a new MTU");
        }
    }

    pub(super) fn answer(&self, request: Request) -> Reply {
        self.try_answer(request)
            .unwrap_or_else(|Failure { reason, message }| {
                tracing::debug!(?reason, message, "refused a request");
                Reply::Failed { reason, message }
            })
    }

    fn try_answer(&self, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Assign {
                owner,
                network,
                pod,
                fixed,
            } => self.assign(&owner, network, pod, &fixed),
            Request::Lookup { owner } => self.lookup(&owner),
            Request::Release { owner } => self.release(&owner),
            Request::Retain { network, keep } => self.retain(&network, &keep),
            Request::Status => self.status(),
            Request::Show => self.show(),
            Request::Check => self.check(),
            Request::Free { target, force } => self.free(&target, force),
        }
    }

    fn assigned(&self, addresses: Vec<IpAddr>) -> Reply {
        Reply::Assigned {
            addresses,
            mtu: self.mtu.load(Ordering::Relaxed),
        }
    }

    fn assign(
        &self,
        owner: &Attachment,
        network: String,
        pod: Pod,
        fixed: &[IpAddr],
    ) -> Result<Reply, Failure> {
        let details = Details {
            network,
            pod_namespace: pod.namespace,
            pod_name: pod.name,
            pod_uid: pod.uid,
            assigned_at: 0,
        };
        let addresses = self.allocator.assign(&owner.into(), details, fixed)?;
        tracing::debug!(container = owner.container_id, ?addresses, "assigned");
        Ok(self.assigned(addresses))
    }

    fn lookup(&self, owner: &Attachment) -> Result<Reply, Failure> {
        let addresses = self.allocator.lookup(&owner.into());
        match addresses.is_empty() {
            false => Ok(self.assigned(addresses)),
            true => Err(Failure::new(
                Reason::NotFound,
                format!(
                    "container {} holds no address for {}",
                    owner.container_id, owner.interface
                ),
            )),
        }
    }

    fn release(&self, owner: &Attachment) -> Result<Reply, Failure> {
        let addresses = self.allocator.release(&owner.into())?;
        tracing::debug!(container = owner.container_id, ?addresses, "released");
        Ok(Reply::Released { addresses })
    }

    fn retain(&self, network: &str, keep: &[Attachment]) -> Result<Reply, Failure> {
        let keep: HashSet<Owner> = keep.iter().map(Owner::from).collect();
        let all = self.allocator.list()?;
        let dead = all
            .into_iter()
            .filter(|a| a.details.network == network && !keep.contains(&a.owner));
        self.remove(dead.collect())
    }

    /// The links first: an address may go to another pod only when nothing answers for it any more.
    fn remove(&self, allocations: Vec<Allocation>) -> Result<Reply, Failure> {
        let mut netlink = Netlink::open()?;
        for allocation in &allocations {
            pod::remove(&mut netlink, &names::host_link(allocation.owner.key()))?;
            self.allocator.release(&allocation.owner)?;
            tracing::info!(owner = %allocation.owner, addresses = ?allocation.addresses, "freed");
        }
        Ok(Reply::Freed {
            gone: allocations.into_iter().map(Held::from).collect(),
        })
    }

    fn status(&self) -> Result<Reply, Failure> {
        let pools = self.allocator.usage();
        let mut families = [None, None];
        for pool in pools.iter().filter(|pool| pool.active) {
            let free: &mut Option<u64> = &mut families[usize::from(pool.cidr.is_ipv6())];
            *free = Some(free.unwrap_or(0).saturating_add(pool.free));
        }
        match families {
            [None, None] => Err(Refusal::NoPool).map_err(|refusal| Error::from(refusal).into()),
            [Some(0), _] => Err(Failure::new(Reason::Exhausted, "no IPv4 address is free")),
            [_, Some(0)] => Err(Failure::new(Reason::Exhausted, "no IPv6 address is free")),
            _ => Ok(Reply::Ready),
        }
    }

    fn show(&self) -> Result<Reply, Failure> {
        let held = self.allocator.list()?.into_iter().map(Held::from).collect();
        Ok(Reply::Shown {
            pools: self.allocator.usage(),
            held,
        })
    }

    fn check(&self) -> Result<Reply, Failure> {
        let kernel = inventory::Kernel::read(&mut Netlink::open()?)?;
        let held = self.allocator.list()?.into_iter().map(Held::from);
        Ok(Reply::Checked {
            findings: inventory::compare(&kernel, held.collect()),
        })
    }

    fn free(&self, target: &str, force: bool) -> Result<Reply, Failure> {
        let mut found = self.allocator.list()?;
        found.retain(|allocation| is_named(allocation, target));
        let Some(first) = found.first() else {
            return Err(Failure::new(
                Reason::NotFound,
                format!("nobody holds {target}"),
            ));
        };
        let links = pod::links(&mut Netlink::open()?)?;
        let linked = |a: &Allocation| {
            links
                .iter()
                .any(|link| link.name == names::host_link(a.owner.key()))
        };
        if !force && found.iter().any(linked) {
            let message = format!(
                "{} still has its link; a pod may be using it (--force removes it)",
                first.owner
            );
            return Err(Failure::new(Reason::InUse, message));
        }
        self.remove(found)
    }
}

fn is_named(allocation: &Allocation, target: &str) -> bool {
    match target.parse::<IpAddr>() {
        Ok(address) => allocation.addresses.contains(&address),
        Err(_) => allocation.owner.container_id == target || allocation.owner.to_string() == target,
    }
}
