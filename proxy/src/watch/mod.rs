//! What the agent sees of the cluster: Services, EndpointSlices and Nodes, and nothing else. Of the
//! Nodes it sees its own, and where it masquerades the others too: they are no outsiders.
//!
//! Each kind has a task that follows one watch and sends [`Event`]s; [`Feed`] hands them to the
//! planner. Objects are read into the planner's compact form as they arrive and dropped; lists come
//! in pages, so that even the first sync needs little memory. After an outage the watch goes on from
//! the last version seen, or lists once anew where the server has forgotten it; the planner notices
//! what is the same, so only differences are written.

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::planner::{
    EndpointSlice, Fault, HEADLESS_LABEL, Node, ObjectName, PROXY_NAME_LABEL, Problem, Service,
};

mod feed;
mod guarded;
mod reconnect;

pub use feed::Feed;
pub use guarded::Guarded;

use reconnect::Reconnect;

/// Objects per page of a list: some megabytes while they are read.
const PAGE_SIZE: u32 = 200;

/// How long one watch request lasts, in seconds. Also how soon a connection that died without a word
/// (a cut cable) is noticed; the next request goes on where the last one ended and lists nothing.
const WATCH_SECONDS: u32 = 60;

/// Something seen.
#[derive(Debug)]
pub enum Event {
    /// About a Service.
    Service(Step<Service>),
    /// About an EndpointSlice.
    Slice(Step<EndpointSlice>),
    /// About a Node.
    Node(Step<Node>),
}

/// A step of a watch.
#[derive(Debug)]
pub enum Step<T> {
    /// A list begins: what it does not name is gone.
    Restarted,
    /// An object as it is now; `None` when it is none of a proxy's business or cannot be used.
    Seen(ObjectName, Option<T>, Vec<Problem>),
    /// An object was deleted.
    Deleted(ObjectName),
    /// The list is complete.
    Listed,
}

/// Which Nodes are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// The own one.
    Own,
    /// Every one.
    All,
}

/// Follows all three kinds until the receiver is gone. Each call opens watches of its own.
pub fn start(client: &Client, node: &str, follow: Nodes) -> mpsc::Receiver<Event> {
    let (events, receiver) = mpsc::channel(4096);
    let unlabelled = format!("!{PROXY_NAME_LABEL},!{HEADLESS_LABEL}");
    let config = watcher::Config::default()
        .page_size(PAGE_SIZE)
        .timeout(WATCH_SECONDS);

    let services = namespaced::<core::Service>(client, config.clone().labels(&unlabelled));
    let services = services.map(|step| Event::Service(read(step, Service::from_api)));
    tokio::spawn(forward(services, events.clone()));

    let owner: Arc<str> = node.into();
    let slices = namespaced::<discovery::EndpointSlice>(client, config.clone().labels(&unlabelled));
    let slices = slices.map(move |step| {
        Event::Slice(read(step, |name, slice| {
            EndpointSlice::from_api(name, slice, &owner)
        }))
    });
    tokio::spawn(forward(slices, events.clone()));

    let api = Api::<Guarded<core::Node>>::all(client.clone());
    let config = match follow {
        Nodes::Own => config.fields(&format!("metadata.name={node}")),
        Nodes::All => config,
    };
    let nodes = steps(api, config);
    let nodes = nodes.map(|step| {
        Event::Node(read(step, |_, node| {
            (Some(Node::from_api(node)), Vec::new())
        }))
    });
    tokio::spawn(forward(nodes, events));
    receiver
}

async fn forward(events: impl Stream<Item = Event>, to: mpsc::Sender<Event>) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        if to.send(event).await.is_err() {
            return;
        }
    }
}

fn namespaced<K>(
    client: &Client,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Event<Guarded<K>>> + use<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    steps(Api::<Guarded<K>>::all(client.clone()), config)
}

/// The watch's events; failures are logged and it goes on.
fn steps<K>(
    api: Api<Guarded<K>>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Event<Guarded<K>>> + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut failing = false;
    watcher(api, config)
        .backoff(Reconnect::default())
        .filter_map(move |result| {
            let event = match result {
                Ok(event) => {
                    failing = false;
                    Some(event)
                }
                Err(error) => {
                    log_failure(&K::kind(&()), &error, std::mem::replace(&mut failing, true));
                    None
                }
            };
            std::future::ready(event)
        })
}

/// The first failure in a row matters; the rest of an outage is noise.
fn log_failure(kind: &str, error: &watcher::Error, again: bool) {
    let error = crate::chain(error);
    if again {
        debug!(kind, error, "still cannot watch");
    } else {
        warn!(
            kind,
            error, "cannot watch; traffic goes on as it is and the watch is tried again"
        );
    }
}

fn read<K, T>(
    event: watcher::Event<Guarded<K>>,
    from_api: impl Fn(&ObjectName, &K) -> (Option<T>, Vec<Problem>),
) -> Step<T>
where
    K: Resource<DynamicType = ()>,
{
    match event {
        watcher::Event::Init => Step::Restarted,
        watcher::Event::InitDone => Step::Listed,
        watcher::Event::Delete(object) => Step::Deleted(object.name()),
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            let name = object.name();
            let (value, problems) = match object.object() {
                Ok(object) => from_api(&name, object),
                Err(error) => (None, vec![unreadable::<K>(&name, error)]),
            };
            Step::Seen(name, value, problems)
        }
    }
}

fn unreadable<K: Resource<DynamicType = ()>>(name: &ObjectName, error: &str) -> Problem {
    let kind = if K::kind(&()) == "Service" {
        "Service"
    } else {
        "EndpointSlice"
    };
    Problem {
        kind,
        object: name.clone(),
        field: String::new(),
        fault: Fault::Unreadable(error.to_owned()),
    }
}
