//! The pod state machine: desired pod + what the runtime has -> what to do next. Pure, so that every transition is
//! a test. The worker carries the steps out, looks again and plans again until there is nothing left to do.
//!
//! The rules are those of upstream's `computePodActions`: one ready sandbox; init containers one after the other;
//! sidecars (KEP-753) started in their place and kept running; then all main containers, each restarted as the
//! pod's restart policy says, with back-off.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;

use super::backoff::Backoff;
use super::labels;
use super::observed::{Instance, Observed, State};
use super::spec::{self, RestartPolicy, Role};

/// Why a running container is killed although its pod goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// Its image in the spec was changed.
    SpecChanged,
    /// Its liveness probe failed.
    Liveness,
    /// Its startup probe failed.
    Startup,
    /// The runtime has lost track of it.
    Unknown,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stop whatever is left of a sandbox: frees its network and kills its containers.
    StopSandbox {
        /// Sandbox to stop.
        id: String,
    },
    /// Create and start a sandbox.
    CreateSandbox {
        /// 0 for the pod's first one.
        attempt: u32,
    },
    /// Create and start a container in the current sandbox.
    Start {
        /// Name in the spec.
        container: String,
        /// How often it was restarted before.
        restart_count: u32,
    },
    /// Stop a container gracefully.
    Kill {
        /// Id at the runtime.
        id: String,
        /// Name in the spec.
        container: String,
        /// Why.
        reason: KillReason,
    },
    /// Forget an instance that nobody asks for any more.
    Remove {
        /// Id at the runtime.
        id: String,
    },
    /// Forget a sandbox that nobody asks for any more.
    RemoveSandbox {
        /// Id at the runtime.
        id: String,
    },
}

/// How a pod that has nothing more to run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Every main container ended with 0.
    Succeeded,
    /// A container failed that is not restarted.
    Failed,
    /// `activeDeadlineSeconds` ran out.
    DeadlineExceeded,
}

/// What to do now, and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Steps in order. Empty: nothing to do.
    pub steps: Vec<Step>,
    /// Set when the pod is over: stop what still runs, start nothing.
    pub finish: Option<Finish>,
    /// When time alone changes the plan: a back-off or a deadline ends.
    pub wake_at: Option<Timestamp>,
}

/// Verdicts of probes on running instances, by instance id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Liveness probe failed.
    pub liveness_failed: HashSet<String>,
    /// Startup probe failed.
    pub startup_failed: HashSet<String>,
    /// Startup probe passed.
    pub started: HashSet<String>,
    /// Readiness probe passed.
    pub ready: HashSet<String>,
}

/// What a plan depends on.
pub struct Input<'a> {
    /// The pod as the API has it.
    pub pod: &'a Pod,
    /// What the runtime has of it.
    pub observed: &'a Observed,
    /// Restart delays by container name.
    pub backoff: &'a Backoff,
    /// Containers that could not be started, and when to try again.
    pub retry_at: &'a HashMap<String, Timestamp>,
    /// Verdicts of probes.
    pub health: &'a Health,
    /// Now.
    pub now: Timestamp,
}

/// Whether a running instance counts as started: its startup probe has passed, or it has none.
pub fn is_started(container: &Container, instance: &Instance, health: &Health) -> bool {
    instance.state == State::Running
        && (container.startup_probe.is_none() || health.started.contains(&instance.id))
}

/// Plans the next steps for a pod that is to run.
pub fn plan(input: &Input<'_>) -> Plan {
    if let Some(finish) = finished(input.pod, input.observed, input.now) {
        return Plan {
            finish: Some(finish),
            ..Plan::default()
        };
    }
    let mut planner = Planner {
        input,
        plan: Plan {
            wake_at: spec::deadline(input.pod),
            ..Plan::default()
        },
    };
    match input.observed.current_sandbox() {
        Some(sandbox) => planner.containers(&sandbox.id),
        None => planner.sandbox(),
    }
    planner.collect_garbage();
    planner.plan
}

