//! How lists and maps of upstream's types merge: `x-kubernetes-list-type`, `-list-map-keys`, `-map-type`,
//! `-patch-merge-key` and `-patch-strategy`.
//!
//! `k8s-openapi` does not carry these facts. One table serves strategic merge patches and the OpenAPI documents that
//! kubectl computes its own patches from, so that both sides agree.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// How one field merges. Empty texts and lists mean that upstream says nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldExtension {
    /// `atomic`, `set` or `map`.
    pub list_type: &'static str,
    /// Fields that identify an element of a `map` list.
    pub list_map_keys: &'static [&'static str],
    /// The field that identifies an element in strategic merge patches.
    pub merge_key: &'static str,
    /// `merge`, `retainKeys` or both with a comma between.
    pub strategy: &'static str,
    /// `atomic` for maps that are replaced as a whole.
    pub map_type: &'static str,
}

impl FieldExtension {
    /// Whether the list merges in strategic merge patches.
    pub fn merges(&self) -> bool {
        self.strategy.split(',').any(|s| s == "merge")
    }

    /// Adds the extensions to the schema of a field.
    pub fn describe(&self, schema: &mut Map<String, Value>) {
        let texts = [
            ("x-kubernetes-list-type", self.list_type),
            ("x-kubernetes-map-type", self.map_type),
            ("x-kubernetes-patch-merge-key", self.merge_key),
            ("x-kubernetes-patch-strategy", self.strategy),
        ];
        for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            schema.insert(name.to_owned(), json!(text));
        }
        if !self.list_map_keys.is_empty() {
            schema.insert(
                "x-kubernetes-list-map-keys".to_owned(),
                json!(self.list_map_keys),
            );
        }
    }
}

/// How `field` of the type with upstream's name `owner` merges.
pub fn of_field(owner: &str, field: &str) -> &'static FieldExtension {
    INDEX
        .get(&(short(owner), field))
        .copied()
        .unwrap_or(&NOTHING)
}

/// Whether server-side apply replaces the type with upstream's name `name` as a whole.
pub fn is_atomic_struct(name: &str) -> bool {
    ATOMIC_STRUCTS.contains(&short(name))
}

/// `core.v1.Pod` of `io.k8s.api.core.v1.Pod`.
fn short(name: &str) -> &str {
    name.strip_prefix("io.k8s.api.")
        .or_else(|| name.strip_prefix("io.k8s.apimachinery.pkg.apis."))
        .unwrap_or(name)
}

type Index = HashMap<(&'static str, &'static str), &'static FieldExtension>;

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let atomic = ATOMIC_LISTS
        .iter()
        .flat_map(|(owner, fields)| fields.iter().map(|field| ((*owner, *field), &ATOMIC)));
    let others = FIELDS
        .iter()
        .map(|(owner, field, extension)| ((*owner, *field), extension));
    atomic.chain(others).collect()
});

/// Upstream says nothing about the field.
pub static NONE: FieldExtension = NOTHING;

const NOTHING: FieldExtension = FieldExtension {
    list_type: "",
    list_map_keys: &[],
    merge_key: "",
    strategy: "",
    map_type: "",
};

static ATOMIC: FieldExtension = FieldExtension {
    list_type: "atomic",
    ..NOTHING
};

/// A list that merges by its first key and is identified by all of them.
const fn by_key(keys: &'static [&'static str]) -> FieldExtension {
    FieldExtension {
        list_type: "map",
        list_map_keys: keys,
        merge_key: keys[0],
        strategy: "merge",
        ..NOTHING
    }
}

