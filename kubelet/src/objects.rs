//! ConfigMaps, Secrets and Services as pods need them. Single objects are watched while some pod of this node
//! refers to them (and no others: a node may read only those), so that starting a pod costs one list per object and
//! a change reaches volumes at once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, PostParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// How long the first answer of the API server may take.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Why an object could not be had. Retryable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server says that there is no such object.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// Kind in lower case.
        kind: &'static str,
        /// Name of the object.
        name: String,
    },
    /// The API server can't be asked.
    #[error("cannot get {kind} \"{name}\": {message}")]
    Unavailable {
        /// Kind in lower case.
        kind: &'static str,
        /// Name of the object.
        name: String,
        /// What went wrong.
        message: String,
    },
}

/// What `?` returns in this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A service account token that is in use.
struct Token {
    token: String,
    renew_at: Timestamp,
}

#[derive(PartialEq, Eq, Hash)]
struct TokenKey {
    uid: String,
    account: String,
    audience: Option<String>,
    seconds: i64,
}

impl TokenKey {
    fn of(request: TokenFor<'_>) -> Self {
        Self {
            uid: request.pod.1.into(),
            account: request.account.into(),
            audience: request.audience.map(str::to_owned),
            seconds: request.seconds,
        }
    }
}

/// Where pods' references are looked up.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// A ConfigMap that the pod `uid` refers to.
    async fn config_map(&self, uid: &str, namespace: &str, name: &str) -> Result<Arc<ConfigMap>>;
    /// A Secret that the pod `uid` refers to.
    async fn secret(&self, uid: &str, namespace: &str, name: &str) -> Result<Arc<Secret>>;
    /// All Services of `namespace`, and `kubernetes` of `default`.
    async fn services(&self, namespace: &str) -> Result<Vec<Arc<Service>>>;
    /// A token for a service account, bound to a pod.
    async fn token(&self, request: TokenFor<'_>) -> Result<String>;
    /// The pod `uid` is gone: its references are no longer watched.
    fn release(&self, uid: &str);
}

/// What a service account token is for.
#[derive(Clone, Copy, Debug)]
pub struct TokenFor<'a> {
    /// Namespace of account and pod.
    pub namespace: &'a str,
    /// The service account.
    pub account: &'a str,
    /// The pod's name and uid.
    pub pod: (&'a str, &'a str),
    /// Audience; the API server's own when `None`.
    pub audience: Option<&'a str>,
    /// Seconds that it should be valid.
    pub seconds: i64,
}

/// Called with the uids of the pods that refer to an object that changed.
pub type OnChange = Arc<dyn Fn(&HashSet<String>) + Send + Sync>;

type State<K> = Option<Result<Option<Arc<K>>, String>>;

struct Watched<K> {
    state: watch::Receiver<State<K>>,
    users: HashSet<String>,
    task: AbortHandle,
}

/// Watches of single objects of one kind, with the pods that use them.
struct Registry<K> {
    kind: &'static str,
    entries: Mutex<HashMap<(String, String), Watched<K>>>,
}

impl<K> Registry<K>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    fn new(kind: &'static str) -> Arc<Self> {
        Arc::new(Self {
            kind,
            entries: Mutex::default(),
        })
    }

    async fn get(
        self: &Arc<Self>,
        api: &KubeObjects,
        uid: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<K>> {
        let mut state = self.subscribe(api, uid, namespace, name);
        let known = tokio::time::timeout(FIRST_ANSWER, state.wait_for(Option::is_some)).await;
        let unavailable = |message: &str| self.unavailable(name, message);
        let known = known.map_err(|_| unavailable("the API server does not answer"))?;
        let known = known.map_err(|_| unavailable("its watch has ended"))?;
        match &*known {
            Some(Ok(Some(object))) => Ok(Arc::clone(object)),
            Some(Ok(None)) | None => Err(Error::NotFound {
                kind: self.kind,
                name: name.into(),
            }),
            Some(Err(message)) => Err(unavailable(message)),
        }
    }

    fn unavailable(&self, name: &str, message: &str) -> Error {
        Error::Unavailable {
            kind: self.kind,
            name: name.into(),
            message: message.into(),
        }
    }

    fn subscribe(
        self: &Arc<Self>,
        api: &KubeObjects,
        uid: &str,
        namespace: &str,
        name: &str,
    ) -> watch::Receiver<State<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries
            .entry(key.clone())
            .or_insert_with(|| self.watch(api, key));
        entry.users.insert(uid.to_owned());
        entry.state.clone()
    }

    fn watch(self: &Arc<Self>, api: &KubeObjects, key: (String, String)) -> Watched<K> {
        let (sender, state) = watch::channel(None);
        let registry = Arc::clone(self);
        let objects: Api<K> = Api::namespaced(api.client.clone(), &key.0);
        let on_change = Arc::clone(&api.on_change);
        let task = tokio::spawn(async move {
            let stream = watcher::watch_object(objects, &key.1).default_backoff();
            let mut stream = std::pin::pin!(stream);
            while let Some(item) = stream.next().await {
                if accept(&sender, item) {
                    on_change(&registry.users(&key));
                }
            }
        });
        Watched {
            state,
            users: HashSet::new(),
            task: task.abort_handle(),
        }
    }

    fn users(&self, key: &(String, String)) -> HashSet<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .get(key)
            .map(|entry| entry.users.clone())
            .unwrap_or_default()
    }

    fn release(&self, uid: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| {
            entry.users.remove(uid);
            let used = !entry.users.is_empty();
            if !used {
                entry.task.abort();
            }
            used
        });
    }
}

