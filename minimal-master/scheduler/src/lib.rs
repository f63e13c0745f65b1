//! Binds pending pods to nodes: filters, then scores.
