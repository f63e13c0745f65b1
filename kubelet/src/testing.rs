//! Stand-ins for the outside: a runtime in memory, objects, and an API that takes statuses.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodStatus, Secret, Service};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;

use crate::cri::{Error, ExecOutput, Result, Runtime, Scope, v1};
use crate::events::{Occurrence, Sink};
use crate::objects::{self, Objects, TokenFor};
use crate::pods::api::{self, PodApi, Presence};
use crate::pods::labels;
use crate::pods::observed::{Instance, State};

/// A running instance of the container `name`.
pub fn running_instance(name: &str, id: &str) -> Instance {
    Instance {
        id: id.into(),
        name: name.into(),
        sandbox_id: "s".into(),
        restart_count: 0,
        state: State::Running,
        created_at: Some(Timestamp::now()),
        started_at: Some(Timestamp::now()),
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: String::new(),
        image_id: String::new(),
        hash: String::new(),
        log_path: String::new(),
        termination_message_file: None,
        message_from_log: false,
    }
}

#[derive(Default)]
struct Node {
    sandboxes: Vec<v1::PodSandbox>,
    containers: Vec<v1::ContainerStatus>,
    /// Sandbox of each container.
    homes: HashMap<String, String>,
    calls: Vec<String>,
    next_id: u32,
    absent_images: Vec<String>,
    fail: HashMap<String, String>,
}

/// A runtime that keeps everything in memory. Containers run until they are stopped or told to exit.
#[derive(Default)]
pub struct FakeRuntime {
    node: Mutex<Node>,
    exec_exit_code: AtomicI32,
    down: AtomicBool,
    /// Woken after every change.
    pub changed: Notify,
}

impl FakeRuntime {
    fn call(&self, call: impl Into<String>) -> Result<std::sync::MutexGuard<'_, Node>> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::Unavailable("down".into()));
        }
        let call = call.into();
        let mut node = self.node.lock().unwrap();
        let name = call.split(' ').next().unwrap().to_owned();
        let reading = ["list", "status", "image_status"].contains(&name.as_str());
        if !reading {
            node.calls.push(call);
        }
        self.changed.notify_waiters();
        match node.fail.get(&name) {
            Some(message) => Err(Error::Failed(message.clone())),
            None => Ok(node),
        }
    }

    /// Calls that change something, in order.
    pub fn calls(&self) -> Vec<String> {
        self.node.lock().unwrap().calls.clone()
    }

    /// Whether the runtime answers.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Makes a call fail, or work again.
    pub fn set_failing(&self, call: &str, message: Option<&str>) {
        let mut node = self.node.lock().unwrap();
        match message {
            Some(message) => node.fail.insert(call.into(), message.into()),
            None => node.fail.remove(call),
        };
    }

    /// Takes an image off the node; it can be pulled unless `pull_image` fails.
    pub fn set_absent(&self, image: &str) {
        self.node.lock().unwrap().absent_images.push(image.into());
    }

    /// Exit code of every exec from now on.
    pub fn set_exec_exit_code(&self, code: i32) {
        self.exec_exit_code.store(code, Ordering::SeqCst);
    }

    /// Ends the running instance of a container.
    pub fn exit(&self, name: &str, code: i32) {
        let mut node = self.node.lock().unwrap();
        let running = node.containers.iter_mut().find(|status| {
            status.labels[labels::CONTAINER_NAME] == name
                && status.state() == v1::ContainerState::ContainerRunning
        });
        end(running.expect("the container runs"), code);
        self.changed.notify_waiters();
    }

    /// Kills a pod's sandbox, as a crashed node or runtime does.
    pub fn kill_sandboxes(&self) {
        let mut node = self.node.lock().unwrap();
        node.sandboxes
            .iter_mut()
            .for_each(|sandbox| sandbox.set_state(v1::PodSandboxState::SandboxNotready));
        node.containers
            .iter_mut()
            .for_each(|status| end(status, 137));
    }

    /// Names of containers that run.
    pub fn running(&self) -> Vec<String> {
        let node = self.node.lock().unwrap();
        let running = node
            .containers
            .iter()
            .filter(|s| s.state() == v1::ContainerState::ContainerRunning);
        running
            .map(|status| status.labels[labels::CONTAINER_NAME].clone())
            .collect()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        let node = self.node.lock().unwrap();
        node.sandboxes.is_empty() && node.containers.is_empty()
    }
}

fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap()
}

fn end(status: &mut v1::ContainerStatus, code: i32) {
    if status.state() == v1::ContainerState::ContainerRunning {
        status.set_state(v1::ContainerState::ContainerExited);
        (status.exit_code, status.finished_at) = (code, now());
    }
}

fn not_found(id: &str) -> Error {
    Error::NotFound(id.into())
}