/// Takes an item of a watch; true when it is a change. An error does not replace what is known.
fn accept<K>(sender: &watch::Sender<State<K>>, item: Result<Option<K>, watcher::Error>) -> bool {
    match item {
        Ok(object) => sender
            .send_replace(Some(Ok(object.map(Arc::new))))
            .is_some(),
        Err(error) => {
            sender.send_if_modified(|state| {
                let unknown = !matches!(state, Some(Ok(_)));
                if unknown {
                    *state = Some(Err(error.to_string()));
                }
                unknown
            });
            false
        }
    }
}

/// [`Objects`] at an API server.
pub struct KubeObjects {
    client: kube::Client,
    config_maps: Arc<Registry<ConfigMap>>,
    secrets: Arc<Registry<Secret>>,
    services: Store<Service>,
    tokens: Mutex<HashMap<TokenKey, Token>>,
    on_change: OnChange,
}

impl KubeObjects {
    /// Starts watching Services until `stop`; single objects are watched when they are asked for.
    pub fn start(client: kube::Client, on_change: OnChange, stop: CancellationToken) -> Arc<Self> {
        let (services, writer) = reflector::store();
        let stream = watcher(
            Api::<Service>::all(client.clone()),
            watcher::Config::default(),
        );
        let stream = reflector::reflector(writer, stream.default_backoff());
        tokio::spawn(async move {
            let drain = stream.for_each(|_| std::future::ready(()));
            stop.run_until_cancelled(drain).await;
        });
        let (config_maps, secrets) = (Registry::new("configmap"), Registry::new("secret"));
        Arc::new(Self {
            client,
            config_maps,
            secrets,
            services,
            tokens: Mutex::default(),
            on_change,
        })
    }
}

#[async_trait]
impl Objects for KubeObjects {
    async fn config_map(&self, uid: &str, namespace: &str, name: &str) -> Result<Arc<ConfigMap>> {
        self.config_maps.get(self, uid, namespace, name).await
    }

    async fn secret(&self, uid: &str, namespace: &str, name: &str) -> Result<Arc<Secret>> {
        self.secrets.get(self, uid, namespace, name).await
    }

    async fn services(&self, namespace: &str) -> Result<Vec<Arc<Service>>> {
        let ready = tokio::time::timeout(FIRST_ANSWER, self.services.wait_until_ready()).await;
        if !matches!(ready, Ok(Ok(()))) {
            let message =
                "services have not been listed yet, so service variables are not known".into();
            return Err(Error::Unavailable {
                kind: "services of namespace",
                name: namespace.into(),
                message,
            });
        }
        Ok(self
            .services
            .state()
            .into_iter()
            .filter(|service| visible(service, namespace))
            .collect())
    }

    async fn token(&self, request: TokenFor<'_>) -> Result<String> {
        let key = TokenKey::of(request);
        if let Some(token) = self
            .tokens()
            .get(&key)
            .filter(|token| Timestamp::now() < token.renew_at)
        {
            return Ok(token.token.clone());
        }
        let token = self
            .request_token(request)
            .await
            .map_err(|message| Error::Unavailable {
                kind: "token for serviceaccount",
                name: request.account.into(),
                message,
            })?;
        let text = token.token.clone();
        self.tokens().insert(key, token);
        Ok(text)
    }

    fn release(&self, uid: &str) {
        self.config_maps.release(uid);
        self.secrets.release(uid);
        self.tokens().retain(|key, _| key.uid != uid);
    }
}

impl KubeObjects {
    fn tokens(&self) -> MutexGuard<'_, HashMap<TokenKey, Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request_token(&self, request: TokenFor<'_>) -> Result<Token, String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), request.namespace);
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(request.pod.0.into()),
            uid: Some(request.pod.1.into()),
        };
        let spec = TokenRequestSpec {
            audiences: Some(request.audience.map(str::to_owned).into_iter().collect()),
            expiration_seconds: Some(request.seconds),
            bound_object_ref: Some(bound),
        };
        let body = TokenRequest {
            spec: Some(spec),
            ..Default::default()
        };
        let answer = accounts
            .create_token_request(request.account, &PostParams::default(), &body)
            .await;
        let status = answer
            .map_err(|error| error.to_string())?
            .status
            .unwrap_or_default();
        let token = status.token.ok_or("the answer holds no token")?;
        Ok(Token {
            token,
            renew_at: renewal(status.expiration_timestamp.map(|time| time.0)),
        })
    }
}

/// A token is replaced after four fifths of its life, as upstream.
fn renewal(expires: Option<Timestamp>) -> Timestamp {
    let now = Timestamp::now();
    let left = expires.map_or(0, |expires| expires.duration_since(now).as_secs().max(0));
    now.checked_add(SignedDuration::from_secs(left * 4 / 5))
        .unwrap_or(now)
}

fn visible(service: &Service, namespace: &str) -> bool {
    let own = service.metadata.namespace.as_deref();
    own == Some(namespace)
        || (own == Some("default") && service.metadata.name.as_deref() == Some("kubernetes"))
}
