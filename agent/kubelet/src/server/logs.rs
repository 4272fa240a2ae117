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
    Api,
    routes::{find_container, flag, query, refuse, values},
};
use crate::{logs::reader, pod::observed::keys};

/// Blocks read ahead of a slow client.
const BUFFERED_BLOCKS: usize = 4;

pub(crate) async fn serve(
    State(api): State<Arc<Api>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
) -> Response {
    let query = query(raw.as_deref());
    let (options, follow) = match options(&query) {
        Ok(parsed) => parsed,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, why),
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
        let uid = super::routes::pod_uid(api, namespace, pod)?;
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
    let all = statuses.into_iter().flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten());
    let status = all.into_iter().find(|s| s.name == container);
    let reason = status.and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.as_deref()).unwrap_or("ContainerCreating");
    match reason {
        "ErrImagePull" => "image can't be pulled".into(),
        "ImagePullBackOff" => "trying and failing to pull image".into(),
        other => other.into(),
    }
}

fn options(query: &[(String, String)]) -> Result<(reader::Options, bool), String> {
    let query = query.to_vec();
    let number = |name: &str| -> Result<Option<u64>, String> {
        values(&query, &[name])
            .first()
            .filter(|v| !v.is_empty())
            .map(|v| v.parse().map_err(|_| format!("invalid value {v:?} for {name}: must be a number not below 0")))
            .transpose()
    };
    let mut since = None;
    if let Some(seconds) = number("sinceSeconds")? {
        since = Some(Timestamp::now() - SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX / 2)));
    }
    if let Some(time) = values(&query, &["sinceTime"]).first().filter(|v| !v.is_empty()) {
        since = Some(time.parse().map_err(|_| format!("invalid value {time:?} for sinceTime: must be RFC 3339"))?);
    }
    let only_stderr = match values(&query, &["stream"]).first().map(String::as_str) {
        Some("Stdout") => Some(false),
        Some("Stderr") => Some(true),
        _ => None,
    };
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let options = reader::Options {
        tail_lines: number("tailLines")?.map(size),
        since,
        timestamps: flag(&query, &["timestamps"]),
        limit_bytes: number("limitBytes")?.map(size),
        only_stderr,
    };
    Ok((options, flag(&query, &["follow"])))
}
