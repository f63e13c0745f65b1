//! A whole cluster on one machine: a network namespace, a containerd and the node's processes for each node.
