//! Connects the engine to an API server: watches in, bindings, events and conditions out.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod, Service},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher,
};
use sluice_client::{Change, Informer, Key, events, events::Recorder, is_conflict, pod as pods};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Decision, Engine},
    fit_error::FitError,
    node::NodeSpec,
    pod::PodInfo,
};

/// Bindings and status writes under way at once.
const CONCURRENT_WRITES: usize = 64;
/// Decisions taken before new events are looked at.
const BATCH: usize = 32;

/// How the scheduler runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pods with this `spec.schedulerName` are ours.
    pub scheduler_name: String,
    /// Decides between equally good nodes; `None` takes a random one.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".into(),
            seed: None,
        }
    }
}

enum Message {
    Pod(Option<Arc<Pod>>, Option<Arc<Pod>>),
    Node(String, Option<Arc<Node>>),
    Namespace(String, Option<Arc<Namespace>>),
    Service(Arc<Service>, bool),
    Bound(String, Result<(), kube::Error>),
}

/// Schedules until cancelled.
pub async fn run(client: Client, options: Options, stop: CancellationToken) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let synced = watch_all(&client, &sender, &stop);
    tokio::select! {
        () = stop.cancelled() => return,
        () = synced => {}
    }
    let seed = options.seed.unwrap_or_else(rand::random);
    let driver = Driver {
        recorder: Recorder::start(client.clone(), "default-scheduler", stop.clone()),
        engine: Engine::new(seed),
        writes: Arc::new(Semaphore::new(CONCURRENT_WRITES)),
        client,
        options,
        sender,
    };
    driver.run(receiver, stop).await;
}

/// Starts the watches; the future resolves when the first lists are in the channel.
fn watch_all(
    client: &Client,
    sender: &mpsc::UnboundedSender<Message>,
    stop: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let nodes = start(client, stop, sender, |change: &Change<'_, Node>| {
        Message::Node(Key::of(&**change.latest()).name, change.new.cloned())
    });
    let namespaces = start(client, stop, sender, |change: &Change<'_, Namespace>| {
        Message::Namespace(Key::of(&**change.latest()).name, change.new.cloned())
    });
    let services = start(client, stop, sender, |change: &Change<'_, Service>| {
        Message::Service(change.latest().clone(), change.new.is_some())
    });
    let pods = start(client, stop, sender, |change: &Change<'_, Pod>| {
        Message::Pod(change.old.cloned(), change.new.cloned())
    });
    async move {
        // All of it: a decision before the running pods are known would over-commit their nodes.
        futures::join!(
            nodes.synced(),
            namespaces.synced(),
            services.synced(),
            pods.synced()
        );
    }
}

fn start<K>(
    client: &Client,
    stop: &CancellationToken,
    sender: &mpsc::UnboundedSender<Message>,
    message: fn(&Change<'_, K>) -> Message,
) -> Arc<Informer<K>>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let informer = Arc::new(Informer::<K>::new());
    let sender = sender.clone();
    informer.on_change(move |change| {
        // The receiver is gone only at the end.
        let _ = sender.send(message(change));
    });
    let run = informer.clone().run(
        Api::all(client.clone()),
        watcher::Config::default(),
        stop.clone(),
    );
    tokio::spawn(run);
    informer
}

struct Driver {
    client: Client,
    options: Options,
    engine: Engine,
    recorder: Recorder,
    writes: Arc<Semaphore>,
    sender: mpsc::UnboundedSender<Message>,
}

