//! `/containerLogs`: one container's log, with kubectl's options.

use std::{path::PathBuf, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, RawQuery, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use trireme_proto::cri;

use super::{
    context::Api,
    request::{find_container, flag, pod_uid, query, refuse, values},
};
use crate::{logs::reader, runtime::keys};

/// Blocks read ahead of a slow client.
const BUFFERED_BLOCKS: usize = 4;

pub(crate) async fn serve(
    State(api): State<Arc<Api>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
) -> Response {
    let query = query(raw.as_deref());
    let (options, follow) = match options(&query, api.core.clock.now()) {
        Ok(parsed) => parsed,
        Err((code, why)) => return refuse(code, why),
    };
    let previous = flag(&query, &["previous"]);
    let (id, path) = match locate(&api, &namespace, &pod, &container, previous).await {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    if tokio::fs::metadata(&path).await.is_err() {
        return refuse(StatusCode::NOT_FOUND, format!("failed to try resolving symlinks in path {path:?}: no such file or directory"));
    }
    let (sender, receiver) = mpsc::channel(BUFFERED_BLOCKS);
    tokio::spawn(async move {
        let is_running = || {
            let (api, id) = (api.clone(), id.clone());
            async move { api.core.runtime.container_status(&id).await.is_ok_and(|s| s.state == cri::ContainerState::ContainerRunning as i32) }
        };
        if let Err(error) = reader::stream(path, options, follow && !previous, is_running, sender.clone()).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    ([(CONTENT_TYPE, "text/plain")], Body::from_stream(ReceiverStream::new(receiver))).into_response()
}

/// The container and its log file: the current attempt, or the one before.
async fn locate(api: &Api, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<(String, PathBuf), Response> {
    let object = api.core.pods.get(namespace, pod);
    let not_there = || {
        let message = match previous {
            true => format!("previous terminated container {container:?} in pod {pod:?} not found"),
            false => format!("container {container:?} in pod {pod:?} is waiting to start: {}", why_waiting(object.as_deref(), container)),
        };
        refuse(StatusCode::BAD_REQUEST, message)
    };
    if object.as_deref().is_some_and(|p| crate::pod::spec::container(p, container).is_none()) {
        return Err(refuse(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod \"{pod}\"")));
    }
    let current = match find_container(api, namespace, pod, container).await {
        Ok(current) => current,
        Err(refusal) if object.is_none() => return Err(refusal),
        Err(_) => return Err(not_there()),
    };
    let wanted = if previous {
        let uid = pod_uid(api, namespace, pod)?;
        let all =
            api.core.runtime.list_containers(Some(&uid)).await.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
        let attempt = |c: &cri::Container| c.metadata.as_ref().map_or(0, |m| m.attempt);
        let named = all.into_iter().filter(|c| c.labels.get(keys::CONTAINER_NAME).is_some_and(|n| n == container) && c.id != current.id);
        named.max_by_key(attempt).ok_or_else(not_there)?
    } else {
        current
    };
    let status =
        api.core.runtime.container_status(&wanted.id).await.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok((wanted.id, PathBuf::from(status.log_path)))
}

/// What the container waits for, in kubelet's words.
fn why_waiting(pod: Option<&Pod>, container: &str) -> String {
    let statuses = pod.and_then(|p| p.status.as_ref());
    let all = statuses
        .into_iter()
        .flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).chain(&s.ephemeral_container_statuses).flatten());
    let status = all.into_iter().find(|s| s.name == container);
    let reason = status.and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.as_deref()).unwrap_or("ContainerCreating");
    match reason {
        "ErrImagePull" => "image can't be pulled".into(),
        "ImagePullBackOff" => "trying and failing to pull image".into(),
        other => other.into(),
    }
}

/// Why a request for a log is refused.
type Refused = (StatusCode, String);

/// A number in the query, if it is given.
fn number(query: &[(String, String)], name: &str) -> Result<Option<i64>, Refused> {
    let values = values(query, &[name]);
    let Some(text) = values.first().filter(|v| !v.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| (StatusCode::BAD_REQUEST, format!("invalid value {text:?} for {name}: must be a whole number")))
}

/// The same, at least `least`: upstream answers 422 to what is below it.
fn at_least(query: &[(String, String)], name: &str, least: i64) -> Result<Option<i64>, Refused> {
    match number(query, name)? {
        Some(value) if value < least => {
            let bound = if least == 0 { "greater than or equal to 0".to_string() } else { format!("greater than {}", least - 1) };
            Err((StatusCode::UNPROCESSABLE_ENTITY, format!("{name}: Invalid value: {value}: must be {bound}")))
        }
        other => Ok(other),
    }
}

fn options(query: &[(String, String)], now: Timestamp) -> Result<(reader::Options, bool), Refused> {
    // Longer ago than time reaches means all of the log.
    let mut since = at_least(query, "sinceSeconds", 1)?.and_then(|secs| now.checked_sub(SignedDuration::from_secs(secs)).ok());
    if let Some(time) = values(query, &["sinceTime"]).first().filter(|v| !v.is_empty()) {
        let parsed =
            time.parse().map_err(|_| (StatusCode::BAD_REQUEST, format!("invalid value {time:?} for sinceTime: must be RFC 3339")))?;
        since = Some(parsed);
    }
    let only_stderr = match values(query, &["stream"]).first().map(String::as_str) {
        Some("Stdout") => Some(false),
        Some("Stderr") => Some(true),
        _ => None,
    };
    let size = |n: i64| usize::try_from(n).unwrap_or(usize::MAX);
    let options = reader::Options {
        tail_lines: at_least(query, "tailLines", 0)?.map(size),
        since,
        timestamps: flag(query, &["timestamps"]),
        limit_bytes: at_least(query, "limitBytes", 1)?.map(size),
        only_stderr,
    };
    Ok((options, flag(query, &["follow"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_09_no_number_of_a_client_overflows() {
        let now = Timestamp::UNIX_EPOCH;
        let parse = |name: &str, value: &str| options(&[(name.into(), value.into())], now);
        for value in ["9223372036854775807", "631107417600", "1"] {
            for name in ["sinceSeconds", "tailLines", "limitBytes"] {
                assert!(parse(name, value).is_ok(), "{name}={value}");
            }
        }
        assert_eq!(parse("sinceSeconds", "9223372036854775807").unwrap().0.since, None, "all of the log");
        assert_eq!(parse("sinceSeconds", "5").unwrap().0.since, Some(Timestamp::from_second(-5).unwrap()));
        for (name, value, code) in [
            ("sinceSeconds", "0", 422),
            ("sinceSeconds", "-9223372036854775808", 422),
            ("tailLines", "-1", 422),
            ("limitBytes", "0", 422),
            ("tailLines", "9223372036854775808", 400),
            ("sinceSeconds", "x", 400),
            ("sinceTime", "yesterday", 400),
        ] {
            assert_eq!(parse(name, value).unwrap_err().0.as_u16(), code, "{name}={value}");
        }
    }
}
