//! What every control loop needs on top of the `kube` crate.
//!
//! Scheduler and controllers are ordinary clients of the API server. What they share lives here
//! and nowhere else: a cached watch that tells its handlers the old and the new object
//! ([`informer`]), a de-duplicating, rate-limited queue ([`queue`]), events ([`events`]), leadership
//! by Lease ([`election`]), and the small pure rules of the API that have no home in the typed
//! objects: label selectors ([`labels`]), taints ([`taints`]), quantities ([`quantity`]), owner
//! references ([`owner`]) and pod conditions ([`pod`]).
#![forbid(unsafe_code)]

pub mod election;
pub mod events;
pub mod informer;
pub mod key;
pub mod labels;
pub mod owner;
pub mod pod;
pub mod quantity;
pub mod queue;
pub mod taints;
pub mod worker;

pub use informer::{Change, Informer};
pub use key::Key;
pub use queue::WorkQueue;

/// Whether the server answered with this HTTP status code.
pub fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// The object is not there (404).
pub fn is_not_found(error: &kube::Error) -> bool {
    is_code(error, 404)
}

/// The object changed since it was read, or a precondition failed (409).
pub fn is_conflict(error: &kube::Error) -> bool {
    is_code(error, 409)
}

/// Turns "it is gone" into success: for deletes and for writes that only matter while the object lives.
pub fn ignore_not_found<T>(result: kube::Result<T>) -> kube::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
