//! Builds the Node object. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeSpec, NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use super::machine::{Machine, Pressure};
use crate::cri::v1;

/// Images that a status lists at most (upstream's `nodeStatusMaxImages`).
const MAX_IMAGES: usize = 50;
/// The API level that this kubelet implements, with the build that does.
const KUBELET_VERSION: &str = concat!("v1.36.0+sluice.", env!("CARGO_PKG_VERSION"));

/// What does not change while the kubelet runs.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Name of the node.
    pub name: String,
    /// Hostname of the machine.
    pub hostname: String,
    /// Addresses, the primary one first.
    pub ips: Vec<String>,
    /// Port of the authenticated server.
    pub port: u16,
    /// Labels beside the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// Taints that the node registers with.
    pub taints: Vec<Taint>,
    /// Most pods at a time.
    pub max_pods: u32,
    /// CPU (thousandths) and memory (bytes) that pods may not use.
    pub reserved: (i64, i64),
    /// The machine.
    pub machine: Machine,
}

/// What may differ from one status to the next.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Name and version of the runtime, such as `containerd://1.6.20`.
    pub runtime_version: String,
    /// Why the node is not ready; empty when it is.
    pub not_ready: Vec<String>,
    /// What the machine is short of.
    pub pressure: Pressure,
    /// Images on the node.
    pub images: Vec<v1::Image>,
}

impl Identity {
    /// CPU (thousandths) and memory (bytes) that pods may use.
    pub fn allocatable(&self) -> (i64, i64) {
        let cpu = i64::try_from(self.machine.cpus * 1000).unwrap_or(i64::MAX) - self.reserved.0;
        let memory = i64::try_from(self.machine.memory).unwrap_or(i64::MAX) - self.reserved.1;
        (cpu.max(0), memory.max(0))
    }

