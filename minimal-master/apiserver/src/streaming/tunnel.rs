//! `exec`, `attach` and `portforward`: both sides switch protocols, then bytes are copied both ways.

use axum::body::Body;
use http::header::{AUTHORIZATION, COOKIE, HOST};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sluice_api::ApiError;

use super::locate;
use crate::front::wants_upgrade;
use crate::metrics::Counted;
use crate::query::Query;
use crate::respond::Answer;
use crate::rest::Call;

pub(super) async fn serve(call: &Call, mut request: Request<Body>) -> Result<Answer, ApiError> {
    if !wants_upgrade(request.headers()) {
        return Err(ApiError::bad_request(format!(
            "Upgrade request required: {} is a stream",
            call.target.subresource
        )));
    }
    let pod = locate::pod(call).await?;
    let kubelet = locate::kubelet(&call.app, &pod).await?;
    let uri = kubelet_uri(call, &pod)?;
    let mut forward = Request::new(Body::empty());
    *forward.method_mut() = request.method().clone();
    *forward.uri_mut() = uri.parse().map_err(ApiError::internal)?;
    *forward.headers_mut() = forwarded(request.headers());
    let mut answer = call.app.kubelets.send(&kubelet, forward).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer.map(Body::new));
    }
    let (client, server) = (
        hyper::upgrade::on(&mut request),
        hyper::upgrade::on(&mut answer),
    );
    let stop = call.app.stopping.clone();
    let path = call.target.name.clone();
    let open = Counted::new(&call.app.metrics.streams);
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        if let Err(error) = join(client, server).await {
            tracing::debug!(pod = path, %error, "tunnel ended");
        }
        drop(open);
    }));
    let mut switched = Response::new(Body::empty());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = answer.headers().clone();
    Ok(switched)
}

async fn join(
    client: hyper::upgrade::OnUpgrade,
    server: hyper::upgrade::OnUpgrade,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (client, server) = tokio::try_join!(client, server)?;
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// The client's headers without its credentials: the kubelet is to see this server's.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in [AUTHORIZATION, COOKIE, HOST] {
        headers.remove(name);
    }
    headers
}

fn kubelet_uri(call: &Call, pod: &Value) -> Result<String, ApiError> {
    let (namespace, name) = (&call.target.namespace, &call.target.name);
    if call.target.subresource == "portforward" {
        let ports = Query::encode(call.query.all("ports").map(|port| ("port", port)));
        let query = if ports.is_empty() {
            ports
        } else {
            format!("?{ports}")
        };
        return Ok(format!("/portForward/{namespace}/{name}{query}"));
    }
    let container = locate::container(pod, call.query.get("container"))?;
    let query = Query::encode(stream_options(&call.query)?);
    let path = &call.target.subresource;
    Ok(format!("/{path}/{namespace}/{name}/{container}?{query}"))
}

/// A kubelet's names for the options of exec and attach.
const STREAMS: [(&str, &str); 4] = [
    ("stdin", "input"),
    ("stdout", "output"),
    ("stderr", "error"),
    ("tty", "tty"),
];

fn stream_options(query: &Query) -> Result<Vec<(&str, &str)>, ApiError> {
    let streams = STREAMS.iter().filter(|(name, _)| query.flag(name));
    let mut options: Vec<(&str, &str)> = streams.map(|(_, kubelet)| (*kubelet, "1")).collect();
    if options.iter().all(|(name, _)| *name == "tty") {
        return Err(ApiError::bad_request(
            "you must specify at least one of stdin, stdout, stderr",
        ));
    }
    options.extend(query.all("command").map(|word| ("command", word)));
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_get_the_kubelets_names() {
        let query =
            Query::parse("command=sh&command=-c&stdin=true&stdout=true&tty=false&container=c");
        let options = stream_options(&query).unwrap();
        assert_eq!(
            options,
            [
                ("input", "1"),
                ("output", "1"),
                ("command", "sh"),
                ("command", "-c")
            ]
        );
        assert_eq!(
            stream_options(&Query::parse("command=ls&tty=true"))
                .unwrap_err()
                .code,
            400
        );
    }

    #[test]
    fn credentials_stay_here() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer secret".parse().unwrap());
        headers.insert(
            "x-stream-protocol-version",
            "v4.channel.k8s.io".parse().unwrap(),
        );
        let forwarded = forwarded(&headers);
        assert!(forwarded.get(AUTHORIZATION).is_none());
        assert_eq!(forwarded.len(), 1);
    }
}
