//! What failed, when it is tried again, and how the wait is shown.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{RETRY, Worker};
use crate::pods::observed::Observed;
use crate::pods::spec;
use crate::pods::start::NotStarted;

impl Worker {
    /// Keeps why a start failed, and when to try again: later each time.
    pub(super) fn start_failed(&mut self, name: &str, failure: NotStarted) {
        let now = Timestamp::now();
        self.start_backoff.advance(name, now, now);
        let again = self
            .start_backoff
            .pending(name, now, now)
            .map_or(now, |(_, until)| until);
        self.retry_at.insert(name.to_owned(), again);
        self.failures
            .insert(name.to_owned(), failure.failure().clone());
    }

    /// What a configuration lacked may be there now.
    pub(super) fn retry_configurations(&mut self) {
        let failures = &self.failures;
        let lacks = |name: &String| {
            failures
                .get(name)
                .is_some_and(|f| f.reason == "CreateContainerConfigError")
        };
        self.retry_at.retain(|name, _| !lacks(name));
    }

    /// Between two tries of a pull the container waits in `ImagePullBackOff`.
    pub(super) fn image_back_off(&mut self, pod: &Pod) {
        let now = Timestamp::now();
        for (name, failure) in &mut self.failures {
            let waits = self.retry_at.get(name).is_some_and(|at| *at > now);
            if failure.reason == "ErrImagePull"
                && waits
                && self.backed_off.get(name) != Some(&failure.message)
            {
                // Reported once as what it is; from the next round on as a back-off.
                self.backed_off
                    .insert(name.clone(), failure.message.clone());
            } else if failure.reason == "ErrImagePull" && waits {
                let image = spec::container(pod, name)
                    .and_then(|(c, _)| c.image.clone())
                    .unwrap_or_default();
                failure.reason = "ImagePullBackOff".into();
                failure.message =
                    format!("Back-off pulling image \"{image}\": {}", failure.message);
                self.host.recorder.normal(
                    pod,
                    Some(name),
                    "BackOff",
                    format!("Back-off pulling image \"{image}\""),
                );
                self.backed_off.remove(name);
            }
        }
    }

    /// One event for each time that a crashed container has to wait.
    pub(super) fn note_back_off(&mut self, pod: &Pod, observed: &Observed) {
        let now = Timestamp::now();
        for (container, _) in spec::all_containers(pod) {
            let Some(ended) = observed
                .latest(&container.name)
                .filter(|i| i.finished_at.is_some())
            else {
                continue;
            };
            let since = ended.finished_at.unwrap_or(now);
            let waits = self.backoff.pending(&container.name, since, now).is_some();
            let key = format!("restart {}", container.name);
            if waits && self.backed_off.get(&key) != Some(&ended.id) {
                self.backed_off.insert(key, ended.id.clone());
                let (name, namespace, uid) =
                    (spec::name(pod), spec::namespace(pod), spec::uid(pod));
                let message = format!(
                    "Back-off restarting failed container {} in pod {name}_{namespace}({uid})",
                    container.name
                );
                self.host
                    .recorder
                    .warning(pod, Some(&container.name), "BackOff", message);
            }
        }
    }

    pub(super) fn retry_time(&mut self) -> Timestamp {
        let delay = self.retry;
        self.retry = (self.retry * 2).min(RETRY.1);
        after(delay)
    }
}

fn after(delay: Duration) -> Timestamp {
    let now = Timestamp::now();
    now.checked_add(SignedDuration::try_from(delay).unwrap_or(SignedDuration::ZERO))
        .unwrap_or(now)
}
