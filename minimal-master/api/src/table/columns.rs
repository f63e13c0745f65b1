//! The columns of each kind's table.
//!
//! Where upstream describes a column by a field's documentation, the text is taken from the field.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::schema::types::DEFINITIONS;
use crate::{Kind, kinds};

/// A column: title, type and what its description says.
struct Column(&'static str, &'static str, About);

/// Where a column's description comes from.
enum About {
    /// The documentation of a field of a type.
    Field(&'static str, &'static str),
    /// A text.
    Text(&'static str),
}

use About::{Field, Text};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const NAME: Column = Column("Name", "string", Field(META, "name"));
const AGE: Column = Column("Age", "string", Field(META, "creationTimestamp"));

/// The columns of a table, and which of them only `-o wide` shows.
struct Layout {
    columns: &'static [Column],
    /// Titles of columns that only `-o wide` shows.
    wide: &'static [&'static str],
}

static DEFINITIONS_BY_KIND: LazyLock<HashMap<(&str, &str), Value>> = LazyLock::new(|| {
    let kinds = kinds::all().iter();
    kinds
        .map(|kind| ((kind.group, kind.kind), describe(&layout(kind))))
        .collect()
});

/// The `columnDefinitions` of a kind's table.
pub(super) fn definitions(kind: &Kind) -> Value {
    let known = DEFINITIONS_BY_KIND.get(&(kind.group, kind.kind)).cloned();
    known.unwrap_or_else(|| describe(&layout(kind)))
}

fn describe(layout: &Layout) -> Value {
    let column = |Column(name, ty, about): &Column| {
        json!({
            "name": name,
            "type": ty,
            "format": if *name == "Name" { "name" } else { "" },
            "description": about.text(),
            "priority": i32::from(layout.wide.contains(name)),
        })
    };
    layout.columns.iter().map(column).collect()
}

impl About {
    fn text(&self) -> &str {
        match self {
            Text(text) => text,
            Field(owner, field) => DEFINITIONS
                .get(*owner)
                .and_then(|schema| schema["properties"][field]["description"].as_str())
                .unwrap_or_default(),
        }
    }
}

fn layout(kind: &Kind) -> Layout {
    match (kind.group, kind.kind) {
        ("", "Pod") => POD,
        ("", "Node") => NODE,
        ("", "Service") => SERVICE,
        ("", "Namespace") => NAMESPACE,
        ("", "Secret") => SECRET,
        ("", "ConfigMap") => CONFIG_MAP,
        ("", "ServiceAccount") => SERVICE_ACCOUNT,
        ("", "Endpoints") => ENDPOINTS,
        (_, "Event") => EVENT,
        ("apps", "Deployment") => DEPLOYMENT,
        ("apps", "ReplicaSet") => REPLICA_SET,
        ("discovery.k8s.io", "EndpointSlice") => ENDPOINT_SLICE,
        ("coordination.k8s.io", "Lease") => LEASE,
        _ => PLAIN,
    }
}

const POD: Layout = Layout {
    columns: &[
        NAME,
        Column(
            "Ready",
            "string",
            Text("The aggregate readiness state of this pod for accepting traffic."),
        ),
        Column(
            "Status",
            "string",
            Text("The aggregate status of the containers in this pod."),
        ),
        Column(
            "Restarts",
            "string",
            Text(
                "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
            ),
        ),
        AGE,
        Column(
            "IP",
            "string",
            Field("io.k8s.api.core.v1.PodStatus", "podIP"),
        ),
        Column(
            "Node",
            "string",
            Field("io.k8s.api.core.v1.PodSpec", "nodeName"),
        ),
        Column(
            "Nominated Node",
            "string",
            Field("io.k8s.api.core.v1.PodStatus", "nominatedNodeName"),
        ),
        Column(
            "Readiness Gates",
            "string",
            Field("io.k8s.api.core.v1.PodSpec", "readinessGates"),
        ),
    ],
    wide: &["IP", "Node", "Nominated Node", "Readiness Gates"],
};

const NODE_INFO: &str = "io.k8s.api.core.v1.NodeSystemInfo";
const NODE_ADDRESSES: About = Field("io.k8s.api.core.v1.NodeStatus", "addresses");

const NODE: Layout = Layout {
    columns: &[
        NAME,
        Column("Status", "string", Text("The status of the node")),
        Column("Roles", "string", Text("The roles of the node")),
        AGE,
        Column("Version", "string", Field(NODE_INFO, "kubeletVersion")),
        Column("Internal-IP", "string", NODE_ADDRESSES),
        Column("External-IP", "string", NODE_ADDRESSES),
        Column("OS-Image", "string", Field(NODE_INFO, "osImage")),
        Column(
            "Kernel-Version",
            "string",
            Field(NODE_INFO, "kernelVersion"),
        ),
        Column(
            "Container-Runtime",
            "string",
            Field(NODE_INFO, "containerRuntimeVersion"),
        ),
    ],
    wide: &[
        "Internal-IP",
        "External-IP",
        "OS-Image",
        "Kernel-Version",
        "Container-Runtime",
    ],
};

const SERVICE_SPEC: &str = "io.k8s.api.core.v1.ServiceSpec";

