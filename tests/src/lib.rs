//! Scenarios that need several nodes, real containers, kubectl and injected faults.
