//! Events for users: `kubectl describe` shows why a pod does not start. An event that repeats raises the count of
//! the first instead of making another. Recording never blocks, and drops what the API server can't take in time.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;

use crate::pods::spec::{self, Role};

/// Events that may wait for the API server.
const QUEUE: usize = 1000;
/// Series that are remembered.
const SERIES: usize = 4096;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    /// What it is about.
    pub object: ObjectReference,
    /// Whether it is a `Warning` or `Normal`.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// Takes events.
pub trait Sink: Send + Sync + 'static {
    /// Records an event; never blocks.
    fn record(&self, occurrence: Occurrence);
}

/// Records events of pods.
#[derive(Clone)]
pub struct Recorder {
    sink: Arc<dyn Sink>,
}

impl Recorder {
    /// A recorder that writes to `sink`.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink }
    }

    /// Records a `Normal` event of a pod, or of one of its containers.
    pub fn normal(
        &self,
        pod: &Pod,
        container: Option<&str>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(false, pod, container, reason, message.into());
    }

    /// Records a `Warning` event of a pod, or of one of its containers.
    pub fn warning(
        &self,
        pod: &Pod,
        container: Option<&str>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(true, pod, container, reason, message.into());
    }

    /// Records an event of any object.
    pub fn object(
        &self,
        object: ObjectReference,
        warning: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let message = message.into();
        self.sink.record(Occurrence {
            object,
            warning,
            reason,
            message,
            at: Timestamp::now(),
        });
    }

    fn record(
        &self,
        warning: bool,
        pod: &Pod,
        container: Option<&str>,
        reason: &'static str,
        message: String,
    ) {
        tracing::debug!(pod = spec::name(pod), container, reason, message, "event");
        self.object(reference(pod, container), warning, reason, message);
    }
}

fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let path = |name: &str| match spec::container(pod, name) {
        Some((_, Role::Main)) | None => format!("spec.containers{{{name}}}"),
        Some(_) => format!("spec.initContainers{{{name}}}"),
    };
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(spec::name(pod).into()),
        namespace: Some(spec::namespace(pod).into()),
        uid: Some(spec::uid(pod).into()),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: container.map(path),
    }
}

/// Writes events to the API server from a task of its own.
pub struct ApiSink {
    queue: mpsc::Sender<Occurrence>,
}

impl Sink for ApiSink {
    fn record(&self, occurrence: Occurrence) {
        if self.queue.try_send(occurrence).is_err() {
            tracing::debug!("an event was dropped: the API server does not keep up");
        }
    }
}

impl ApiSink {
    /// Starts the writing task; it ends when the sink is dropped.
    pub fn start(client: kube::Client, node: &str) -> Arc<Self> {
        let (queue, mut occurrences) = mpsc::channel(QUEUE);
        let mut writer = Writer {
            client,
            node: node.to_owned(),
            series: HashMap::new(),
        };
        tokio::spawn(async move {
            while let Some(occurrence) = occurrences.recv().await {
                if let Err(error) = writer.write(&occurrence).await {
                    tracing::debug!(reason = occurrence.reason, %error, "an event was not recorded");
                }
            }
        });
        Arc::new(Self { queue })
    }
}

#[derive(Clone)]
struct Series {
    name: String,
    count: i32,
}

struct Writer {
    client: kube::Client,
    node: String,
    series: HashMap<String, Series>,
}

impl Writer {
    async fn write(&mut self, occurrence: &Occurrence) -> Result<(), kube::Error> {
        let namespace = occurrence.object.namespace.as_deref().unwrap_or("default");
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let key = key(occurrence);
        if let Some(series) = self.series.get_mut(&key) {
            let count = series.count + 1;
            let again = serde_json::json!({ "count": count, "lastTimestamp": Time(occurrence.at), "message": occurrence.message });
            if events
                .patch(&series.name, &PatchParams::default(), &Patch::Merge(again))
                .await
                .is_ok()
            {
                series.count = count;
                return Ok(());
            }
        }
        let event = self.event(occurrence, namespace);
        let made = events.create(&PostParams::default(), &event).await?;
        if self.series.len() >= SERIES {
            self.series.clear();
        }
        self.series.insert(
            key,
            Series {
                name: made.metadata.name.unwrap_or_default(),
                count: 1,
            },
        );
        Ok(())
    }

    fn event(&self, occurrence: &Occurrence, namespace: &str) -> Event {
        let object = &occurrence.object;
        let name = format!(
            "{}.{:x}",
            object.name.as_deref().unwrap_or_default(),
            rand::random::<u64>()
        );
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.into()),
                ..Default::default()
            },
            involved_object: object.clone(),
            type_: Some(
                if occurrence.warning {
                    "Warning"
                } else {
                    "Normal"
                }
                .into(),
            ),
            reason: Some(occurrence.reason.into()),
            message: Some(occurrence.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(occurrence.at)),
            last_timestamp: Some(Time(occurrence.at)),
            source: Some(EventSource {
                component: Some("kubelet".into()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.node.clone()),
            ..Default::default()
        }
    }
}

/// Events with the same key are one series.
fn key(occurrence: &Occurrence) -> String {
    let object = &occurrence.object;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let identity = [
        text(&object.kind),
        text(&object.uid),
        text(&object.name),
        text(&object.field_path),
    ]
    .join("\0");
    format!("{identity}\0{}\0{}", occurrence.reason, occurrence.message)
}
