//! A server on loopback with a data directory of its own, and clients for it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use sluice_apiserver::{Config, Pki, Server};
use sluice_store::{Memory, Store};
use tokio::process::Command;

/// Long enough for a slow machine; nothing waits that long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub server: Server,
    pub client: kube::Client,
    pub directory: Arc<tempfile::TempDir>,
}

/// The configuration that tests share; a test changes what it is about.
pub fn config(directory: &Path) -> Config {
    Config {
        data_dir: directory.to_owned(),
        bind_address: Ipv4Addr::LOCALHOST.into(),
        secure_port: 0,
        advertise_address: Some("198.51.100.1".parse().unwrap()),
        ..Config::default()
    }
}

impl Cluster {
    /// A server over a store in memory.
    pub async fn start() -> Self {
        Self::start_with(|config| config.store = Some(Arc::new(Memory::default()))).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), change).await
    }

    pub async fn start_in(
        directory: Arc<tempfile::TempDir>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = config(directory.path());
        change(&mut config);
        let server = Server::start(config).await.unwrap();
        let client = client(directory.path(), &server.loopback().server, "admin").await;
        Self {
            server,
            client,
            directory,
        }
    }

    pub fn url(&self) -> String {
        self.server.loopback().server.clone()
    }

    /// A kubeconfig file for an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.directory.path().join("admin.kubeconfig");
        if !path.exists() {
            let pki = Pki::open_or_create(self.directory.path()).unwrap();
            let text = pki
                .kubeconfig("admin", &["system:masters"], &self.url())
                .unwrap();
            std::fs::write(&path, text).unwrap();
        }
        path
    }

    /// An unmodified kubectl, the one that `KUBECTL` names or the machine's own, with caches of its own.
    pub fn kubectl(&self) -> Command {
        let program = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        let mut command = Command::new(program);
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.directory.path())
            .env("KUBECACHEDIR", self.directory.path().join("cache"))
            .kill_on_drop(true);
        command
    }

    pub async fn run(&self, arguments: &str) -> Output {
        let words = arguments.split_whitespace();
        let output = self.kubectl().args(words).output();
        tokio::time::timeout(DEADLINE, output)
            .await
            .expect("kubectl ends")
            .expect("kubectl is on PATH")
    }

    /// Standard output of a kubectl command that succeeds.
    pub async fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        let (out, err) = texts(&output);
        assert!(output.status.success(), "kubectl {arguments}: {err}\n{out}");
        out
    }

    /// Standard error of a kubectl command that fails.
    pub async fn fails(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        let (out, err) = texts(&output);
        assert!(
            !output.status.success(),
            "kubectl {arguments} succeeded: {out}"
        );
        err
    }

    /// A file with a manifest.
    pub fn manifest(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// One request of any kind; the answer's code and JSON.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> (StatusCode, Value) {
        request(&self.client, method, path, headers, body.into()).await
    }

    pub async fn get(&self, path: &str) -> Value {
        let (code, value) = self.request(Method::GET, path, &[], "").await;
        assert_eq!(code, StatusCode::OK, "GET {path}: {value}");
        value
    }

    pub async fn post(&self, path: &str, object: Value) -> Value {
        let (code, value) = self.send(Method::POST, path, object).await;
        assert_eq!(code, StatusCode::CREATED, "POST {path}: {value}");
        value
    }

    pub async fn send(&self, method: Method, path: &str, object: Value) -> (StatusCode, Value) {
        self.request(
            method,
            path,
            &[("content-type", "application/json")],
            object.to_string(),
        )
        .await
    }

    pub async fn put(&self, path: &str, object: Value) -> Value {
        let (code, value) = self.send(Method::PUT, path, object).await;
        assert_eq!(code, StatusCode::OK, "PUT {path}: {value}");
        value
    }

    pub async fn delete(&self, path: &str, options: Value) -> Value {
        let (code, value) = self.send(Method::DELETE, path, options).await;
        assert_eq!(code, StatusCode::OK, "DELETE {path}: {value}");
        value
    }

    pub async fn is_gone(&self, path: &str) -> bool {
        self.request(Method::GET, path, &[], "").await.0 == StatusCode::NOT_FOUND
    }
}

/// One request by any client; the answer's code and JSON, or its text.
pub async fn request(
    client: &kube::Client,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (StatusCode, Value) {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = kube::client::Body::from(body);
    let answer = client.send(request.body(body).unwrap()).await.unwrap();
    let code = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let value =
        serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
    (code, value)
}

pub async fn client(directory: &Path, server: &str, user: &str) -> kube::Client {
    let pki = Pki::open_or_create(directory).unwrap();
    let text = pki.kubeconfig(user, &["system:masters"], server).unwrap();
    client_of(&text).await
}

pub async fn client_of(kubeconfig: &str) -> kube::Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    // Failures are what tests look at.
    config.default_retry = false;
    kube::Client::try_from(config).unwrap()
}

pub fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

pub fn memory() -> Arc<dyn Store> {
    Arc::new(Memory::default())
}

pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "sluice.local/echo:1"}]},
    })
}

pub fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const SERVICES: &str = "/api/v1/namespaces/default/services";
pub const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
