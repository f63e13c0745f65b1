//! Amounts of resources: what pods request and what nodes have.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};
use sluice_client::quantity::{self, QuantityError};

/// What upstream assumes for scoring when a container requests nothing: 100 milli-CPU.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// What upstream assumes for scoring when a container requests nothing: 200 MB.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// CPU in thousandths of a core, memory and ephemeral storage in bytes, everything else by name in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages by name. Empty for almost every pod.
    pub extended: BTreeMap<String, i64>,
}

type Quantities = BTreeMap<String, Quantity>;

impl Resources {
    /// Reads a resource list; `pods` is not a resource of this kind and is left out.
    pub fn from_quantities(list: Option<&Quantities>) -> Result<Self, QuantityError> {
        let mut resources = Self::default();
        for (name, amount) in list.into_iter().flatten() {
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity::milli_value(amount)?,
                "memory" => resources.memory = quantity::value(amount)?,
                "ephemeral-storage" => resources.ephemeral_storage = quantity::value(amount)?,
                "pods" => {}
                _ => {
                    let amount = quantity::value(amount)?;
                    resources.extended.insert(name.clone(), amount);
                }
            }
        }
        Ok(resources)
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.saturating_add(other.milli_cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.ephemeral_storage = self
            .ephemeral_storage
            .saturating_add(other.ephemeral_storage);
        for (name, amount) in &other.extended {
            let sum = self.extended.entry(name.clone()).or_insert(0);
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Takes away an amount that was added before.
    pub fn subtract(&mut self, other: &Self) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        for (name, amount) in &other.extended {
            if let Some(sum) = self.extended.get_mut(name) {
                *sum -= amount;
                if *sum == 0 {
                    self.extended.remove(name);
                }
            }
        }
    }

    /// The larger of both amounts, resource by resource.
    pub fn max(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.extended {
            let known = self.extended.entry(name.clone()).or_insert(0);
            *known = (*known).max(*amount);
        }
    }
}

/// CPU and memory as counted by the scores: with upstream's defaults for containers that request nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
}

/// What a pod requests in total (KEP-753 for sidecars, KEP-2837 for pod-level resources).
pub fn pod_requests(spec: &PodSpec) -> Result<Resources, QuantityError> {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&container_requests(container)?);
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let own = container_requests(container)?;
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&own);
            peak.max(&sidecars);
        } else {
            let mut during = sidecars.clone();
            during.add(&own);
            peak.max(&during);
        }
    }
    running.add(&sidecars);
    running.max(&peak);
    override_by_pod_level(spec, &mut running)?;
    running.add(&Resources::from_quantities(spec.overhead.as_ref())?);
    Ok(running)
}

fn override_by_pod_level(spec: &PodSpec, total: &mut Resources) -> Result<(), QuantityError> {
    let Some(requests) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) else {
        return Ok(());
    };
    let level = Resources::from_quantities(Some(requests))?;
    if requests.contains_key("cpu") {
        total.milli_cpu = level.milli_cpu;
    }
    if requests.contains_key("memory") {
        total.memory = level.memory;
    }
    Ok(())
}

/// CPU and memory for the scores.
pub fn pod_load(spec: &PodSpec, requests: &Resources) -> Load {
    let containers = i64::try_from(spec.containers.len()).unwrap_or(i64::MAX);
    Load {
        milli_cpu: or_default(requests.milli_cpu, DEFAULT_MILLI_CPU, containers),
        memory: or_default(requests.memory, DEFAULT_MEMORY, containers),
    }
}

fn or_default(requested: i64, default: i64, containers: i64) -> i64 {
    if requested == 0 {
        default.saturating_mul(containers)
    } else {
        requested
    }
}

fn container_requests(container: &Container) -> Result<Resources, QuantityError> {
    let requests = container
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref());
    Resources::from_quantities(requests)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_init_container_counts_only_as_far_as_it_exceeds_the_rest() {
        let spec = spec(json!({
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "2", "memory": "1Mi"}}}],
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "500m", "nvidia.com/gpu": "1"}}},
            ],
            "overhead": {"cpu": "10m"},
        }));
        let requests = pod_requests(&spec).unwrap();
        assert_eq!(requests.milli_cpu, 2010);
        assert_eq!(requests.memory, 1 << 30);
        assert_eq!(requests.extended["nvidia.com/gpu"], 1);
    }

    #[test]
    fn a_sidecar_runs_beside_the_containers_and_later_init_containers() {
        let spec = spec(json!({
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
                {"name": "i", "resources": {"requests": {"cpu": "3"}}},
            ],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "2"}}}],
        }));
        assert_eq!(pod_requests(&spec).unwrap().milli_cpu, 4000);
    }
}
