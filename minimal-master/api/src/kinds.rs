//! The kinds that the API server serves: names, scope, verbs and subresources.
//!
//! Everything that is said about a kind elsewhere (paths, discovery, OpenAPI, storage keys) derives from this table.

use std::fmt;

/// One kind in one group version, as served.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version within the group, such as `v1`.
    pub version: &'static str,
    /// CamelCase name, such as `Pod`.
    pub kind: &'static str,
    /// Resource name in paths, such as `pods`.
    pub plural: &'static str,
    /// Lower-case singular, such as `pod`.
    pub singular: &'static str,
    /// Names that kubectl accepts for short, such as `po`.
    pub short_names: &'static [&'static str],
    /// Groups of resources, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What clients may do, sorted.
    pub verbs: &'static [&'static str],
    /// Subresources by name, sorted.
    pub subresources: &'static [Subresource],
    /// The name of the type in OpenAPI documents, such as `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
    /// Group and plural that name the objects in the store. Differs from `group` and `plural` only where two
    /// kinds show the same objects ([`crate::convert`]).
    pub storage: (&'static str, &'static str),
    /// Upstream's hash of the storage version: opaque to clients, listed in discovery.
    pub storage_version_hash: &'static str,
}

/// A part of a resource with a path of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Last element of the path, such as `status`.
    pub name: &'static str,
    /// Group of the object that is sent and returned.
    pub group: &'static str,
    /// Version of that object.
    pub version: &'static str,
    /// Kind of that object.
    pub kind: &'static str,
    /// What clients may do, sorted.
    pub verbs: &'static [&'static str],
}

impl Kind {
    /// `apiVersion` of objects: `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        group_version(self.group, self.version)
    }

    /// Kind of a list of these objects, such as `PodList`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// The resource as messages name it: `pods`, `deployments.apps`.
    pub fn resource(&self) -> Dotted {
        Dotted(self.plural, self.group)
    }

    /// The kind as messages name it: `Pod`, `Deployment.apps`.
    pub fn group_kind(&self) -> Dotted {
        Dotted(self.kind, self.group)
    }

    /// Whether clients may use `verb` (`get`, `list`, `create`, ...).
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// The subresource called `name`.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether the kind has a `status` subresource, so that `status` is written only through it.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }
}

/// A name with its group: `name` or `name.group`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dotted(pub &'static str, pub &'static str);

impl fmt::Display for Dotted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            "" => f.write_str(self.0),
            group => write!(f, "{}.{group}", self.0),
        }
    }
}

/// `v1` or `group/v1`.
pub fn group_version(group: &str, version: &str) -> String {
    match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    }
}

/// Every kind that is served as a resource, core group first.
pub fn all() -> &'static [&'static Kind] {
    ALL
}

/// The kind behind a path's group, version and resource.
pub fn lookup(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    all()
        .iter()
        .copied()
        .find(|k| (k.group, k.version, k.plural) == (group, version, plural))
}

/// The kind that an object's `apiVersion` and `kind` name.
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    all()
        .iter()
        .copied()
        .find(|k| (k.group, k.version, k.kind) == (group, version, kind))
}

/// The kind of a subresource's object, where it is not the resource's own.
pub fn of_part(part: &Subresource) -> Option<&'static Kind> {
    [&BINDING, &EVICTION, &SCALE, &TOKEN_REQUEST]
        .into_iter()
        .find(|k| (k.group, k.version, k.kind) == (part.group, part.version, part.kind))
}

/// Group versions that are served, core group first, each once.
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut seen = Vec::new();
    for kind in all() {
        if !seen.contains(&(kind.group, kind.version)) {
            seen.push((kind.group, kind.version));
        }
    }
    seen
}

