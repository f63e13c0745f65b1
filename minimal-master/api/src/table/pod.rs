//! The row of a pod: its containers' states in one word.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, or_none};
use crate::duration;
use crate::json::{flag, int, int_at, list_at, name, text, text_at};

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let mut restarts = summary.restarts.count.to_string();
    if summary.restarts.count != 0
        && let Some(last) = summary.restarts.last
    {
        let ago = duration::human(now.duration_since(last).as_secs());
        restarts = format!("{restarts} ({ago} ago)");
    }
    vec![
        json!(name(pod)),
        json!(format!("{}/{}", summary.ready, summary.containers)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        json!(or_none(pod_ip(pod))),
        json!(or_none(text_at(pod, "/spec/nodeName"))),
        json!(or_none(text_at(pod, "/status/nominatedNodeName"))),
        json!(readiness_gates(pod)),
    ]
}

/// The row's condition for pods that will not run again; kubectl can leave them out.
pub(super) fn finished(pod: &Value) -> Option<Value> {
    let (reason, message) = match text_at(pod, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

fn pod_ip(pod: &Value) -> &str {
    match text_at(pod, "/status/podIPs/0/ip") {
        "" => text_at(pod, "/status/podIP"),
        ip => ip,
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list_at(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| is_condition_true(pod, text(gate, "conditionType")));
    format!("{}/{}", open.count(), gates.len())
}

fn is_condition_true(pod: &Value, ty: &str) -> bool {
    let conditions = list_at(pod, "/status/conditions");
    conditions
        .iter()
        .any(|c| text(c, "type") == ty && text(c, "status") == "True")
}

/// How often containers were restarted, and when last.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += int(status, "restartCount").unwrap_or_default();
        let finished = text_at(status, "/lastState/terminated/finishedAt")
            .parse()
            .ok();
        self.last = self.last.max(finished);
    }
}

/// What a row says about a pod's containers.
struct Summary {
    ready: usize,
    containers: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let mut summary = Summary {
            ready: 0,
            containers: list_at(pod, "/spec/containers").len(),
            reason: phase(pod),
            restarts: Restarts::default(),
        };
        let sidecars = summary.init_containers(pod);
        let initializing = sidecars.is_none();
        if !initializing || is_condition_true(pod, "Initialized") {
            summary.restarts = sidecars.unwrap_or_default();
            summary.app_containers(pod);
        }
        if is_being_deleted(pod) {
            summary.deletion(pod);
        }
        summary
    }

    /// Looks at init containers up to the first that is not done. Returns the restarts of sidecars when all are done.
    fn init_containers(&mut self, pod: &Value) -> Option<Restarts> {
        let specs = list_at(pod, "/spec/initContainers");
        let is_sidecar = |name: &str| {
            specs
                .iter()
                .any(|c| text(c, "name") == name && text(c, "restartPolicy") == "Always")
        };
        self.containers += specs
            .iter()
            .filter(|c| text(c, "restartPolicy") == "Always")
            .count();
        let mut sidecars = Restarts::default();
        for (index, status) in list_at(pod, "/status/initContainerStatuses")
            .iter()
            .enumerate()
        {
            let sidecar = is_sidecar(text(status, "name"));
            self.restarts.add(status);
            if sidecar {
                sidecars.add(status);
            }
            if sidecar && flag(status, "started") {
                self.ready += usize::from(flag(status, "ready"));
            } else if let Some(reason) = init_reason(status, index, specs.len()) {
                self.reason = reason;
                return None;
            }
        }
        Some(sidecars)
    }

    fn app_containers(&mut self, pod: &Value) {
        let mut running = false;
        for status in list_at(pod, "/status/containerStatuses").iter().rev() {
            self.restarts.add(status);
            if let Some(reason) = stopped_reason(status) {
                self.reason = reason;
            } else if flag(status, "ready") && status["state"]["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = is_condition_true(pod, "Ready");
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn deletion(&mut self, pod: &Value) {
        if text_at(pod, "/status/reason") == "NodeLost" {
            self.reason = "Unknown".to_owned();
        } else if !matches!(text_at(pod, "/status/phase"), "Succeeded" | "Failed") {
            self.reason = "Terminating".to_owned();
        }
    }
}

fn is_being_deleted(pod: &Value) -> bool {
    !text_at(pod, "/metadata/deletionTimestamp").is_empty()
}

fn phase(pod: &Value) -> String {
    let gated = list_at(pod, "/status/conditions")
        .iter()
        .any(|c| text(c, "type") == "PodScheduled" && text(c, "reason") == "SchedulingGated");
    match text_at(pod, "/status/reason") {
        _ if gated => "SchedulingGated".to_owned(),
        "" => text_at(pod, "/status/phase").to_owned(),
        reason => reason.to_owned(),
    }
}

/// What keeps an init container from being done; none when it is.
fn init_reason(status: &Value, index: usize, count: usize) -> Option<String> {
    let terminated = &status["state"]["terminated"];
    if terminated.is_object() {
        if int_at(terminated, "/exitCode") == 0 {
            return None;
        }
        return Some(format!("Init:{}", terminated_reason(terminated)));
    }
    match text_at(status, "/state/waiting/reason") {
        "" | "PodInitializing" => Some(format!("Init:{index}/{count}")),
        reason => Some(format!("Init:{reason}")),
    }
}

/// Why a container does not run; none when it runs or nothing is known.
fn stopped_reason(status: &Value) -> Option<String> {
    let waiting = text_at(status, "/state/waiting/reason");
    if !waiting.is_empty() {
        return Some(waiting.to_owned());
    }
    let terminated = &status["state"]["terminated"];
    terminated
        .is_object()
        .then(|| terminated_reason(terminated))
}

fn terminated_reason(terminated: &Value) -> String {
    match (text(terminated, "reason"), int_at(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", int_at(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