/// Whether nothing of the pod is to run any more, by its restart policy and deadline.
pub fn finished(pod: &Pod, observed: &Observed, now: Timestamp) -> Option<Finish> {
    if spec::deadline(pod).is_some_and(|deadline| deadline <= now) {
        return Some(Finish::DeadlineExceeded);
    }
    let policy = spec::restart_policy(pod);
    if policy == RestartPolicy::Never && failed_init(pod, observed) {
        return Some(Finish::Failed);
    }
    let mut all_zero = true;
    for container in spec::main_containers(pod) {
        let latest = observed
            .latest(&container.name)
            .filter(|instance| instance.state == State::Exited)?;
        if policy.restarts(latest.exit_code) || latest.hash != labels::container_hash(container) {
            return None;
        }
        all_zero &= latest.exit_code == 0;
    }
    Some(if all_zero {
        Finish::Succeeded
    } else {
        Finish::Failed
    })
}

fn failed_init(pod: &Pod, observed: &Observed) -> bool {
    let plain = spec::init_containers(pod)
        .iter()
        .filter(|container| spec::init_role(container) == Role::Init);
    plain
        .filter_map(|container| observed.latest(&container.name))
        .any(|i| i.state == State::Exited && i.exit_code != 0)
}

struct Planner<'a> {
    input: &'a Input<'a>,
    plan: Plan,
}

