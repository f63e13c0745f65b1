//! Images: pull policies and credentials from pull secrets.

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use serde::Deserialize;

use crate::cri::{self, Runtime, v1};
use crate::objects::Objects;
use crate::pods::spec;

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Before every start.
    Always,
    /// When it is not on the node.
    IfNotPresent,
    /// Never.
    Never,
}

/// The container's pull policy: as set, else `Always` for the tag `latest` and `IfNotPresent` for others.
pub fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ if is_latest(container.image.as_deref().unwrap_or_default()) => PullPolicy::Always,
        _ => PullPolicy::IfNotPresent,
    }
}

fn is_latest(image: &str) -> bool {
    normalized(image).ends_with(":latest")
}

/// The image with the tag `latest` when it has neither tag nor digest.
pub fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// The registry of an image, as pull secrets name it.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// What is to be done about an image before its container is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Need {
    /// Use the one on the node.
    Present(Box<v1::Image>),
    /// Pull it.
    Pull,
    /// It may not be pulled and is not there.
    Absent,
}

/// Looks at the node and the policy.
///
/// # Errors
/// When the runtime can't be asked.
pub async fn need(runtime: &dyn Runtime, container: &Container) -> cri::Result<Need> {
    let image = normalized(container.image.as_deref().unwrap_or_default());
    let present = runtime.image_status(&image).await?;
    Ok(match (pull_policy(container), present) {
        (PullPolicy::Always, _) | (PullPolicy::IfNotPresent, None) => Need::Pull,
        (PullPolicy::Never, None) => Need::Absent,
        (_, Some(image)) => Need::Present(Box::new(image)),
    })
}

/// Pulls the container's image, trying the credentials of the pod's pull secrets and then none.
///
/// # Errors
/// The runtime's words for why the last try failed.
pub async fn pull(
    runtime: &dyn Runtime,
    objects: &dyn Objects,
    pod: &Pod,
    container: &Container,
) -> cri::Result<v1::Image> {
    let image = normalized(container.image.as_deref().unwrap_or_default());
    let mut result = Err(cri::Error::Failed(format!("image {image} was not pulled")));
    for auth in credentials(objects, pod, &image)
        .await
        .into_iter()
        .map(Some)
        .chain([None])
    {
        result = runtime.pull_image(&image, auth).await;
        if result.is_ok() {
            break;
        }
    }
    let reference = result?;
    let pulled = runtime.image_status(&image).await?;
    pulled.ok_or_else(|| {
        cri::Error::Failed(format!(
            "image {image} ({reference}) vanished after it was pulled"
        ))
    })
}

async fn credentials(objects: &dyn Objects, pod: &Pod, image: &str) -> Vec<v1::AuthConfig> {
    let mut found = Vec::new();
    for reference in spec::spec(pod).image_pull_secrets.iter().flatten() {
        match objects
            .secret(spec::uid(pod), spec::namespace(pod), &reference.name)
            .await
        {
            Ok(secret) => found.extend(auth_for(&secret, image)),
            Err(error) => {
                tracing::warn!(pod = spec::name(pod), %error, "pull secret is not available")
            }
        }
    }
    found
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

/// Credentials of a pull secret for the registry of `image`, the most specific first.
fn auth_for(secret: &Secret, image: &str) -> Vec<v1::AuthConfig> {
    let data = secret.data.as_ref();
    let config = data
        .and_then(|data| data.get(".dockerconfigjson"))
        .map(|bytes| bytes.0.clone());
    let legacy = data.and_then(|data| data.get(".dockercfg"));
    let wrapped = legacy.map(|bytes| [b"{\"auths\":".as_slice(), &bytes.0, b"}"].concat());
    let Some(config) = config
        .or(wrapped)
        .and_then(|text| serde_json::from_slice::<DockerConfig>(&text).ok())
    else {
        return Vec::new();
    };
    let mut fitting: Vec<_> = config
        .auths
        .iter()
        .filter(|(server, _)| serves(server, image))
        .collect();
    fitting.sort_by_key(|(server, _)| std::cmp::Reverse(server.len()));
    fitting
        .into_iter()
        .map(|(server, auth)| auth_config(server, auth))
        .collect()
}

/// Whether a `server` of a pull secret (a host, or a host and path) is the one of `image`.
fn serves(server: &str, image: &str) -> bool {
    let server = server
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let server = server
        .trim_end_matches('/')
        .trim_end_matches("/v1")
        .trim_end_matches("/v2");
    let registry = registry(image);
    if registry == "docker.io" {
        return matches!(
            server,
            "docker.io" | "index.docker.io" | "registry-1.docker.io"
        );
    }
    let rest = image.strip_prefix(server);
    server == registry || rest.is_some_and(|rest| rest.starts_with('/') || rest.starts_with(':'))
}

fn auth_config(server: &str, auth: &DockerAuth) -> v1::AuthConfig {
    v1::AuthConfig {
        username: auth.username.clone(),
        password: auth.password.clone(),
        auth: auth.auth.clone(),
        server_address: server.into(),
        identity_token: auth.identity_token.clone(),
        registry_token: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn policies_default_by_tag() {
        let of = |image: &str, policy: Option<&str>| {
            let image_pull_policy = policy.map(str::to_owned);
            pull_policy(&Container {
                image: Some(image.into()),
                image_pull_policy,
                ..Default::default()
            })
        };
        assert_eq!(of("a", None), PullPolicy::Always);
        assert_eq!(of("a:latest", None), PullPolicy::Always);
        assert_eq!(of("a:1", None), PullPolicy::IfNotPresent);
        assert_eq!(of("host:5000/a", None), PullPolicy::Always);
        assert_eq!(of("a@sha256:0", None), PullPolicy::IfNotPresent);
        assert_eq!(of("a", Some("Never")), PullPolicy::Never);
    }

    #[test]
    fn credentials_fit_their_registry_only() {
        let json = r#"{"auths":{"127.0.0.1:5000":{"username":"u","password":"p"},"https://index.docker.io/v1/":{"auth":"eA=="}}}"#;
        let data = [(
            ".dockerconfigjson".to_owned(),
            ByteString(json.as_bytes().to_vec()),
        )]
        .into();
        let secret = Secret {
            data: Some(data),
            ..Default::default()
        };
        assert_eq!(auth_for(&secret, "127.0.0.1:5000/a:1")[0].username, "u");
        assert_eq!(auth_for(&secret, "busybox:1")[0].auth, "eA==");
        assert!(auth_for(&secret, "example.org/a:1").is_empty());
        let garbage = [(".dockerconfigjson".to_owned(), ByteString(b"{".to_vec()))].into();
        assert!(
            auth_for(
                &Secret {
                    data: Some(garbage),
                    ..Default::default()
                },
                "a:1"
            )
            .is_empty()
        );
    }
}
