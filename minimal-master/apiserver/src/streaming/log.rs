//! `pods/NAME/log`.

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use sluice_api::ApiError;

use super::locate;
use crate::query::Query;
use crate::respond::Answer;
use crate::rest::Call;

/// Parameters that a kubelet takes (core/v1 PodLogOptions).
const OPTIONS: [&str; 8] = [
    "follow",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "stream",
    "tailLines",
    "timestamps",
];
/// An error's text is cut there.
const ERROR_LIMIT: usize = 64 * 1024;

pub(super) async fn serve(call: &Call) -> Result<Answer, ApiError> {
    for count in ["tailLines", "limitBytes", "sinceSeconds"] {
        if call.query.number(count)?.is_some_and(|number| number < 0) {
            return Err(ApiError::bad_request(format!(
                "{count}: Invalid value: must be greater than or equal to 0"
            )));
        }
    }
    let pod = locate::pod(call).await?;
    let container = locate::container(&pod, call.query.get("container"))?;
    let kubelet = locate::kubelet(&call.app, &pod).await?;
    let options = OPTIONS
        .iter()
        .filter_map(|name| Some((*name, call.query.get(name)?)));
    let uri = format!(
        "/containerLogs/{}/{}/{container}?{}",
        call.target.namespace,
        call.target.name,
        Query::encode(options)
    );
    let request = Request::get(uri)
        .body(Body::empty())
        .map_err(ApiError::internal)?;
    let answer = call.app.kubelets.send(&kubelet, request).await?;
    match answer.status() {
        StatusCode::OK => Ok(stream(answer)),
        code => Err(refusal(code, answer).await),
    }
}

fn stream(answer: Response<Incoming>) -> Answer {
    let (mut parts, body) = answer.into_parts();
    let kind = parts.headers.remove(CONTENT_TYPE);
    let mut answer = Response::new(Body::new(body));
    let plain = http::HeaderValue::from_static("text/plain");
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, kind.unwrap_or(plain));
    answer
}

/// A kubelet's error, as a Status with the kubelet's own words.
async fn refusal(code: StatusCode, answer: Response<Incoming>) -> ApiError {
    let text = match Limited::new(answer.into_body(), ERROR_LIMIT)
        .collect()
        .await
    {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let reason = match code {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return ApiError::internal(format_args!("the kubelet refuses this server: {text}"));
        }
        StatusCode::NOT_FOUND => "NotFound",
        _ => return ApiError::internal(text),
    };
    ApiError::new(code.as_u16(), reason, text)
}