impl Driver {
    async fn run(
        mut self,
        mut messages: mpsc::UnboundedReceiver<Message>,
        stop: CancellationToken,
    ) {
        loop {
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            let wake_at = self.decide();
            let wake = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                message = messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                () = wake => {}
            }
        }
    }

    /// Takes some decisions; returns when to go on without a message.
    fn decide(&mut self) -> Option<Instant> {
        for _ in 0..BATCH {
            match self.engine.step(Instant::now()) {
                Some(Decision::Bind { pod, node }) => self.bind(pod, node),
                Some(Decision::Unschedulable { pod, error }) => self.explain(&pod, &error),
                None => break,
            }
        }
        self.engine.wake_at(Instant::now())
    }

    fn take(&mut self, message: Message) {
        let now = Instant::now();
        match message {
            Message::Pod(old, new) => self.take_pod(old.as_deref(), new.as_deref(), now),
            Message::Node(name, None) => self.engine.node_gone(&name, now),
            Message::Node(name, Some(node)) => match NodeSpec::new(&node) {
                Ok(spec) => self.engine.node(&name, spec, now),
                Err(error) => {
                    tracing::warn!(node = %name, %error, "node ignored: allocatable can't be read");
                    self.engine.node_gone(&name, now);
                }
            },
            Message::Namespace(name, namespace) => {
                let labels = namespace.map(|n| n.metadata.labels.clone().unwrap_or_default());
                self.engine.set_namespace(&name, labels, now);
            }
            Message::Service(service, exists) => self.take_service(&service, exists),
            Message::Bound(uid, Ok(())) => self.engine.bind_done(&uid),
            Message::Bound(uid, Err(error)) => {
                tracing::info!(%uid, %error, "binding failed, the pod is tried again");
                self.engine.bind_failed(&uid, now);
            }
        }
    }

    fn take_pod(&mut self, old: Option<&Pod>, new: Option<&Pod>, now: Instant) {
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let Some(pod) = new.filter(|pod| !pods::is_terminal(pod)) else {
            if let Some(pod) = new.or(old) {
                self.engine.gone(&uid(pod), now);
            }
            return;
        };
        let info = match PodInfo::new(pod) {
            Ok(info) => Arc::new(info),
            Err(error) => {
                tracing::warn!(pod = %Key::of(pod), %error, "pod ignored: requests can't be read");
                return;
            }
        };
        match pods::node_name(pod) {
            Some(node) => self.engine.bound(info, node, now),
            None if self.is_ours(pod) => self.engine.pending(info, now),
            None => self.engine.gone(&info.uid, now),
        }
    }

    /// Ours to schedule now: our name, not being deleted, no gate closed (KEP-3521).
    fn is_ours(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let name = spec
            .scheduler_name
            .as_deref()
            .unwrap_or("default-scheduler");
        let gated = spec
            .scheduling_gates
            .as_ref()
            .is_some_and(|gates| !gates.is_empty());
        name == self.options.scheduler_name && !gated && pod.metadata.deletion_timestamp.is_none()
    }

    fn take_service(&mut self, service: &Service, exists: bool) {
        let key = Key::of(service);
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone());
        let selector = selector.filter(|selector| exists && !selector.is_empty());
        self.engine.set_service(&key.namespace, &key.name, selector);
    }

    fn bind(&self, pod: Arc<PodInfo>, node: String) {
        let (client, writes) = (self.client.clone(), self.writes.clone());
        let (sender, recorder) = (self.sender.clone(), self.recorder.clone());
        tokio::spawn(async move {
            let _permit = writes.acquire().await;
            let result = bind(&client, &pod, &node).await;
            if result.is_ok() {
                let message = format!("Successfully assigned {} to {node}", pod.key);
                recorder.record(reference(&pod), events::NORMAL, "Scheduled", message);
            }
            let _ = sender.send(Message::Bound(pod.uid.clone(), result));
        });
    }

    fn explain(&self, pod: &Arc<PodInfo>, error: &FitError) {
        let message = error.to_string();
        tracing::debug!(pod = %pod.key, %message, "unschedulable");
        self.recorder.record(
            reference(pod),
            events::WARNING,
            "FailedScheduling",
            message.clone(),
        );
        let (client, writes, pod) = (self.client.clone(), self.writes.clone(), pod.clone());
        tokio::spawn(async move {
            let _permit = writes.acquire().await;
            if let Err(error) = mark_unschedulable(&client, &pod, &message).await {
                tracing::debug!(pod = %pod.key, %error, "PodScheduled condition not written");
            }
        });
    }
}

fn reference(pod: &PodInfo) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.key.namespace.clone()),
        name: Some(pod.key.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}

/// Binds, and finds out what happened when the answer is lost: giving back the node's share of a
/// pod that is bound after all would over-commit the node.
async fn bind(client: &Client, pod: &PodInfo, node: &str) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.key.namespace);
    let mut delay = Duration::from_millis(100);
    loop {
        let error = match post_binding(&api, pod, node).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let definite =
            matches!(&error, kube::Error::Api(status) if (400..500).contains(&status.code));
        if definite && !is_conflict(&error) {
            return Err(error);
        }
        // A conflict may be our own earlier attempt whose answer was lost.
        match api.get_opt(&pod.key.name).await {
            Ok(Some(found)) if found.metadata.uid.as_deref() == Some(&pod.uid) => {
                match pods::node_name(&found) {
                    Some(bound) if bound == node => return Ok(()),
                    None if !definite => {}
                    _ => return Err(error),
                }
            }
            Ok(_) => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(Duration::from_secs(5));
    }
}

async fn post_binding(api: &Api<Pod>, pod: &PodInfo, node: &str) -> kube::Result<()> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.key.name.clone()),
            namespace: Some(pod.key.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let params = PostParams::default();
    let _: serde_json::Value = api
        .create_subresource("binding", &pod.key.name, &params, &binding)
        .await?;
    Ok(())
}

/// Sets PodScheduled=False with the reason, unless it says so already.
async fn mark_unschedulable(client: &Client, pod: &PodInfo, message: &str) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.key.namespace);
    let Some(current) = api.get_opt(&pod.key.name).await? else {
        return Ok(());
    };
    let condition = pods::condition(&current, "PodScheduled");
    let said =
        condition.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message));
    if said
        || pods::node_name(&current).is_some()
        || current.metadata.uid.as_deref() != Some(&pod.uid)
    {
        return Ok(());
    }
    let since = condition
        .filter(|c| c.status == "False")
        .and_then(|c| c.last_transition_time.clone())
        .unwrap_or_else(|| Time(Timestamp::now()));
    let patch = serde_json::json!({
        "metadata": {"uid": pod.uid},
        "status": {"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": since,
        }]},
    });
    let params = PatchParams::default();
    sluice_client::ignore_not_found(
        api.patch_status(&pod.key.name, &params, &Patch::Strategic(&patch))
            .await,
    )?;
    Ok(())
}
