//! Label and field selectors of lists, watches and workloads.

mod field;
mod label;

pub use field::{FieldSelector, selectable};
pub use label::{LabelSelector, Operator, Requirement};
