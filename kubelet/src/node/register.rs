//! Keeps the Node object: creates it, also again after somebody deleted it, and reports its status when something
//! has changed, at least every five minutes (the Lease says that the node is alive in between).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, PostParams};
use tokio_util::sync::CancellationToken;

use super::{Facts, Identity, Pressure};
use crate::cri::{Runtime, v1};
use crate::pods::relist::Relisted;

/// An unchanged status is reported this often (upstream's `nodeStatusReportFrequency`).
const REPORT: SignedDuration = SignedDuration::from_secs(300);
/// Pause after a failed try.
const RETRY: Duration = Duration::from_secs(1);
/// Limit of one try.
const LIMIT: Duration = Duration::from_secs(20);

/// How the Node is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between two looks at the node (`nodeStatusUpdateFrequency`).
    pub frequency: Duration,
    /// The directory whose file system must not be full.
    pub root_dir: PathBuf,
}

/// Keeps the Node object of this machine.
pub struct Registrar {
    client: kube::Client,
    runtime: Arc<dyn Runtime>,
    relisted: Arc<Relisted>,
    identity: Arc<Identity>,
    settings: Settings,
    reported_at: Option<Timestamp>,
}

impl Registrar {
    /// A registrar that has not registered yet.
    pub fn new(
        client: kube::Client,
        runtime: Arc<dyn Runtime>,
        relisted: Arc<Relisted>,
        identity: Arc<Identity>,
        settings: Settings,
    ) -> Self {
        Self {
            client,
            runtime,
            relisted,
            identity,
            settings,
            reported_at: None,
        }
    }

    /// Keeps the Node until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let forever = async {
            loop {
                let report = tokio::time::timeout(LIMIT, self.report()).await;
                let report = report.map_err(|_| "it took too long".to_owned());
                let pause = match report.and_then(|done| done.map_err(|error| error.to_string())) {
                    // A node that is not ready looks again soon, so that it becomes ready as soon as it can.
                    Ok(true) => self.settings.frequency,
                    Ok(false) => RETRY,
                    Err(error) => {
                        tracing::warn!(error, "the node's status was not reported; trying again");
                        RETRY
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        stop.run_until_cancelled(forever).await;
    }

    /// Creates or updates the Node; true when it is ready.
    async fn report(&mut self) -> Result<bool, kube::Error> {
        let facts = self.facts().await;
        let now = Timestamp::now();
        let ready = facts.not_ready.is_empty();
        let nodes: Api<Node> = Api::all(self.client.clone());
        let Some(mut node) = nodes.get_opt(&self.identity.name).await? else {
            nodes
                .create(&PostParams::default(), &self.identity.node(&facts, now))
                .await?;
            tracing::info!(node = self.identity.name, "registered");
            self.reported_at = Some(now);
            return Ok(ready);
        };
        if self.relabel(&mut node) {
            node = nodes
                .replace(&self.identity.name, &PostParams::default(), &node)
                .await?;
        }
        let status = self.identity.status(node.status.as_ref(), &facts, now);
        let due = self
            .reported_at
            .is_none_or(|at| now.duration_since(at) >= REPORT);
        if due || changed(node.status.as_ref(), &status) {
            node.status = Some(status);
            nodes
                .replace_status(&self.identity.name, &PostParams::default(), &node)
                .await?;
            self.reported_at = Some(now);
        }
        Ok(ready)
    }

    /// Sets the labels that the kubelet owns; true when one was missing or different.
    fn relabel(&self, node: &mut Node) -> bool {
        let labels = node.metadata.labels.get_or_insert_default();
        let wanted = self.identity.all_labels();
        let differs = wanted
            .iter()
            .any(|(key, value)| labels.get(key) != Some(value));
        labels.extend(wanted);
        differs
    }

    async fn facts(&self) -> Facts {
        let version = self.runtime.version().await.unwrap_or_default();
        Facts {
            runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
            not_ready: self.not_ready().await,
            pressure: Pressure::read(&self.settings.root_dir),
            images: self.runtime.list_images().await.unwrap_or_default(),
        }
    }

    async fn not_ready(&self) -> Vec<String> {
        let mut why: Vec<_> = self.relisted.check().err().into_iter().collect();
        match self.runtime.status().await {
            Ok(status) => why.extend(unmet(&status)),
            Err(error) => why.push(format!("container runtime is down: {error}")),
        }
        why
    }
}

fn unmet(status: &v1::RuntimeStatus) -> Vec<String> {
    let word = |kind: &str| {
        if kind == "NetworkReady" {
            "container runtime network"
        } else {
            "container runtime"
        }
    };
    let unmet = |condition: &&v1::RuntimeCondition| {
        matches!(condition.r#type.as_str(), "RuntimeReady" | "NetworkReady") && !condition.status
    };
    let words = |condition: &v1::RuntimeCondition| {
        let (kind, reason, message) = (&condition.r#type, &condition.reason, &condition.message);
        format!(
            "{} not ready: {kind}=false reason:{reason} message:{message}",
            word(kind)
        )
    };
    status.conditions.iter().filter(unmet).map(words).collect()
}

/// Whether something other than heartbeats differs.
fn changed(old: Option<&NodeStatus>, new: &NodeStatus) -> bool {
    let without_heartbeats = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
            condition.last_transition_time = None;
        }
        status
            .conditions
            .iter_mut()
            .for_each(|all| all.sort_by(|a, b| a.type_.cmp(&b.type_)));
        serde_json::to_value(status).ok()
    };
    old.and_then(without_heartbeats) != without_heartbeats(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_alone_are_no_change() {
        let identity = Identity {
            name: "n".into(),
            ..Default::default()
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = identity.status(None, &Facts::default(), at(1));
        let second = identity.status(Some(&first), &Facts::default(), at(2));
        assert!(!changed(Some(&first), &second));
        let broken = Facts {
            not_ready: vec!["x".into()],
            ..Default::default()
        };
        assert!(changed(
            Some(&first),
            &identity.status(Some(&first), &broken, at(3))
        ));
        assert!(changed(None, &first));
    }

    #[test]
    fn unmet_conditions_are_worded_as_users_know_them() {
        let condition = v1::RuntimeCondition {
            r#type: "NetworkReady".into(),
            status: false,
            reason: "NetworkPluginNotReady".into(),
            message: "cni plugin not initialized".into(),
        };
        let words = unmet(&v1::RuntimeStatus {
            conditions: vec![condition],
        });
        assert_eq!(
            words,
            [
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not initialized"
            ]
        );
    }
}