impl Planner<'_> {
    /// No sandbox is ready: free what is left of the newest one and make another.
    fn sandbox(&mut self) {
        let sandboxes = &self.input.observed.sandboxes;
        let attempt = sandboxes.first().map_or(0, |newest| newest.attempt + 1);
        let ran = !self.input.observed.instances.is_empty();
        if spec::restart_policy(self.input.pod) == RestartPolicy::Never
            && ran
            && self.none_to_start()
        {
            return;
        }
        self.plan
            .steps
            .extend(sandboxes.iter().map(|sandbox| Step::StopSandbox {
                id: sandbox.id.clone(),
            }));
        self.plan.steps.push(Step::CreateSandbox { attempt });
    }

    /// With `Never`, a container whose sandbox died is not started again; others may still be waiting.
    fn none_to_start(&self) -> bool {
        let observed = self.input.observed;
        spec::main_containers(self.input.pod)
            .iter()
            .all(|container| observed.latest(&container.name).is_some())
    }

    fn containers(&mut self, sandbox: &str) {
        let extra = self
            .input
            .observed
            .sandboxes
            .iter()
            .skip(1)
            .filter(|sandbox| sandbox.ready);
        self.plan
            .steps
            .extend(extra.map(|sandbox| Step::StopSandbox {
                id: sandbox.id.clone(),
            }));
        let pod = self.input.pod;
        let mains = spec::main_containers(pod);
        let past_init = mains
            .iter()
            .any(|container| self.latest_in(&container.name, sandbox).is_some());
        for container in spec::init_containers(pod) {
            let sidecar = spec::init_role(container) == Role::Sidecar;
            if past_init && !sidecar {
                continue;
            }
            let done = if sidecar {
                self.sidecar(container, sandbox)
            } else {
                self.init(container, sandbox)
            };
            if !done && !past_init {
                return;
            }
        }
        for container in mains {
            self.main(container, sandbox);
        }
    }

    fn latest_in(&self, name: &str, sandbox: &str) -> Option<&Instance> {
        self.input
            .observed
            .latest(name)
            .filter(|instance| instance.sandbox_id == sandbox)
    }

    /// Runs a plain init container to its end; true when it has ended well.
    fn init(&mut self, container: &Container, sandbox: &str) -> bool {
        let Some(instance) = self.latest_in(&container.name, sandbox).cloned() else {
            self.start(container);
            return false;
        };
        match instance.state {
            State::Created => self.start_over(container, &instance),
            State::Running => {}
            State::Unknown => self.kill(&instance, KillReason::Unknown),
            State::Exited if instance.exit_code == 0 => return true,
            State::Exited => self.restart(container, &instance),
        }
        false
    }

    /// Keeps a sidecar running; true when the next container may start.
    fn sidecar(&mut self, container: &Container, sandbox: &str) -> bool {
        let Some(instance) = self.latest_in(&container.name, sandbox).cloned() else {
            self.start(container);
            return false;
        };
        match instance.state {
            State::Created => self.start_over(container, &instance),
            State::Running => return self.check_running(container, &instance),
            State::Unknown => self.kill(&instance, KillReason::Unknown),
            State::Exited => self.restart(container, &instance),
        }
        false
    }

    fn main(&mut self, container: &Container, sandbox: &str) {
        let Some(instance) = self.input.observed.latest(&container.name).cloned() else {
            return self.start(container);
        };
        match instance.state {
            State::Created => self.start_over(container, &instance),
            State::Running if instance.sandbox_id == sandbox => {
                self.check_running(container, &instance);
            }
            // It belongs to a sandbox that died: stopping that sandbox has not ended it yet.
            State::Running | State::Unknown => self.kill(&instance, KillReason::Unknown),
            State::Exited => self.after_exit(container, &instance),
        }
    }

    /// Kills a running instance that must not go on; true when it has started and stays.
    fn check_running(&mut self, container: &Container, instance: &Instance) -> bool {
        let health = self.input.health;
        if instance.hash != labels::container_hash(container) {
            self.kill(instance, KillReason::SpecChanged);
        } else if health.startup_failed.contains(&instance.id) {
            self.kill(instance, KillReason::Startup);
        } else if health.liveness_failed.contains(&instance.id) {
            self.kill(instance, KillReason::Liveness);
        } else {
            return is_started(container, instance, health);
        }
        false
    }

    fn after_exit(&mut self, container: &Container, instance: &Instance) {
        if instance.hash != labels::container_hash(container) {
            self.start(container);
        } else if spec::restart_policy(self.input.pod).restarts(instance.exit_code) {
            self.restart(container, instance);
        }
    }

    /// Starts a container again unless its back-off is running.
    fn restart(&mut self, container: &Container, instance: &Instance) {
        let since = instance
            .finished_at
            .or(instance.created_at)
            .unwrap_or(self.input.now);
        match self
            .input
            .backoff
            .pending(&container.name, since, self.input.now)
        {
            Some((_, until)) => self.wake(until),
            None => self.start(container),
        }
    }

    /// An instance that was created but not started is from a kubelet that died in between.
    fn start_over(&mut self, container: &Container, instance: &Instance) {
        self.plan.steps.push(Step::Remove {
            id: instance.id.clone(),
        });
        self.start(container);
    }

    fn start(&mut self, container: &Container) {
        if let Some(at) = self
            .input
            .retry_at
            .get(&container.name)
            .filter(|at| **at > self.input.now)
        {
            return self.wake(*at);
        }
        let restart_count =
            next_restart_count(self.input.pod, self.input.observed, &container.name);
        self.plan.steps.push(Step::Start {
            container: container.name.clone(),
            restart_count,
        });
    }

    fn kill(&mut self, instance: &Instance, reason: KillReason) {
        self.plan.steps.push(Step::Kill {
            id: instance.id.clone(),
            container: instance.name.clone(),
            reason,
        });
    }

    fn wake(&mut self, at: Timestamp) {
        let earlier = self.plan.wake_at.is_none_or(|known| at < known);
        if earlier {
            self.plan.wake_at = Some(at);
        }
    }

    /// Keeps the newest instance of every container and the one before it (for `logs --previous`), and the
    /// sandboxes that they belong to.
    fn collect_garbage(&mut self) {
        let mut kept: HashMap<&str, usize> = HashMap::new();
        let mut sandboxes_in_use = HashSet::new();
        let observed = self.input.observed;
        for instance in &observed.instances {
            let count = kept.entry(&instance.name).or_default();
            *count += 1;
            if *count > 2 && instance.state == State::Exited {
                self.plan.steps.push(Step::Remove {
                    id: instance.id.clone(),
                });
            } else {
                sandboxes_in_use.insert(&instance.sandbox_id);
            }
        }
        let old = observed
            .sandboxes
            .iter()
            .skip(1)
            .filter(|sandbox| !sandbox.ready);
        let unused = old.filter(|sandbox| !sandboxes_in_use.contains(&sandbox.id));
        self.plan
            .steps
            .extend(unused.map(|sandbox| Step::RemoveSandbox {
                id: sandbox.id.clone(),
            }));
    }
}

/// One more than the newest instance's; where the runtime has forgotten all instances, than what the API knows.
fn next_restart_count(pod: &Pod, observed: &Observed, name: &str) -> u32 {
    if let Some(latest) = observed.latest(name) {
        return if latest.state == State::Created {
            latest.restart_count
        } else {
            latest.restart_count + 1
        };
    }
    let status = pod.status.as_ref();
    let main = status
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    let init = status
        .and_then(|status| status.init_container_statuses.as_deref())
        .unwrap_or_default();
    let known = main
        .iter()
        .chain(init)
        .find(|status| status.name == name && status.container_id.is_some());
    known.map_or(0, |status| status.restart_count.max(0).unsigned_abs() + 1)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
