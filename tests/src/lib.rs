//! Scenarios that need several nodes, real containers, kubectl and injected faults.
//!
//! This library is what the scenarios share: a cluster that is brought up once and taken down in any
//! case ([`cluster`]), kubectl in two versions ([`kubectl`]), traffic ([`traffic`]), a list of what a
//! cluster may leave behind ([`traces`]), and the order in which scenarios run ([`runner`]).

pub mod cluster;
pub mod kubectl;
pub mod poll;
pub mod runner;
pub mod traces;
pub mod traffic;
