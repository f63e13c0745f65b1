//! A kubelet: carries out pods through a CRI runtime and reports back to any API server.
