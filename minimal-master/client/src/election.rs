//! Leadership by Lease: of several masters one schedules and controls, the others stand by.
//!
//! The rules are client-go's: a candidate takes the Lease when it is free or when it has *seen* no
//! renewal for a whole lease duration. The time is measured on the candidate's own clock from the
//! moment it saw the record change, so clocks of different machines are never compared. The leader
//! gives up after `renew_deadline` without a successful renewal, which is shorter than the lease,
//! so two leaders never overlap as long as clocks run at about the same speed.

use std::{future::Future, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Who runs for which Lease, and how patiently.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Unique per process, for example host name and a random suffix.
    pub identity: String,
    /// How long others wait after the last renewal they saw.
    pub lease_duration: Duration,
    /// How long the leader goes on without a successful renewal.
    pub renew_deadline: Duration,
    /// Time between attempts.
    pub retry_period: Duration,
}

impl Candidate {
    /// A candidate with upstream's times: 15 s, 10 s, 2 s.
    pub fn new(namespace: &str, name: &str, identity: String) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity,
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// What to do with the Lease as it was read.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It is ours: renew it.
    Renew,
    /// It is free or its holder is silent for too long: take it.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// The record as last seen, and when it was last seen to change.
#[derive(Debug)]
struct Observation {
    spec: LeaseSpec,
    changed_at: Instant,
}

fn decide(me: &str, seen: &Observation, now: Instant) -> Decision {
    let holder = seen.spec.holder_identity.as_deref().unwrap_or("");
    let seconds = seen.spec.lease_duration_seconds.unwrap_or(0);
    let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    if holder == me {
        Decision::Renew
    } else if holder.is_empty() || now.duration_since(seen.changed_at) >= duration {
        Decision::Take
    } else {
        Decision::Wait
    }
}

struct Elector {
    candidate: Candidate,
    api: Api<Lease>,
    seen: Option<Observation>,
}

/// Leads whenever elected until `stop` is cancelled; `lead` gets a token that is cancelled when leadership is lost.
///
/// Gives the Lease back at the end so that the next leader need not wait for it to run out.
pub async fn run<F, Fut>(client: Client, candidate: Candidate, stop: CancellationToken, lead: F)
where
    F: Fn(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    let api = Api::namespaced(client, &candidate.namespace);
    let mut elector = Elector {
        candidate,
        api,
        seen: None,
    };
    while elector.acquire(&stop).await {
        tracing::info!(identity = %elector.candidate.identity, "became leader");
        let term = stop.child_token();
        let work = lead(term.clone());
        let keep = async {
            elector.renew_until_lost(&term).await;
            term.cancel();
        };
        futures::join!(work, keep);
        if stop.is_cancelled() {
            elector.release().await;
        } else {
            tracing::warn!(identity = %elector.candidate.identity, "leadership lost");
        }
    }
}

impl Elector {
    /// Waits until this candidate leads; false when stopped first.
    async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        loop {
            if stop.is_cancelled() {
                return false;
            }
            match self.attempt().await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "leader election attempt failed"),
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(self.candidate.retry_period) => {}
            }
        }
    }

    async fn renew_until_lost(&mut self, term: &CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = term.cancelled() => return,
                () = tokio::time::sleep(self.candidate.retry_period) => {}
            }
            let deadline = renewed + self.candidate.renew_deadline;
            match tokio::time::timeout_at(deadline, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => tracing::debug!(%error, "renewing leadership failed"),
            }
        }
    }

    /// One attempt to create, take or renew the Lease; true when it is ours afterwards.
    async fn attempt(&mut self) -> kube::Result<bool> {
        let Some(mut lease) = self.api.get_opt(&self.candidate.name).await? else {
            let lease = self.new_lease();
            let created = self.api.create(&PostParams::default(), &lease).await;
            return won(created);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let identity = self.candidate.identity.clone();
        let decision = decide(&identity, self.observe(spec), Instant::now());
        if decision == Decision::Wait {
            return Ok(false);
        }
        lease.spec = Some(self.record(lease.spec.unwrap_or_default(), &decision));
        let replaced = self
            .api
            .replace(&self.candidate.name, &PostParams::default(), &lease)
            .await;
        won(replaced)
    }

    fn observe(&mut self, spec: LeaseSpec) -> &Observation {
        let changed = self.seen.as_ref().is_none_or(|seen| seen.spec != spec);
        if changed {
            self.seen = None;
        }
        self.seen.get_or_insert_with(|| Observation {
            spec,
            changed_at: Instant::now(),
        })
    }

    fn record(&self, mut spec: LeaseSpec, decision: &Decision) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        if *decision == Decision::Take {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
        }
        spec.holder_identity = Some(self.candidate.identity.clone());
        spec.lease_duration_seconds = i32::try_from(self.candidate.lease_duration.as_secs()).ok();
        spec.renew_time = Some(now);
        spec
    }

    fn new_lease(&self) -> Lease {
        let mut spec = self.record(LeaseSpec::default(), &Decision::Take);
        spec.lease_transitions = Some(0);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.candidate.name.clone()),
                namespace: Some(self.candidate.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
        }
    }

    async fn release(&mut self) {
        let released = async {
            let mut lease = self.api.get(&self.candidate.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.candidate.identity) {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
                self.api
                    .replace(&self.candidate.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(self.candidate.retry_period, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "leadership not released"),
            Err(_) => tracing::debug!("leadership not released in time"),
        }
    }
}

/// A conflict means that another candidate was quicker.
fn won(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if crate::is_conflict(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: Option<&str>, ago: u64, now: Instant) -> Observation {
        Observation {
            spec: LeaseSpec {
                holder_identity: holder.map(Into::into),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            },
            changed_at: now - Duration::from_secs(ago),
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_free_or_silent_for_its_duration() {
        let now = Instant::now() + Duration::from_secs(100);
        assert_eq!(
            decide("me", &seen(Some("me"), 90, now), now),
            Decision::Renew
        );
        assert_eq!(decide("me", &seen(None, 0, now), now), Decision::Take);
        assert_eq!(decide("me", &seen(Some(""), 0, now), now), Decision::Take);
        assert_eq!(
            decide("me", &seen(Some("you"), 14, now), now),
            Decision::Wait
        );
        assert_eq!(
            decide("me", &seen(Some("you"), 15, now), now),
            Decision::Take
        );
    }
}