const ATOMIC_LISTS: &[(&str, &[&str])] = &[
    ("authentication.v1.TokenRequestSpec", &["audiences"]),
    ("core.v1.Capabilities", &["add", "drop"]),
    ("core.v1.CephFSVolumeSource", &["monitors"]),
    ("core.v1.ConfigMapProjection", &["items"]),
    ("core.v1.ConfigMapVolumeSource", &["items"]),
    (
        "core.v1.Container",
        &[
            "args",
            "command",
            "envFrom",
            "resizePolicy",
            "restartPolicyRules",
        ],
    ),
    ("core.v1.ContainerImage", &["names"]),
    ("core.v1.DownwardAPIProjection", &["items"]),
    ("core.v1.DownwardAPIVolumeSource", &["items"]),
    (
        "core.v1.EndpointSubset",
        &["addresses", "notReadyAddresses", "ports"],
    ),
    ("core.v1.Endpoints", &["subsets"]),
    (
        "core.v1.EphemeralContainer",
        &[
            "args",
            "command",
            "envFrom",
            "resizePolicy",
            "restartPolicyRules",
        ],
    ),
    ("core.v1.ExecAction", &["command"]),
    ("core.v1.FCVolumeSource", &["targetWWNs", "wwids"]),
    ("core.v1.HTTPGetAction", &["httpHeaders"]),
    ("core.v1.HostAlias", &["hostnames"]),
    ("core.v1.ISCSIVolumeSource", &["portals"]),
    ("core.v1.LinuxContainerUser", &["supplementalGroups"]),
    ("core.v1.LoadBalancerIngress", &["ports"]),
    ("core.v1.LoadBalancerStatus", &["ingress"]),
    ("core.v1.NamespaceSpec", &["finalizers"]),
    (
        "core.v1.NodeAffinity",
        &["preferredDuringSchedulingIgnoredDuringExecution"],
    ),
    ("core.v1.NodeSelector", &["nodeSelectorTerms"]),
    ("core.v1.NodeSelectorRequirement", &["values"]),
    (
        "core.v1.NodeSelectorTerm",
        &["matchExpressions", "matchFields"],
    ),
    ("core.v1.NodeSpec", &["taints"]),
    (
        "core.v1.NodeStatus",
        &[
            "declaredFeatures",
            "images",
            "runtimeHandlers",
            "volumesAttached",
            "volumesInUse",
        ],
    ),
    ("core.v1.PersistentVolumeClaimSpec", &["accessModes"]),
    (
        "core.v1.PodAffinity",
        &[
            "preferredDuringSchedulingIgnoredDuringExecution",
            "requiredDuringSchedulingIgnoredDuringExecution",
        ],
    ),
    (
        "core.v1.PodAffinityTerm",
        &["matchLabelKeys", "mismatchLabelKeys", "namespaces"],
    ),
    (
        "core.v1.PodAntiAffinity",
        &[
            "preferredDuringSchedulingIgnoredDuringExecution",
            "requiredDuringSchedulingIgnoredDuringExecution",
        ],
    ),
    (
        "core.v1.PodDNSConfig",
        &["nameservers", "options", "searches"],
    ),
    (
        "core.v1.PodExtendedResourceClaimStatus",
        &["requestMappings"],
    ),
    (
        "core.v1.PodSecurityContext",
        &["supplementalGroups", "sysctls"],
    ),
    ("core.v1.PodSpec", &["readinessGates", "tolerations"]),
    (
        "core.v1.PodStatus",
        &[
            "containerStatuses",
            "ephemeralContainerStatuses",
            "initContainerStatuses",
            "nodeAllocatableResourceClaimStatuses",
        ],
    ),
    ("core.v1.ProjectedVolumeSource", &["sources"]),
    ("core.v1.RBDVolumeSource", &["monitors"]),
    ("core.v1.SecretProjection", &["items"]),
    ("core.v1.SecretVolumeSource", &["items"]),
    ("core.v1.ServiceAccount", &["imagePullSecrets"]),
    (
        "core.v1.ServiceSpec",
        &[
            "clusterIPs",
            "externalIPs",
            "ipFamilies",
            "loadBalancerSourceRanges",
        ],
    ),
    ("core.v1.TopologySpreadConstraint", &["matchLabelKeys"]),
    ("discovery.v1.EndpointHints", &["forNodes", "forZones"]),
    ("discovery.v1.EndpointSlice", &["endpoints", "ports"]),
    ("meta.v1.DeleteOptions", &["dryRun"]),
    ("meta.v1.LabelSelector", &["matchExpressions"]),
    ("meta.v1.LabelSelectorRequirement", &["values"]),
    ("meta.v1.ObjectMeta", &["managedFields"]),
    ("meta.v1.StatusDetails", &["causes"]),
];

const ATOMIC_STRUCTS: &[&str] = &[
    "core.v1.ConfigMapKeySelector",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.FileKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.SecretKeySelector",
    "core.v1.TypedLocalObjectReference",
    "discovery.v1.EndpointPort",
    "meta.v1.LabelSelector",
    "meta.v1.OwnerReference",
];