fn in_scope(scope: Scope<'_>, labels: &HashMap<String, String>) -> bool {
    match scope {
        Scope::All => true,
        Scope::Pod(uid) => labels
            .get(labels::POD_UID)
            .is_some_and(|known| known == uid),
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<v1::VersionResponse> {
        Ok(v1::VersionResponse {
            runtime_name: "fake".into(),
            ..Default::default()
        })
    }

    async fn status(&self) -> Result<v1::RuntimeStatus> {
        self.call("status").map(|_| v1::RuntimeStatus::default())
    }

    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig) -> Result<String> {
        let mut node = self.call("run_pod_sandbox")?;
        node.next_id += 1;
        let id = format!("sandbox{}", node.next_id);
        node.sandboxes.push(v1::PodSandbox {
            id: id.clone(),
            metadata: config.metadata,
            created_at: now(),
            labels: config.labels,
            annotations: config.annotations,
            ..Default::default()
        });
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let mut node = self.call(format!("stop_pod_sandbox {id}"))?;
        let Node {
            sandboxes,
            containers,
            homes,
            ..
        } = &mut *node;
        let found = sandboxes.iter_mut().filter(|sandbox| sandbox.id == id);
        found.for_each(|sandbox| sandbox.set_state(v1::PodSandboxState::SandboxNotready));
        containers
            .iter_mut()
            .filter(|status| homes[&status.id] == id)
            .for_each(|status| end(status, 137));
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let mut node = self.call(format!("remove_pod_sandbox {id}"))?;
        let Node {
            sandboxes,
            containers,
            homes,
            ..
        } = &mut *node;
        sandboxes.retain(|sandbox| sandbox.id != id);
        containers.retain(|status| homes[&status.id] != id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus> {
        let node = self.call("status")?;
        let found = node
            .sandboxes
            .iter()
            .find(|sandbox| sandbox.id == id)
            .ok_or_else(|| not_found(id))?;
        let network = v1::PodSandboxNetworkStatus {
            ip: "10.0.0.2".into(),
            additional_ips: vec![],
        };
        Ok(v1::PodSandboxStatus {
            id: found.id.clone(),
            network: Some(network),
            ..Default::default()
        })
    }

    async fn list_pod_sandboxes(&self, scope: Scope<'_>) -> Result<Vec<v1::PodSandbox>> {
        let node = self.call("list")?;
        Ok(node
            .sandboxes
            .iter()
            .filter(|sandbox| in_scope(scope, &sandbox.labels))
            .cloned()
            .collect())
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: v1::ContainerConfig,
        _: v1::PodSandboxConfig,
    ) -> Result<String> {
        let name = config.metadata.as_ref().unwrap().name.clone();
        let mut node = self.call(format!("create_container {name}"))?;
        node.next_id += 1;
        let id = format!("{name}{}", node.next_id);
        node.homes.insert(id.clone(), sandbox_id.into());
        node.containers.push(v1::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata,
            created_at: now(),
            image: config.image,
            labels: config.labels,
            annotations: config.annotations,
            mounts: config.mounts,
            ..Default::default()
        });
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let mut node = self.call(format!("start_container {id}"))?;
        let status = node
            .containers
            .iter_mut()
            .find(|status| status.id == id)
            .ok_or_else(|| not_found(id))?;
        status.set_state(v1::ContainerState::ContainerRunning);
        status.started_at = now();
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace_seconds: i64) -> Result<()> {
        let mut node = self.call(format!("stop_container {id} {grace_seconds}"))?;
        let status = node
            .containers
            .iter_mut()
            .find(|status| status.id == id)
            .ok_or_else(|| not_found(id))?;
        end(status, 143);
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.call(format!("remove_container {id}"))?
            .containers
            .retain(|status| status.id != id);
        Ok(())
    }

    async fn list_containers(&self, scope: Scope<'_>) -> Result<Vec<v1::Container>> {
        let node = self.call("list")?;
        let found = node
            .containers
            .iter()
            .filter(|status| in_scope(scope, &status.labels));
        Ok(found
            .map(|status| v1::Container {
                id: status.id.clone(),
                pod_sandbox_id: node.homes[&status.id].clone(),
                state: status.state,
                labels: status.labels.clone(),
                ..Default::default()
            })
            .collect())
    }

    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus> {
        let node = self.call("status")?;
        node.containers
            .iter()
            .find(|status| status.id == id)
            .cloned()
            .ok_or_else(|| not_found(id))
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        self.call(format!("reopen_container_log {id}")).map(drop)
    }

    async fn exec_sync(&self, id: &str, command: &[String], _: i64) -> Result<ExecOutput> {
        drop(self.call(format!("exec_sync {id} {}", command.join(" ")))?);
        Ok(ExecOutput {
            output: b"output".to_vec(),
            exit_code: self.exec_exit_code.load(Ordering::SeqCst),
        })
    }

    async fn exec(&self, _: v1::ExecRequest) -> Result<String> {
        Err(Error::Unimplemented("exec"))
    }

    async fn attach(&self, _: v1::AttachRequest) -> Result<String> {
        Err(Error::Unimplemented("attach"))
    }

    async fn port_forward(&self, _: v1::PortForwardRequest) -> Result<String> {
        Err(Error::Unimplemented("port_forward"))
    }

    async fn list_container_stats(&self) -> Result<Vec<v1::ContainerStats>> {
        Ok(Vec::new())
    }

    async fn image_status(&self, image: &str) -> Result<Option<v1::Image>> {
        let node = self.call("image_status")?;
        let absent = node.absent_images.iter().any(|known| known == image);
        Ok((!absent).then(|| v1::Image {
            id: image.into(),
            ..Default::default()
        }))
    }

    async fn pull_image(&self, image: &str, _: Option<v1::AuthConfig>) -> Result<String> {
        self.call(format!("pull_image {image}"))?
            .absent_images
            .retain(|known| known != image);
        Ok(image.into())
    }

    async fn list_images(&self) -> Result<Vec<v1::Image>> {
        Ok(Vec::new())
    }

    async fn image_fs_info(&self) -> Result<Vec<v1::FilesystemUsage>> {
        Ok(Vec::new())
    }

    async fn container_events(
        &self,
    ) -> Result<BoxStream<'static, Result<v1::ContainerEventResponse>>> {
        Err(Error::Unimplemented("get_container_events"))
    }
}

