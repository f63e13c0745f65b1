//! The Node object: what this machine is and can do, whether it is well, and the Lease that says it is alive.

mod lease;
mod machine;
mod object;
mod register;

pub use lease::{LeaseSettings, renew};
pub use machine::{Machine, Pressure};
pub use object::{Facts, Identity, conditions};
pub use register::{Registrar, Settings};