const SERVICE: Layout = Layout {
    columns: &[
        NAME,
        Column("Type", "string", Field(SERVICE_SPEC, "type")),
        Column("Cluster-IP", "string", Field(SERVICE_SPEC, "clusterIP")),
        Column("External-IP", "string", Field(SERVICE_SPEC, "externalIPs")),
        Column("Port(s)", "string", Field(SERVICE_SPEC, "ports")),
        AGE,
        Column("Selector", "string", Field(SERVICE_SPEC, "selector")),
    ],
    wide: &["Selector"],
};

const NAMESPACE: Layout = Layout {
    columns: &[
        NAME,
        Column("Status", "string", Text("The status of the namespace")),
        AGE,
    ],
    wide: &[],
};

const SECRET: Layout = Layout {
    columns: &[
        NAME,
        Column("Type", "string", Field("io.k8s.api.core.v1.Secret", "type")),
        Column("Data", "string", Field("io.k8s.api.core.v1.Secret", "data")),
        AGE,
    ],
    wide: &[],
};

const CONFIG_MAP: Layout = Layout {
    columns: &[
        NAME,
        Column(
            "Data",
            "string",
            Field("io.k8s.api.core.v1.ConfigMap", "data"),
        ),
        AGE,
    ],
    wide: &[],
};

const SERVICE_ACCOUNT: Layout = Layout {
    columns: &[
        NAME,
        Column(
            "Secrets",
            "string",
            Field("io.k8s.api.core.v1.ServiceAccount", "secrets"),
        ),
        AGE,
    ],
    wide: &[],
};

const ENDPOINTS: Layout = Layout {
    columns: &[
        NAME,
        Column(
            "Endpoints",
            "string",
            Field("io.k8s.api.core.v1.Endpoints", "subsets"),
        ),
        AGE,
    ],
    wide: &[],
};

const CORE_EVENT: &str = "io.k8s.api.core.v1.Event";

const EVENT: Layout = Layout {
    columns: &[
        Column("Last Seen", "string", Field(CORE_EVENT, "lastTimestamp")),
        Column("Type", "string", Field(CORE_EVENT, "type")),
        Column("Reason", "string", Field(CORE_EVENT, "reason")),
        Column("Object", "string", Field(CORE_EVENT, "involvedObject")),
        Column(
            "Subobject",
            "string",
            Field("io.k8s.api.core.v1.ObjectReference", "fieldPath"),
        ),
        Column("Source", "string", Field(CORE_EVENT, "source")),
        Column("Message", "string", Field(CORE_EVENT, "message")),
        Column("First Seen", "string", Field(CORE_EVENT, "firstTimestamp")),
        Column("Count", "integer", Field(CORE_EVENT, "count")),
        NAME,
    ],
    wide: &["Subobject", "Source", "First Seen", "Count", "Name"],
};

const TEMPLATE_CONTAINERS: Column = Column(
    "Containers",
    "string",
    Text("Names of each container in the template."),
);
const TEMPLATE_IMAGES: Column = Column(
    "Images",
    "string",
    Text("Images referenced by each container in the template."),
);
const TEMPLATE_WIDE: &[&str] = &["Containers", "Images", "Selector"];

const DEPLOYMENT: Layout = Layout {
    columns: &[
        NAME,
        Column(
            "Ready",
            "string",
            Text("Number of the pod with ready state"),
        ),
        Column(
            "Up-to-date",
            "integer",
            Field("io.k8s.api.apps.v1.DeploymentStatus", "updatedReplicas"),
        ),
        Column(
            "Available",
            "integer",
            Field("io.k8s.api.apps.v1.DeploymentStatus", "availableReplicas"),
        ),
        AGE,
        TEMPLATE_CONTAINERS,
        TEMPLATE_IMAGES,
        Column(
            "Selector",
            "string",
            Field("io.k8s.api.apps.v1.DeploymentSpec", "selector"),
        ),
    ],
    wide: TEMPLATE_WIDE,
};

const REPLICA_SET: Layout = Layout {
    columns: &[
        NAME,
        Column(
            "Desired",
            "integer",
            Field("io.k8s.api.apps.v1.ReplicaSetSpec", "replicas"),
        ),
        Column(
            "Current",
            "integer",
            Field("io.k8s.api.apps.v1.ReplicaSetStatus", "replicas"),
        ),
        Column(
            "Ready",
            "integer",
            Field("io.k8s.api.apps.v1.ReplicaSetStatus", "readyReplicas"),
        ),
        AGE,
        TEMPLATE_CONTAINERS,
        TEMPLATE_IMAGES,
        Column(
            "Selector",
            "string",
            Field("io.k8s.api.apps.v1.ReplicaSetSpec", "selector"),
        ),
    ],
    wide: TEMPLATE_WIDE,
};

const SLICE: &str = "io.k8s.api.discovery.v1.EndpointSlice";

const ENDPOINT_SLICE: Layout = Layout {
    columns: &[
        NAME,
        Column("AddressType", "string", Field(SLICE, "addressType")),
        Column("Ports", "string", Field(SLICE, "ports")),
        Column("Endpoints", "string", Field(SLICE, "endpoints")),
        AGE,
    ],
    wide: &[],
};

const LEASE: Layout = Layout {
    columns: &[
        NAME,
        Column(
            "Holder",
            "string",
            Field("io.k8s.api.coordination.v1.LeaseSpec", "holderIdentity"),
        ),
        AGE,
    ],
    wide: &[],
};

const PLAIN: Layout = Layout {
    columns: &[NAME, AGE],
    wide: &[],
};
