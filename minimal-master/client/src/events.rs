//! Events (core/v1) about objects, written in the background.
//!
//! Recording never blocks or fails its caller: events explain, they don't decide. A repetition of
//! the same event on the same object raises the count of the one that is stored, as upstream's
//! correlator does, so that a pod that can't be scheduled doesn't fill the store.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be written; beyond that they are dropped and logged.
const BACKLOG: usize = 4096;
/// How many different events are remembered for counting.
const REMEMBERED: usize = 4096;

/// Something went as it should.
pub const NORMAL: &str = "Normal";
/// Something needs attention.
pub const WARNING: &str = "Warning";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Note {
    uid: String,
    type_: &'static str,
    reason: String,
    message: String,
}

struct Entry {
    about: ObjectReference,
    note: Note,
}

struct Stored {
    name: String,
    count: i32,
}

/// Hands events to the background writer; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Entry>,
}

impl Recorder {
    /// Starts the writer, which ends when `stop` is cancelled. `component` is shown as the event's source.
    pub fn start(client: Client, component: &'static str, stop: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let writer = Writer {
            client,
            component,
            stored: HashMap::new(),
        };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = writer.run(receiver) => {}
            }
        });
        Self { sender }
    }

    /// Records an event about an object.
    pub fn record(
        &self,
        about: ObjectReference,
        type_: &'static str,
        reason: &str,
        message: String,
    ) {
        let uid = about.uid.clone().unwrap_or_default();
        let note = Note {
            uid,
            type_,
            reason: reason.into(),
            message,
        };
        if let Err(error) = self.sender.try_send(Entry { about, note }) {
            tracing::warn!(%error, "event dropped");
        }
    }
}

/// A reference to an object, for [`Recorder::record`].
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

struct Writer {
    client: Client,
    component: &'static str,
    stored: HashMap<Note, Stored>,
}

impl Writer {
    async fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        while let Some(entry) = entries.recv().await {
            let reason = entry.note.reason.clone();
            if let Err(error) = self.write(entry).await {
                tracing::debug!(%reason, %error, "event not written");
            }
        }
    }

    async fn write(&mut self, entry: Entry) -> kube::Result<()> {
        // Events about cluster-scoped objects are kept in `default`, where kubectl looks for them.
        let namespace = entry
            .about
            .namespace
            .clone()
            .unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Some(stored) = self.stored.get_mut(&entry.note) {
            let patch = serde_json::json!({
                "count": stored.count + 1,
                "lastTimestamp": Time(Timestamp::now()),
            });
            let patched = api
                .patch(&stored.name, &PatchParams::default(), &Patch::Merge(&patch))
                .await;
            if crate::ignore_not_found(patched)?.is_some() {
                stored.count += 1;
                return Ok(());
            }
        }
        let event = self.event(&namespace, &entry);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        if self.stored.len() >= REMEMBERED {
            self.stored.clear();
        }
        self.stored.insert(entry.note, Stored { name, count: 1 });
        Ok(())
    }

    fn event(&self, namespace: &str, entry: &Entry) -> Event {
        let now = Timestamp::now();
        let about = entry.about.name.as_deref().unwrap_or("unknown");
        Event {
            metadata: ObjectMeta {
                // Upstream's naming: the object and the time in hexadecimal nanoseconds.
                name: Some(format!("{about}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace.into()),
                ..ObjectMeta::default()
            },
            involved_object: entry.about.clone(),
            type_: Some(entry.note.type_.into()),
            reason: Some(entry.note.reason.clone()),
            message: Some(entry.note.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource {
                component: Some(self.component.into()),
                host: None,
            }),
            reporting_component: Some(self.component.into()),
            ..Event::default()
        }
    }
}
