//! Errors in upstream's words: kubectl prints them, and clients act on their codes and reasons.

use serde_json::json;
use sluice_api::{ApiError, kinds, status};

#[test]
fn messages_and_codes() {
    let pods = &kinds::POD;
    let apps = &kinds::DEPLOYMENT;
    for (error, code, reason, message) in [
        (
            ApiError::not_found(apps, "web"),
            404,
            "NotFound",
            "deployments.apps \"web\" not found",
        ),
        (
            ApiError::already_exists(pods, "web"),
            409,
            "AlreadyExists",
            "pods \"web\" already exists",
        ),
        (
            ApiError::conflict(pods, "web"),
            409,
            "Conflict",
            "Operation cannot be fulfilled on pods \"web\": the object has been modified; please apply your changes to the latest version and try again",
        ),
        (
            ApiError::forbidden(pods, "web", "no"),
            403,
            "Forbidden",
            "pods \"web\" is forbidden: no",
        ),
        (
            ApiError::forbidden(pods, "", "no"),
            403,
            "Forbidden",
            "pods is forbidden: no",
        ),
        (
            ApiError::unauthorized(),
            401,
            "Unauthorized",
            "Unauthorized",
        ),
        (
            ApiError::gone("too old resource version: 1 (5)"),
            410,
            "Expired",
            "too old resource version: 1 (5)",
        ),
        (
            ApiError::method_not_supported(apps, "delete"),
            405,
            "MethodNotAllowed",
            "delete is not supported on resources of kind \"deployments.apps\"",
        ),
        (
            ApiError::not_acceptable(&["application/json"]),
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json",
        ),
        (
            ApiError::internal("disk full"),
            500,
            "InternalError",
            "Internal error occurred: disk full",
        ),
        (
            ApiError::timeout("etcd", 1),
            504,
            "Timeout",
            "Timeout: etcd",
        ),
        (
            ApiError::no_such_path(),
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
    ] {
        assert_eq!(
            (error.code, error.reason, error.message.as_str()),
            (code, reason, message)
        );
    }
}

#[test]
fn a_status_says_what_it_is_about() {
    assert_eq!(
        ApiError::not_found(&kinds::DEPLOYMENT, "web").status(),
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "deployments.apps \"web\" not found",
            "reason": "NotFound",
            "details": {"name": "web", "group": "apps", "kind": "deployments"},
            "code": 404,
        })
    );
    let busy = ApiError::too_many_requests("busy", 3).status();
    assert_eq!(busy["details"], json!({"retryAfterSeconds": 3}));
    assert_eq!(
        status::success(&kinds::POD, "web", "u1"),
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {"name": "web", "kind": "pods", "uid": "u1"},
        })
    );
}