type Named<T> = Mutex<HashMap<(String, String), Arc<T>>>;

/// Objects that tests put in.
#[derive(Default)]
pub struct FakeObjects {
    config_maps: Named<ConfigMap>,
    secrets: Named<Secret>,
    services: Mutex<Vec<Arc<Service>>>,
}

impl FakeObjects {
    /// Puts or replaces a ConfigMap.
    pub fn put_config_map<const N: usize>(
        &self,
        namespace: &str,
        name: &str,
        data: [(&str, &str); N],
    ) {
        let data = data.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let map = ConfigMap {
            data: Some(data.into()),
            ..Default::default()
        };
        self.config_maps
            .lock()
            .unwrap()
            .insert((namespace.into(), name.into()), Arc::new(map));
    }

    /// Puts or replaces a Secret.
    pub fn put_secret<const N: usize>(&self, namespace: &str, name: &str, data: [(&str, &str); N]) {
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
        let secret = Secret {
            data: Some(data.into()),
            ..Default::default()
        };
        self.secrets
            .lock()
            .unwrap()
            .insert((namespace.into(), name.into()), Arc::new(secret));
    }

    /// Adds a Service with one TCP port.
    pub fn with_service(&self, namespace: &str, name: &str, ip: &str, port: i32) -> &Self {
        let service = serde_json::json!({ "metadata": { "name": name, "namespace": namespace },
            "spec": { "clusterIP": ip, "ports": [{ "port": port, "protocol": "TCP" }] } });
        self.services
            .lock()
            .unwrap()
            .push(Arc::new(serde_json::from_value(service).unwrap()));
        self
    }
}

fn lookup<T>(
    map: &Named<T>,
    kind: &'static str,
    namespace: &str,
    name: &str,
) -> objects::Result<Arc<T>> {
    let found = map
        .lock()
        .unwrap()
        .get(&(namespace.to_owned(), name.to_owned()))
        .cloned();
    found.ok_or(objects::Error::NotFound {
        kind,
        name: name.into(),
    })
}

#[async_trait]
impl Objects for FakeObjects {
    async fn config_map(
        &self,
        _: &str,
        namespace: &str,
        name: &str,
    ) -> objects::Result<Arc<ConfigMap>> {
        lookup(&self.config_maps, "configmap", namespace, name)
    }

    async fn secret(&self, _: &str, namespace: &str, name: &str) -> objects::Result<Arc<Secret>> {
        lookup(&self.secrets, "secret", namespace, name)
    }

    async fn services(&self, _: &str) -> objects::Result<Vec<Arc<Service>>> {
        Ok(self.services.lock().unwrap().clone())
    }

    async fn token(&self, request: TokenFor<'_>) -> objects::Result<String> {
        Ok(format!("token-of-{}", request.account))
    }

    fn release(&self, _: &str) {}
}

/// Keeps events.
#[derive(Default)]
pub struct RecordedEvents(Mutex<Vec<Occurrence>>);

impl RecordedEvents {
    /// Reasons in order.
    pub fn reasons(&self) -> Vec<&'static str> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(|occurrence| occurrence.reason)
            .collect()
    }
}

impl Sink for RecordedEvents {
    fn record(&self, occurrence: Occurrence) {
        self.0.lock().unwrap().push(occurrence);
    }
}

/// Keeps the statuses that were written and the deletions that were confirmed.
#[derive(Default)]
pub struct FakePodApi {
    /// Statuses in the order in which they were written.
    pub statuses: Mutex<Vec<PodStatus>>,
    /// Names of pods whose deletion was confirmed.
    pub deleted: Mutex<Vec<String>>,
    /// Woken after every write.
    pub written: Notify,
}

#[async_trait]
impl PodApi for FakePodApi {
    async fn put_status(&self, _: &Pod, status: &PodStatus) -> Result<Presence, api::Error> {
        self.statuses.lock().unwrap().push(status.clone());
        self.written.notify_one();
        Ok(Presence::There)
    }

    async fn confirm_deletion(&self, pod: &Pod) -> Result<(), api::Error> {
        self.deleted
            .lock()
            .unwrap()
            .push(pod.metadata.name.clone().unwrap());
        self.written.notify_one();
        Ok(())
    }
}