const ALL: &[&Kind] = &[
    &CONFIG_MAP,
    &ENDPOINTS,
    &EVENT,
    &NAMESPACE,
    &NODE,
    &POD,
    &SECRET,
    &SERVICE_ACCOUNT,
    &SERVICE,
    &DEPLOYMENT,
    &REPLICA_SET,
    &LEASE,
    &ENDPOINT_SLICE,
    &EVENTS_EVENT,
];

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const PART_VERBS: &[&str] = &["get", "patch", "update"];

/// What most kinds have in common: core group, namespaced, every verb.
const CORE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: VERBS,
    subresources: &[],
    schema: "",
    storage: ("", ""),
    storage_version_hash: "",
};

const fn part(
    name: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource {
        name,
        group: "",
        version: "v1",
        kind,
        verbs,
    }
}

const fn apps_part(name: &'static str, kind: &'static str) -> Subresource {
    Subresource {
        name,
        group: "apps",
        version: "v1",
        kind,
        verbs: PART_VERBS,
    }
}

const SCALE_PART: Subresource = Subresource {
    name: "scale",
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    verbs: PART_VERBS,
};

/// core/v1 ConfigMap.
pub static CONFIG_MAP: Kind = Kind {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    schema: "io.k8s.api.core.v1.ConfigMap",
    storage: ("", "configmaps"),
    storage_version_hash: "qFsyl6wFWjQ=",
    ..CORE
};

/// core/v1 Endpoints.
pub static ENDPOINTS: Kind = Kind {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    schema: "io.k8s.api.core.v1.Endpoints",
    storage: ("", "endpoints"),
    storage_version_hash: "fWeeMqaN/OA=",
    ..CORE
};

/// core/v1 Event.
pub static EVENT: Kind = Kind {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    schema: "io.k8s.api.core.v1.Event",
    storage: ("", "events"),
    storage_version_hash: "r2yiGXH7wu8=",
    ..CORE
};

/// core/v1 Namespace. Its contents are deleted before it is, so collections of namespaces can't be.
pub static NAMESPACE: Kind = Kind {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    verbs: &[
        "create", "delete", "get", "list", "patch", "update", "watch",
    ],
    subresources: &[
        part("finalize", "Namespace", &["update"]),
        part("status", "Namespace", PART_VERBS),
    ],
    schema: "io.k8s.api.core.v1.Namespace",
    storage: ("", "namespaces"),
    storage_version_hash: "Q3oi5N2YM8M=",
    ..CORE
};

/// core/v1 Node.
pub static NODE: Kind = Kind {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &[part("status", "Node", PART_VERBS)],
    schema: "io.k8s.api.core.v1.Node",
    storage: ("", "nodes"),
    storage_version_hash: "XwShjMxG9Fs=",
    ..CORE
};

/// core/v1 Pod.
pub static POD: Kind = Kind {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        part("attach", "PodAttachOptions", &["create", "get"]),
        part("binding", "Binding", &["create"]),
        Subresource {
            name: "eviction",
            group: "policy",
            version: "v1",
            kind: "Eviction",
            verbs: &["create"],
        },
        part("exec", "PodExecOptions", &["create", "get"]),
        part("log", "Pod", &["get"]),
        part("portforward", "PodPortForwardOptions", &["create", "get"]),
        part("status", "Pod", PART_VERBS),
    ],
    schema: "io.k8s.api.core.v1.Pod",
    storage: ("", "pods"),
    storage_version_hash: "xPOwRZ+Yhw8=",
    ..CORE
};

/// core/v1 Secret.
pub static SECRET: Kind = Kind {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    schema: "io.k8s.api.core.v1.Secret",
    storage: ("", "secrets"),
    storage_version_hash: "S6u1pOWzb84=",
    ..CORE
};

/// core/v1 ServiceAccount.
pub static SERVICE_ACCOUNT: Kind = Kind {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &[Subresource {
        name: "token",
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        verbs: &["create"],
    }],
    schema: "io.k8s.api.core.v1.ServiceAccount",
    storage: ("", "serviceaccounts"),
    storage_version_hash: "pbx9ZvyFpBE=",
    ..CORE
};