    /// The well-known labels and the node's own.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname".into(), self.hostname.clone()),
            ("kubernetes.io/os".into(), "linux".into()),
            (
                "kubernetes.io/arch".into(),
                self.machine.architecture.clone(),
            ),
            ("beta.kubernetes.io/os".into(), "linux".into()),
            (
                "beta.kubernetes.io/arch".into(),
                self.machine.architecture.clone(),
            ),
        ]);
        labels.extend(self.labels.clone());
        labels
    }

    /// The object that is created when there is none.
    pub fn node(&self, facts: &Facts, now: Timestamp) -> Node {
        let taints = (!self.taints.is_empty()).then(|| self.taints.clone());
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.all_labels()),
                ..Default::default()
            },
            spec: Some(NodeSpec {
                taints,
                ..Default::default()
            }),
            status: Some(self.status(None, facts, now)),
        }
    }

    /// The status to report. What others wrote into the `old` one is kept.
    pub fn status(&self, old: Option<&NodeStatus>, facts: &Facts, now: Timestamp) -> NodeStatus {
        let known = old
            .and_then(|old| old.conditions.clone())
            .unwrap_or_default();
        NodeStatus {
            addresses: Some(self.addresses()),
            capacity: Some(self.resources((
                i64::try_from(self.machine.cpus * 1000).unwrap_or(i64::MAX),
                i64::try_from(self.machine.memory).unwrap_or(i64::MAX),
            ))),
            allocatable: Some(self.resources(self.allocatable())),
            conditions: Some(conditions(&known, facts, now)),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint {
                    port: i32::from(self.port),
                }),
            }),
            node_info: Some(self.info(facts)),
            images: Some(images(&facts.images)),
            ..old.cloned().unwrap_or_default()
        }
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        let address = |type_: &str, address: &str| NodeAddress {
            type_: type_.into(),
            address: address.into(),
        };
        let ips = self.ips.iter().map(|ip| address("InternalIP", ip));
        ips.chain([address("Hostname", &self.hostname)]).collect()
    }

    fn resources(&self, (cpu, memory): (i64, i64)) -> BTreeMap<String, Quantity> {
        let cpu = if cpu % 1000 == 0 {
            (cpu / 1000).to_string()
        } else {
            format!("{cpu}m")
        };
        BTreeMap::from([
            ("cpu".into(), Quantity(cpu)),
            ("memory".into(), Quantity(format!("{}Ki", memory / 1024))),
            ("pods".into(), Quantity(self.max_pods.to_string())),
            (
                "ephemeral-storage".into(),
                Quantity(format!("{}Ki", self.machine.disk / 1024)),
            ),
        ])
    }

    fn info(&self, facts: &Facts) -> NodeSystemInfo {
        let machine = &self.machine;
        NodeSystemInfo {
            architecture: machine.architecture.clone(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: facts.runtime_version.clone(),
            kernel_version: machine.kernel.clone(),
            kubelet_version: KUBELET_VERSION.into(),
            kube_proxy_version: String::new(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: machine.os_image.clone(),
            swap: None,
            system_uuid: machine.system_uuid.clone(),
        }
    }
}

/// The kubelet's conditions with fresh heartbeats; those of others as they are.
pub fn conditions(known: &[NodeCondition], facts: &Facts, now: Timestamp) -> Vec<NodeCondition> {
    let ready = match facts.not_ready.as_slice() {
        [] => (
            "True",
            "KubeletReady",
            "kubelet is posting ready status".to_owned(),
        ),
        why => ("False", "KubeletNotReady", why.join(", ")),
    };
    let pressure = |short: bool, bad: &'static str, good: &'static str, what: &str| {
        let (status, reason) = if short {
            ("True", bad)
        } else {
            ("False", good)
        };
        (
            status,
            reason,
            format!(
                "kubelet has {}{what}",
                if short {
                    "insufficient "
                } else {
                    "sufficient "
                }
            ),
        )
    };
    let short = facts.pressure;
    let memory = pressure(
        short.memory,
        "KubeletHasInsufficientMemory",
        "KubeletHasSufficientMemory",
        "memory available",
    );
    let disk = pressure(
        short.disk,
        "KubeletHasDiskPressure",
        "KubeletHasNoDiskPressure",
        "disk space available",
    );
    let pids = pressure(
        short.pids,
        "KubeletHasInsufficientPID",
        "KubeletHasSufficientPID",
        "PID available",
    );
    let own = [
        ("MemoryPressure", memory),
        ("DiskPressure", disk),
        ("PIDPressure", pids),
        ("Ready", ready),
    ];
    let names = own.each_ref().map(|(name, _)| *name);
    let old = |name: &str| known.iter().find(|condition| condition.type_ == name);
    let others = known
        .iter()
        .filter(|condition| !names.contains(&condition.type_.as_str()))
        .cloned();
    let fresh = own.iter().map(|(name, (status, reason, message))| {
        let unchanged = old(name)
            .filter(|old| old.status == *status)
            .and_then(|old| old.last_transition_time.clone());
        NodeCondition {
            type_: (*name).into(),
            status: (*status).into(),
            reason: Some((*reason).into()),
            message: Some(message.clone()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: unchanged.or(Some(Time(now))),
        }
    });
    fresh.chain(others).collect()
}

/// The largest images, with all their names.
fn images(all: &[v1::Image]) -> Vec<ContainerImage> {
    let mut all: Vec<_> = all.iter().collect();
    all.sort_by_key(|image| std::cmp::Reverse(image.size));
    let image = |image: &v1::Image| ContainerImage {
        names: Some(
            image
                .repo_digests
                .iter()
                .chain(&image.repo_tags)
                .cloned()
                .collect(),
        ),
        size_bytes: i64::try_from(image.size).ok(),
    };
    all.into_iter().take(MAX_IMAGES).map(image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn identity() -> Identity {
        let machine = Machine {
            cpus: 2,
            memory: 4 << 30,
            disk: 1 << 30,
            architecture: "amd64".into(),
            ..Default::default()
        };
        Identity {
            name: "node1".into(),
            hostname: "host1".into(),
            ips: vec!["192.0.2.1".into(), "2001:db8::1".into()],
            port: 10250,
            max_pods: 110,
            reserved: (500, 1 << 30),
            machine,
            ..Default::default()
        }
    }

    #[test]
    fn a_node_says_what_it_has_and_where_it_is() {
        let node = identity().node(&Facts::default(), at(1));
        let status = node.status.unwrap();
        let addresses: Vec<_> = status
            .addresses
            .unwrap()
            .into_iter()
            .map(|a| (a.type_, a.address))
            .collect();
        assert_eq!(
            addresses[1],
            ("InternalIP".to_owned(), "2001:db8::1".to_owned())
        );
        assert_eq!(addresses[2], ("Hostname".to_owned(), "host1".to_owned()));
        let (capacity, allocatable) = (status.capacity.unwrap(), status.allocatable.unwrap());
        assert_eq!(
            (capacity["cpu"].0.as_str(), allocatable["cpu"].0.as_str()),
            ("2", "1500m")
        );
        assert_eq!(
            (
                capacity["memory"].0.as_str(),
                allocatable["memory"].0.as_str()
            ),
            ("4194304Ki", "3145728Ki")
        );
        assert_eq!(node.metadata.labels.unwrap()["kubernetes.io/arch"], "amd64");
    }

    #[test]
    fn conditions_keep_their_transition_times_and_those_of_others() {
        let other = NodeCondition {
            type_: "NetworkUnavailable".into(),
            status: "False".into(),
            ..Default::default()
        };
        let first = conditions(&[other], &Facts::default(), at(1));
        let broken = Facts {
            not_ready: vec!["container runtime network not ready".into()],
            ..Default::default()
        };
        let second = conditions(&first, &broken, at(2));
        let find = |name: &str| {
            second
                .iter()
                .find(|condition| condition.type_ == name)
                .unwrap()
        };
        assert_eq!(
            (
                find("Ready").status.as_str(),
                find("Ready").last_transition_time.clone()
            ),
            ("False", Some(Time(at(2))))
        );
        assert_eq!(
            find("MemoryPressure").last_transition_time,
            Some(Time(at(1)))
        );
        assert_eq!(
            find("MemoryPressure").last_heartbeat_time,
            Some(Time(at(2)))
        );
        assert_eq!(find("NetworkUnavailable").status, "False");
    }
}
