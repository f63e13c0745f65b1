//! Requests and limits as the numbers that cgroups want (upstream's `MilliCPUToShares`, `MilliCPUToQuota` and
//! `GetContainerOOMScoreAdjust`).

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::qos::{self, QosClass};
use super::spec::{self, Role};
use crate::cri::v1;
use crate::quantity;

/// CFS period, in microseconds.
pub const CPU_PERIOD: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA: i64 = 1000;

/// CPU weight in cgroup v1's unit, from thousandths of a CPU.
pub fn cpu_shares(milli: i64) -> i64 {
    if milli == 0 {
        MIN_SHARES
    } else {
        (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
    }
}

/// CFS quota in microseconds per [`CPU_PERIOD`]; 0 for no limit.
pub fn cpu_quota(milli: i64) -> i64 {
    if milli == 0 {
        0
    } else {
        (milli.saturating_mul(CPU_PERIOD) / 1000).max(MIN_QUOTA)
    }
}

/// A limit or request of a container; a request defaults to the limit. CPU in thousandths, others in units.
fn limit(container: &Container, resource: &str) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    measure(resource, resources.limits.as_ref()?.get(resource)?)
}

fn request(container: &Container, resource: &str) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    let asked = resources
        .requests
        .as_ref()
        .and_then(|requests| requests.get(resource));
    asked
        .and_then(|asked| measure(resource, asked))
        .or_else(|| limit(container, resource))
}

fn measure(resource: &str, amount: &Quantity) -> Option<i64> {
    let number = if resource == "cpu" {
        quantity::milli(amount)
    } else {
        quantity::value(amount)
    };
    number.filter(|number| *number > 0)
}

/// Resources of one container for the runtime. `capacity` is the node's memory in bytes.
pub fn for_container(
    pod: &Pod,
    container: &Container,
    capacity: u64,
) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: limit(container, "cpu").map_or(0, cpu_quota),
        cpu_shares: cpu_shares(request(container, "cpu").unwrap_or(0)),
        memory_limit_in_bytes: limit(container, "memory").unwrap_or(0),
        oom_score_adj: oom_score_adj(pod, container, capacity),
        ..Default::default()
    }
}

/// Who is killed first when the node runs out of memory: the lower, the later.
fn oom_score_adj(pod: &Pod, container: &Container, capacity: u64) -> i64 {
    match qos::class(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let requested = request(container, "memory").unwrap_or(0);
            let capacity = i64::try_from(capacity).unwrap_or(i64::MAX).max(1);
            let share = i128::from(requested) * 1000 / i128::from(capacity);
            (1000 - i64::try_from(share).unwrap_or(1000)).clamp(3, 999)
        }
    }
}

/// What a whole pod may use, for its cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodResources {
    /// CPU requests in thousandths.
    pub cpu_request: i64,
    /// CPU limit in thousandths, when every container has one.
    pub cpu_limit: Option<i64>,
    /// Memory limit in bytes, when every container has one.
    pub memory_limit: Option<i64>,
}

/// Sums over the pod's containers: main containers and sidecars together, but at least what any init container needs.
pub fn for_pod(pod: &Pod) -> PodResources {
    PodResources {
        cpu_request: total(pod, |container| {
            Some(request(container, "cpu").unwrap_or(0))
        })
        .unwrap_or(0),
        cpu_limit: total(pod, |container| limit(container, "cpu")),
        memory_limit: total(pod, |container| limit(container, "memory")),
    }
}

fn total(pod: &Pod, amount: impl Fn(&Container) -> Option<i64>) -> Option<i64> {
    let (mut running, mut highest_init) = (0_i64, 0_i64);
    for (container, role) in spec::all_containers(pod) {
        let amount = amount(container)?;
        match role {
            Role::Init => highest_init = highest_init.max(running.saturating_add(amount)),
            Role::Main | Role::Sidecar => running = running.saturating_add(amount),
        }
    }
    Some(running.max(highest_init))
}

/// A `resourceFieldRef`: the amount of `resource` (such as `limits.cpu`) in units of `divisor`, rounded up. Limits
/// that are not set are the node's `capacity` of (thousandths of CPU, bytes of memory).
pub fn field(
    container: &Container,
    resource: &str,
    divisor: Option<&Quantity>,
    capacity: (i64, i64),
) -> Option<i64> {
    let (which, name) = resource.split_once('.')?;
    let set = if which == "limits" {
        limit(container, name)
    } else {
        request(container, name)
    };
    let default = match (which, name) {
        ("limits", "cpu") => capacity.0,
        ("limits", "memory") => capacity.1,
        _ => 0,
    };
    let amount = set.unwrap_or(default);
    let divisor = divisor
        .and_then(|divisor| measure(name, divisor))
        .unwrap_or(if name == "cpu" { 1000 } else { 1 });
    Some(amount.saturating_add(divisor - 1) / divisor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap()
    }

    #[test]
    fn shares_and_quotas_are_clamped_as_the_kernel_wants() {
        assert_eq!(
            [
                cpu_shares(0),
                cpu_shares(1),
                cpu_shares(500),
                cpu_shares(10_000_000)
            ],
            [2, 2, 512, 262_144]
        );
        assert_eq!(
            [cpu_quota(0), cpu_quota(1), cpu_quota(500)],
            [0, 1000, 50_000]
        );
    }

    #[test]
    fn a_pod_has_a_limit_only_when_every_container_has_one() {
        let limited =
            json!({ "name": "a", "resources": { "limits": { "cpu": "1", "memory": "1Mi" } } });
        let both = for_pod(&pod(json!({ "containers": [limited, limited] })));
        assert_eq!(
            (both.cpu_limit, both.memory_limit, both.cpu_request),
            (Some(2000), Some(2 << 20), 2000)
        );
        let one = for_pod(&pod(json!({ "containers": [limited, { "name": "b" }] })));
        assert_eq!(
            (one.cpu_limit, one.memory_limit, one.cpu_request),
            (None, None, 1000)
        );
    }

    #[test]
    fn init_containers_count_by_the_highest() {
        let sized = |cpu: &str| json!({ "name": "a", "resources": { "requests": { "cpu": cpu } } });
        let pod = pod(
            json!({ "initContainers": [sized("3"), sized("1")], "containers": [sized("1"), sized("1")] }),
        );
        assert_eq!(for_pod(&pod).cpu_request, 3000);
    }

    #[test]
    fn fields_round_up_and_fall_back_to_the_node() {
        let container: Container = serde_json::from_value(
            json!({ "name": "a", "resources": { "limits": { "cpu": "250m" } } }),
        )
        .unwrap();
        let capacity = (4000, 8 << 30);
        assert_eq!(field(&container, "limits.cpu", None, capacity), Some(1));
        assert_eq!(
            field(
                &container,
                "limits.cpu",
                Some(&Quantity("1m".into())),
                capacity
            ),
            Some(250)
        );
        assert_eq!(
            field(
                &container,
                "limits.memory",
                Some(&Quantity("1Gi".into())),
                capacity
            ),
            Some(8)
        );
        assert_eq!(
            field(&container, "requests.memory", None, capacity),
            Some(0)
        );
    }
}