const FIELDS: &[(&str, &str, FieldExtension)] = &[
    (
        "apps.v1.DeploymentSpec",
        "strategy",
        FieldExtension {
            strategy: "retainKeys",
            ..NOTHING
        },
    ),
    ("apps.v1.DeploymentStatus", "conditions", by_key(&["type"])),
    ("apps.v1.ReplicaSetStatus", "conditions", by_key(&["type"])),
    ("core.v1.Container", "env", by_key(&["name"])),
    (
        "core.v1.Container",
        "ports",
        by_key(&["containerPort", "protocol"]),
    ),
    (
        "core.v1.Container",
        "volumeDevices",
        by_key(&["devicePath"]),
    ),
    ("core.v1.Container", "volumeMounts", by_key(&["mountPath"])),
    (
        "core.v1.ContainerRestartRuleOnExitCodes",
        "values",
        FieldExtension {
            list_type: "set",
            ..NOTHING
        },
    ),
    (
        "core.v1.ContainerStatus",
        "allocatedResourcesStatus",
        by_key(&["name"]),
    ),
    (
        "core.v1.ContainerStatus",
        "volumeMounts",
        by_key(&["mountPath"]),
    ),
    ("core.v1.EphemeralContainer", "env", by_key(&["name"])),
    (
        "core.v1.EphemeralContainer",
        "ports",
        by_key(&["containerPort", "protocol"]),
    ),
    (
        "core.v1.EphemeralContainer",
        "volumeDevices",
        by_key(&["devicePath"]),
    ),
    (
        "core.v1.EphemeralContainer",
        "volumeMounts",
        by_key(&["mountPath"]),
    ),
    ("core.v1.NamespaceStatus", "conditions", by_key(&["type"])),
    (
        "core.v1.NodeAllocatableResourceClaimStatus",
        "containers",
        FieldExtension {
            list_type: "set",
            ..NOTHING
        },
    ),
    (
        "core.v1.NodeSpec",
        "podCIDRs",
        FieldExtension {
            list_type: "set",
            strategy: "merge",
            ..NOTHING
        },
    ),
    ("core.v1.NodeStatus", "addresses", by_key(&["type"])),
    ("core.v1.NodeStatus", "conditions", by_key(&["type"])),
    ("core.v1.PodSpec", "containers", by_key(&["name"])),
    ("core.v1.PodSpec", "ephemeralContainers", by_key(&["name"])),
    ("core.v1.PodSpec", "hostAliases", by_key(&["ip"])),
    ("core.v1.PodSpec", "imagePullSecrets", by_key(&["name"])),
    ("core.v1.PodSpec", "initContainers", by_key(&["name"])),
    (
        "core.v1.PodSpec",
        "nodeSelector",
        FieldExtension {
            map_type: "atomic",
            ..NOTHING
        },
    ),
    (
        "core.v1.PodSpec",
        "resourceClaims",
        FieldExtension {
            list_type: "map",
            list_map_keys: &["name"],
            merge_key: "name",
            strategy: "merge,retainKeys",
            ..NOTHING
        },
    ),
    ("core.v1.PodSpec", "schedulingGates", by_key(&["name"])),
    (
        "core.v1.PodSpec",
        "topologySpreadConstraints",
        by_key(&["topologyKey", "whenUnsatisfiable"]),
    ),
    (
        "core.v1.PodSpec",
        "volumes",
        FieldExtension {
            list_type: "map",
            list_map_keys: &["name"],
            merge_key: "name",
            strategy: "merge,retainKeys",
            ..NOTHING
        },
    ),
    ("core.v1.PodStatus", "conditions", by_key(&["type"])),
    (
        "core.v1.PodStatus",
        "hostIPs",
        FieldExtension {
            list_type: "atomic",
            merge_key: "ip",
            strategy: "merge",
            ..NOTHING
        },
    ),
    ("core.v1.PodStatus", "podIPs", by_key(&["ip"])),
    (
        "core.v1.PodStatus",
        "resourceClaimStatuses",
        FieldExtension {
            list_type: "map",
            list_map_keys: &["name"],
            merge_key: "name",
            strategy: "merge,retainKeys",
            ..NOTHING
        },
    ),
    (
        "core.v1.ResourceRequirements",
        "claims",
        FieldExtension {
            list_type: "map",
            list_map_keys: &["name"],
            ..NOTHING
        },
    ),
    (
        "core.v1.ResourceStatus",
        "resources",
        FieldExtension {
            list_type: "map",
            list_map_keys: &["resourceID"],
            ..NOTHING
        },
    ),
    ("core.v1.ServiceAccount", "secrets", by_key(&["name"])),
    (
        "core.v1.ServiceSpec",
        "ports",
        by_key(&["port", "protocol"]),
    ),
    (
        "core.v1.ServiceSpec",
        "selector",
        FieldExtension {
            map_type: "atomic",
            ..NOTHING
        },
    ),
    ("core.v1.ServiceStatus", "conditions", by_key(&["type"])),
    (
        "discovery.v1.Endpoint",
        "addresses",
        FieldExtension {
            list_type: "set",
            ..NOTHING
        },
    ),
    (
        "meta.v1.ObjectMeta",
        "finalizers",
        FieldExtension {
            list_type: "set",
            strategy: "merge",
            ..NOTHING
        },
    ),
    ("meta.v1.ObjectMeta", "ownerReferences", by_key(&["uid"])),
];
