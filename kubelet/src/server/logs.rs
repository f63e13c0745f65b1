//! `/containerLogs`: what `kubectl logs` shows.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State as Extract};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::{Refusal, State};
use crate::cri::{Runtime, v1};
use crate::logs::{self, Options, Source};
use crate::pods::observed::{Instance, Observed};
use crate::pods::spec;

/// The query, as the API server passes it on.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Parameters {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<String>,
    since_seconds: Option<String>,
    since_time: Option<String>,
    limit_bytes: Option<String>,
}

impl Parameters {
    fn options(&self, now: Timestamp) -> Result<Options, Refusal> {
        let seconds = number("sinceSeconds", self.since_seconds.as_deref())?;
        let since_seconds = seconds.and_then(|seconds| i64::try_from(seconds).ok());
        let since_seconds = since_seconds.map(|seconds| now - SignedDuration::from_secs(seconds));
        let since_time = match self.since_time.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse::<Timestamp>().map_err(|_| {
                Refusal::bad_request(format!(
                    "sinceTime {text:?} is not a time: expected RFC 3339"
                ))
            })?),
        };
        Ok(Options {
            follow: flag("follow", self.follow.as_deref())?,
            timestamps: flag("timestamps", self.timestamps.as_deref())?,
            tail: number("tailLines", self.tail_lines.as_deref())?,
            since: since_seconds.or(since_time),
            limit: number("limitBytes", self.limit_bytes.as_deref())?,
        })
    }
}

fn number(name: &str, text: Option<&str>) -> Result<Option<u64>, Refusal> {
    let invalid = |text| {
        Refusal::bad_request(format!(
            "{name} {text:?} is not a number that is at least 0"
        ))
    };
    text.filter(|text| !text.is_empty())
        .map(|text| text.parse().map_err(|_| invalid(text)))
        .transpose()
}

fn flag(name: &str, text: Option<&str>) -> Result<bool, Refusal> {
    match text {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(text) => Err(Refusal::bad_request(format!(
            "{name} {text:?} is neither true nor false"
        ))),
    }
}

/// The container's log as a stream.
pub async fn container_logs(
    Extract(state): Extract<Arc<State>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Refusal> {
    let options = parameters.options(Timestamp::now())?;
    let previous = flag("previous", parameters.previous.as_deref())?;
    let pod = state.manager.pod(&namespace, &name);
    let pod =
        pod.ok_or_else(|| Refusal::not_found(format!("pod \"{namespace}/{name}\" not found")))?;
    let runtime = Arc::clone(&state.manager.host().runtime);
    let instance = find(&*runtime, &pod, &container, previous).await?;
    let source = RunningContainer {
        runtime,
        id: instance.id.clone(),
    };
    let stream = logs::stream(PathBuf::from(&instance.log_path), options, source).await;
    let stream = stream
        .map_err(|error| Refusal::not_found(format!("log of container {container}: {error}")))?;
    Ok((
        [(header::CONTENT_TYPE, "text/plain")],
        Body::from_stream(stream),
    )
        .into_response())
}

/// The instance whose log is meant; the words of a refusal are upstream's.
async fn find(
    runtime: &dyn Runtime,
    pod: &Pod,
    container: &str,
    previous: bool,
) -> Result<Instance, Refusal> {
    let name = spec::name(pod);
    if spec::container(pod, container).is_none() {
        return Err(Refusal::not_found(format!(
            "container \"{container}\" in pod \"{name}\" is not available"
        )));
    }
    let observed = Observed::read(runtime, spec::uid(pod))
        .await
        .map_err(Refusal::internal)?;
    // The newest instance; a container that waits to be restarted shows the one that has ended.
    let found = if previous {
        observed.previous(container)
    } else {
        observed.latest(container)
    };
    found.cloned().ok_or_else(|| {
        Refusal::bad_request(match previous {
            true => {
                format!("previous terminated container \"{container}\" in pod \"{name}\" not found")
            }
            false => format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: {}",
                waits(pod, container)
            ),
        })
    })
}

fn waits(pod: &Pod, container: &str) -> String {
    let statuses = pod.status.iter().flat_map(|status| {
        status
            .container_statuses
            .iter()
            .flatten()
            .chain(status.init_container_statuses.iter().flatten())
    });
    let status = statuses.into_iter().find(|status| status.name == container);
    let reason = status.and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    reason.unwrap_or_else(|| "ContainerCreating".into())
}

struct RunningContainer {
    runtime: Arc<dyn Runtime>,
    id: String,
}

#[async_trait::async_trait]
impl Source for RunningContainer {
    async fn is_running(&self) -> bool {
        let status = self.runtime.container_status(&self.id).await;
        status.is_ok_and(|status| status.state() == v1::ContainerState::ContainerRunning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_checked() {
        let now = Timestamp::from_second(100).unwrap();
        let parameters = Parameters {
            follow: Some("true".into()),
            tail_lines: Some("5".into()),
            since_seconds: Some("10".into()),
            ..Default::default()
        };
        let options = parameters
            .options(now)
            .unwrap_or_else(|refusal| panic!("{}", refusal.1));
        assert_eq!((options.follow, options.tail), (true, Some(5)));
        assert_eq!(options.since, Timestamp::from_second(90).ok());
        let bad = [
            Parameters {
                tail_lines: Some("-1".into()),
                ..Default::default()
            },
            Parameters {
                follow: Some("maybe".into()),
                ..Default::default()
            },
            Parameters {
                since_time: Some("yesterday".into()),
                ..Default::default()
            },
        ];
        for parameters in bad {
            assert!(parameters.options(now).is_err(), "{parameters:?}");
        }
    }
}
