//! A whole kubelet against a real API server and a real containerd of the test's own, in a network namespace of the
//! test's own. Needs root, containerd, runc and a static busybox (Debian: containerd, runc, busybox-static).

mod containerd;
mod http_client;
mod images;
mod namespace;
mod pods;
mod restarts;
mod world;