/// core/v1 Service.
pub static SERVICE: Kind = Kind {
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[part("status", "Service", PART_VERBS)],
    schema: "io.k8s.api.core.v1.Service",
    storage: ("", "services"),
    storage_version_hash: "0/CO1lhkEBI=",
    ..CORE
};

/// apps/v1 Deployment.
pub static DEPLOYMENT: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[SCALE_PART, apps_part("status", "Deployment")],
    schema: "io.k8s.api.apps.v1.Deployment",
    storage: ("apps", "deployments"),
    storage_version_hash: "8aSe+NMegvE=",
    ..CORE
};

/// apps/v1 ReplicaSet.
pub static REPLICA_SET: Kind = Kind {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[SCALE_PART, apps_part("status", "ReplicaSet")],
    schema: "io.k8s.api.apps.v1.ReplicaSet",
    storage: ("apps", "replicasets"),
    storage_version_hash: "P1RzHs8/mWQ=",
    ..CORE
};

/// coordination.k8s.io/v1 Lease.
pub static LEASE: Kind = Kind {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    schema: "io.k8s.api.coordination.v1.Lease",
    storage: ("coordination.k8s.io", "leases"),
    storage_version_hash: "gqkMMb/YqFM=",
    ..CORE
};

/// discovery.k8s.io/v1 EndpointSlice.
pub static ENDPOINT_SLICE: Kind = Kind {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    schema: "io.k8s.api.discovery.v1.EndpointSlice",
    storage: ("discovery.k8s.io", "endpointslices"),
    storage_version_hash: "qgS0xkrxYAI=",
    ..CORE
};

/// events.k8s.io/v1 Event: the same objects as core/v1 Event, with other field names ([`crate::convert`]).
pub static EVENTS_EVENT: Kind = Kind {
    group: "events.k8s.io",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    schema: "io.k8s.api.events.v1.Event",
    storage: ("", "events"),
    storage_version_hash: "r2yiGXH7wu8=",
    ..CORE
};

/// core/v1 Binding: what is posted to `pods/NAME/binding`; never stored.
pub static BINDING: Kind = Kind {
    kind: "Binding",
    plural: "bindings",
    singular: "binding",
    verbs: &["create"],
    schema: "io.k8s.api.core.v1.Binding",
    ..CORE
};

/// policy/v1 Eviction: what is posted to `pods/NAME/eviction`; never stored.
pub static EVICTION: Kind = Kind {
    group: "policy",
    kind: "Eviction",
    plural: "evictions",
    singular: "eviction",
    verbs: &["create"],
    schema: "io.k8s.api.policy.v1.Eviction",
    ..CORE
};

/// autoscaling/v1 Scale: the `scale` subresource's object; never stored ([`crate::scale`]).
pub static SCALE: Kind = Kind {
    group: "autoscaling",
    kind: "Scale",
    plural: "scales",
    singular: "scale",
    verbs: PART_VERBS,
    schema: "io.k8s.api.autoscaling.v1.Scale",
    ..CORE
};

/// authentication.k8s.io/v1 TokenRequest: what is posted to `serviceaccounts/NAME/token`; never stored.
pub static TOKEN_REQUEST: Kind = Kind {
    group: "authentication.k8s.io",
    kind: "TokenRequest",
    plural: "tokenrequests",
    singular: "tokenrequest",
    verbs: &["create"],
    schema: "io.k8s.api.authentication.v1.TokenRequest",
    ..CORE
};

/// meta/v1 DeleteOptions: the body of a DELETE; never stored.
pub static DELETE_OPTIONS: Kind = Kind {
    kind: "DeleteOptions",
    plural: "deleteoptions",
    singular: "deleteoptions",
    schema: "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    ..CORE
};

/// meta/v1 Status: what failed requests and finished deletions return; never stored.
pub static STATUS: Kind = Kind {
    kind: "Status",
    plural: "statuses",
    singular: "status",
    schema: "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    ..CORE
};
