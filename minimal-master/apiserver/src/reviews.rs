//! Questions about users: may they, and who are they. Never stored.
//!
//! Everybody who is authenticated may do everything; these answers say just that, so that `kubectl auth can-i` and
//! kubelets that ask are told the truth.

use std::sync::Arc;

use ::http::header::AUTHORIZATION;
use ::http::{HeaderMap, StatusCode};
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, http};
use serde_json::{Value, json};
use sluice_api::{ApiError, kinds};

use crate::app::App;
use crate::authn::{Identity, User};
use crate::body;
use crate::front::{Failure, Param};
use crate::object;
use crate::respond;
use crate::rest::At;

const WHY: &str = "every authenticated user is allowed everything";

/// The user, unless the account or the pod that a token is bound to is gone.
pub(crate) async fn still_valid(app: &App, identity: Identity) -> Option<User> {
    let Some(claims) = &identity.service_account else {
        return Some(identity.user);
    };
    let bound = &claims.kubernetes;
    let account = (&kinds::SERVICE_ACCOUNT, Some(&bound.serviceaccount));
    for (kind, reference) in [account, (&kinds::POD, bound.pod.as_ref())] {
        let Some(reference) = reference else { continue };
        let at = At {
            kind,
            namespace: &bound.namespace,
            name: &reference.name,
        };
        let stored = app.stored(at).await.ok().flatten()?;
        if object::uid(&stored.value) != reference.uid {
            return None;
        }
    }
    Some(identity.user)
}

pub(crate) async fn authorization(
    review: Param,
    Extension(user): Extension<User>,
    headers: HeaderMap,
    text: Bytes,
) -> Result<Response, Failure> {
    let mut review = read(
        &review.0,
        "authorization.k8s.io/v1",
        &AUTHORIZATION_KINDS,
        &headers,
        &text,
    )?;
    let authenticated = |groups: &Value| {
        object::strings(groups)
            .iter()
            .any(|group| group == "system:authenticated")
    };
    review["status"] = match review["kind"].as_str() {
        Some("SelfSubjectRulesReview") => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        Some("SubjectAccessReview" | "LocalSubjectAccessReview") => {
            let spec = &review["spec"];
            let known = spec["user"]
                .as_str()
                .is_some_and(|name| !name.is_empty() && name != "system:anonymous")
                || authenticated(&spec["groups"]);
            allowed(known)
        }
        _ => allowed(!user.name.is_empty()),
    };
    Ok(respond::json_value(StatusCode::CREATED, &review))
}

fn allowed(allowed: bool) -> Value {
    match allowed {
        true => json!({"allowed": true, "reason": WHY}),
        false => json!({"allowed": false}),
    }
}

pub(crate) async fn authentication(
    State(app): State<Arc<App>>,
    review: Param,
    Extension(user): Extension<User>,
    headers: HeaderMap,
    text: Bytes,
) -> Result<Response, Failure> {
    let mut review = read(
        &review.0,
        "authentication.k8s.io/v1",
        &AUTHENTICATION_KINDS,
        &headers,
        &text,
    )?;
    review["status"] = match review["kind"].as_str() {
        Some("TokenReview") => {
            let token = review["spec"]["token"].as_str().unwrap_or_default();
            match token_user(&app, token).await {
                Some(user) => json!({"authenticated": true, "user": info(&user)}),
                None => json!({"authenticated": false, "error": "invalid bearer token"}),
            }
        }
        _ => json!({"userInfo": info(&user)}),
    };
    Ok(respond::json_value(StatusCode::CREATED, &review))
}

async fn token_user(app: &App, token: &str) -> Option<User> {
    let mut headers = HeaderMap::new();
    headers.insert(
        AUTHORIZATION,
        http::HeaderValue::from_str(&format!("Bearer {token}")).ok()?,
    );
    still_valid(app, app.authenticator.authenticate(&headers, None)?).await
}

fn info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    info
}

const AUTHORIZATION_KINDS: [(&str, &str); 3] = [
    ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    ("subjectaccessreviews", "SubjectAccessReview"),
];
const AUTHENTICATION_KINDS: [(&str, &str); 2] = [
    ("selfsubjectreviews", "SelfSubjectReview"),
    ("tokenreviews", "TokenReview"),
];

fn read(
    plural: &str,
    api_version: &str,
    kinds: &[(&str, &str)],
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Value, ApiError> {
    let (_, kind) = kinds
        .iter()
        .find(|(name, _)| *name == plural)
        .ok_or_else(ApiError::no_such_path)?;
    let content_type = headers
        .get(::http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let mut review = body::parse(body, content_type)?;
    if !review.is_object() {
        return Err(ApiError::bad_request(format!("the body is not a {kind}")));
    }
    review["kind"] = json!(kind);
    review["apiVersion"] = json!(api_version);
    Ok(review)
}
