//! Who may call the authenticated server: the API server by its client certificate, others when the API server says
//! so (TokenReview for bearer tokens, SubjectAccessReview for what they may do), as upstream's webhook mode.

use axum::http::{Method, StatusCode, header, request::Parts};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Refusal;

/// Users that an API server calls kubelets as.
const API_SERVERS: [&str; 2] = ["kube-apiserver-kubelet-client", "kube-apiserver"];
/// Members of this group may do everything, everywhere.
const MASTERS: &str = "system:masters";

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
}

/// The identity in a verified client certificate: common name and organisations.
pub fn identity(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|name| name.as_str().ok())
        .map(str::to_owned)
        .collect();
    Some(Identity { user, groups })
}

/// Decides about callers.
pub struct Authorizer {
    client: kube::Client,
    node: String,
}

impl Authorizer {
    /// Asks the API server behind `client` about callers of the kubelet of `node`.
    pub fn new(client: kube::Client, node: &str) -> Self {
        Self {
            client,
            node: node.to_owned(),
        }
    }

    /// Lets a request in, or says why not (401: unknown, 403: known and not allowed).
    ///
    /// # Errors
    /// The refusal.
    pub async fn check(
        &self,
        certificate: Option<&Identity>,
        request: &Parts,
    ) -> Result<(), Refusal> {
        let caller = match certificate {
            Some(identity) => identity.clone(),
            None => self.review_token(request).await?,
        };
        if is_trusted(&caller) || self.review_access(&caller, request).await? {
            return Ok(());
        }
        let (user, method, path) = (&caller.user, &request.method, request.uri.path());
        Err(Refusal(
            StatusCode::FORBIDDEN,
            format!("Forbidden (user={user}, verb={method}, path={path})"),
        ))
    }

    async fn review_token(&self, request: &Parts) -> Result<Identity, Refusal> {
        let unauthorized = || Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".into());
        let value = request
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = value
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(unauthorized)?;
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let spec = TokenReviewSpec {
            token: token.trim().into(),
            audiences: None,
        };
        let review = TokenReview {
            spec,
            ..Default::default()
        };
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(Refusal::internal)?;
        let status = answer.status.unwrap_or_default();
        let user = status
            .user
            .filter(|_| status.authenticated == Some(true))
            .ok_or_else(unauthorized)?;
        Ok(Identity {
            user: user.username.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
        })
    }

    async fn review_access(&self, caller: &Identity, request: &Parts) -> Result<bool, Refusal> {
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let attributes = ResourceAttributes {
            verb: Some(verb(&request.method).into()),
            version: Some("v1".into()),
            resource: Some("nodes".into()),
            subresource: Some(subresource(request.uri.path()).into()),
            name: Some(self.node.clone()),
            ..Default::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(caller.user.clone()),
            groups: Some(caller.groups.clone()),
            resource_attributes: Some(attributes),
            ..Default::default()
        };
        let review = SubjectAccessReview {
            spec,
            ..Default::default()
        };
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(Refusal::internal)?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

fn is_trusted(caller: &Identity) -> bool {
    caller.groups.iter().any(|group| group == MASTERS)
        || API_SERVERS.contains(&caller.user.as_str())
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// Upstream's mapping of paths to subresources of nodes.
fn subresource(path: &str) -> &'static str {
    match path.split('/').nth(1) {
        Some("stats") => "stats",
        Some("metrics") => "metrics",
        Some("pods") => "pods",
        _ => "proxy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(user: &str, group: &str) -> Identity {
        Identity {
            user: user.into(),
            groups: vec![group.into()],
        }
    }

    #[test]
    fn only_masters_and_api_servers_are_trusted_unasked() {
        assert!(is_trusted(&caller("x", "system:masters")));
        assert!(is_trusted(&caller("kube-apiserver-kubelet-client", "")));
        assert!(!is_trusted(&caller("system:node:node2", "system:nodes")));
    }

    #[test]
    fn identities_come_from_the_subject() {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "alice");
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "devs");
        let certificate = params
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap();
        assert_eq!(identity(certificate.der()), Some(caller("alice", "devs")));
        assert_eq!(identity(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn paths_are_subresources() {
        assert_eq!(subresource("/stats/summary"), "stats");
        assert_eq!(subresource("/exec/a/b/c"), "proxy");
        assert_eq!(verb(&Method::POST), "create");
    }

    /// An API server that knows one token and lets one user read metrics.
    fn reviewer() -> Authorizer {
        let service = tower::service_fn(|request: axum::http::Request<kube::client::Body>| async {
            use http_body_util::BodyExt;
            let reviews_token = request.uri().path().ends_with("tokenreviews");
            let body = request.into_body().collect().await?.to_bytes();
            let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let mut answer = asked.clone();
            answer["status"] = if reviews_token {
                let user =
                    serde_json::json!({ "username": "prometheus", "groups": ["monitoring"] });
                serde_json::json!({ "authenticated": asked["spec"]["token"] == "good", "user": user })
            } else {
                let attributes = &asked["spec"]["resourceAttributes"];
                let metrics =
                    attributes["subresource"] == "metrics" && attributes["name"] == "node1";
                serde_json::json!({ "allowed": metrics && asked["spec"]["user"] == "prometheus" })
            };
            let body = kube::client::Body::from(answer.to_string().into_bytes());
            Ok::<_, tower::BoxError>(axum::http::Response::new(body))
        });
        Authorizer::new(kube::Client::new(service, "default"), "node1")
    }

    async fn decided(caller: Option<Identity>, token: Option<&str>, path: &str) -> u16 {
        let mut request = axum::http::Request::get(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let result = reviewer().check(caller.as_ref(), &parts).await;
        result.err().map_or(200, |refusal| refusal.0.as_u16())
    }

    #[tokio::test]
    async fn others_are_reviewed_by_the_api_server() {
        assert_eq!(
            decided(Some(caller("x", "system:masters")), None, "/exec/a/b/c").await,
            200
        );
        assert_eq!(decided(None, None, "/pods").await, 401);
        assert_eq!(decided(None, Some("bad"), "/metrics").await, 401);
        assert_eq!(decided(None, Some("good"), "/metrics").await, 200);
        assert_eq!(decided(None, Some("good"), "/exec/a/b/c").await, 403);
        assert_eq!(
            decided(
                Some(caller("system:node:node2", "system:nodes")),
                None,
                "/pods"
            )
            .await,
            403
        );
    }
}
