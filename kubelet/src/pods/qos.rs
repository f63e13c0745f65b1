//! Quality-of-service class of a pod (upstream's `GetPodQOS`): decides its place in the cgroup tree and which
//! process the kernel kills first.

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

use super::spec;
use crate::quantity;

/// A pod's class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has limits for CPU and memory, and requests equal to them.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// No container asks for anything.
    BestEffort,
}

impl QosClass {
    /// As it is written in the pod's status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The class of a pod, from the requests and limits of all its containers.
pub fn class(pod: &Pod) -> QosClass {
    let empty = ResourceRequirements::default();
    let mut all = spec::all_containers(pod)
        .map(|(c, _)| c.resources.as_ref().unwrap_or(&empty))
        .peekable();
    if all.peek().is_none() {
        return QosClass::BestEffort;
    }
    let (mut any, mut guaranteed) = (false, true);
    for resources in all {
        for resource in ["cpu", "memory"] {
            let limit = amount(resources.limits.as_ref(), resource);
            let request = amount(resources.requests.as_ref(), resource).or(limit);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (_, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
        (false, false) => QosClass::BestEffort,
    }
}

type Amounts =
    std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

/// A positive amount in thousandths; zero counts as absent.
fn amount(list: Option<&Amounts>, resource: &str) -> Option<i64> {
    list.and_then(|list| list.get(resource))
        .and_then(quantity::milli)
        .filter(|amount| *amount > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class_of(resources: &[serde_json::Value]) -> QosClass {
        let containers: Vec<_> = resources
            .iter()
            .map(|r| json!({ "name": "c", "resources": r }))
            .collect();
        let pod =
            serde_json::from_value(json!({ "metadata": {}, "spec": { "containers": containers } }))
                .unwrap();
        class(&pod)
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let limits = json!({ "limits": { "cpu": "1", "memory": "1Gi" } });
        let equal = json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1000m", "memory": "1Gi" } });
        let less =
            json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1m" } });
        let zero = json!({ "requests": { "cpu": "0" } });
        assert_eq!(class_of(&[limits.clone(), equal]), QosClass::Guaranteed);
        assert_eq!(class_of(&[less]), QosClass::Burstable);
        assert_eq!(class_of(&[limits.clone(), json!({})]), QosClass::Burstable);
        assert_eq!(
            class_of(&[json!({ "limits": { "cpu": "1" } })]),
            QosClass::Burstable
        );
        assert_eq!(class_of(&[json!({}), zero]), QosClass::BestEffort);
    }
}
