//! `serviceaccounts/NAME/token`: TokenRequest, authentication.k8s.io/v1.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_api::{ApiError, kinds};

use super::Call;
use super::registry::At;
use crate::authn::{Claims, ISSUER, Reference};
use crate::body;
use crate::object;
use crate::respond::{self, Answer};

const DEFAULT_SECONDS: i64 = 3600;
/// Upstream's shortest life of a token.
const SHORTEST: i64 = 600;

pub(super) async fn create(call: &Call, body: Bytes) -> Result<Answer, ApiError> {
    let at = call.at();
    let account = call.app.existing(at).await?;
    let request = match body.is_empty() {
        true => json!({}),
        false => body::parse(&body, call.content_type())?,
    };
    let spec = &request["spec"];
    let seconds = spec["expirationSeconds"]
        .as_i64()
        .unwrap_or(DEFAULT_SECONDS);
    if seconds < SHORTEST {
        return Err(ApiError::bad_request(format!(
            "spec.expirationSeconds: Invalid value: {seconds}: may not specify a duration less than 10 minutes"
        )));
    }
    let mut audiences = object::strings(&spec["audiences"]);
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let reference = Reference {
        name: at.name.to_owned(),
        uid: object::uid(&account.value).to_owned(),
    };
    let pod = bound_pod(call, &spec["boundObjectRef"]).await?;
    let claims = Claims::new(at.namespace, reference, pod, audiences.clone(), seconds);
    let token = call
        .app
        .authenticator
        .service_accounts
        .sign(&claims)
        .map_err(ApiError::internal)?;
    let expires = Timestamp::from_second(claims.exp).map_err(ApiError::internal)?;
    let answer = json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": at.name, "namespace": at.namespace, "creationTimestamp": object::now()},
        "spec": {
            "audiences": audiences,
            "expirationSeconds": seconds,
            "boundObjectRef": spec["boundObjectRef"],
        },
        "status": {"token": token, "expirationTimestamp": object::time_text(expires)},
    });
    Ok(respond::json_value(StatusCode::CREATED, &answer))
}

/// The pod that a token is to end with.
async fn bound_pod(call: &Call, reference: &Value) -> Result<Option<Reference>, ApiError> {
    if reference.is_null() {
        return Ok(None);
    }
    if reference["kind"] != "Pod" {
        return Err(ApiError::bad_request(format!(
            "spec.boundObjectRef.kind: Unsupported value: {}: supported values: \"Pod\"",
            reference["kind"]
        )));
    }
    let name = reference["name"].as_str().unwrap_or_default();
    let at = At {
        kind: &kinds::POD,
        namespace: &call.target.namespace,
        name,
    };
    let pod = call.app.existing(at).await?;
    let uid = object::uid(&pod.value);
    match reference["uid"].as_str() {
        Some(wanted) if !wanted.is_empty() && wanted != uid => Err(ApiError::conflict_because(
            at.kind,
            name,
            format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record ({uid})"
            ),
        )),
        _ => Ok(Some(Reference {
            name: name.to_owned(),
            uid: uid.to_owned(),
        })),
    }
}
