//! The per-pod IP allocator, its CNI plugin and node daemon, and the pods' links and routes over rtnetlink.
