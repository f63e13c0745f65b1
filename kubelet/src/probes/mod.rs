//! Probes of running containers: when to check, how many results make a verdict, and the verdicts of one pod.

pub mod action;
mod counter;
mod set;

pub use counter::Counter;
pub use set::ProbeSet;

/// What a probe decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Whether the container has started; holds the others back.
    Startup,
    /// Whether it must be restarted.
    Liveness,
    /// Whether it may get traffic.
    Readiness,
}

impl Kind {
    /// As events name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}
