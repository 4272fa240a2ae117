//! Removes the folders of local volumes whose claims are gone, when the volume controller asks.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{context::Api, request::refuse};
use crate::{error::Error, volume::local};

/// `DELETE /trireme/local-volumes/{name}`: 200 when the folder is gone.
pub(super) async fn remove(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Response {
    let Some(removal) = api.removals.begin(&name) else {
        return refuse(StatusCode::CONFLICT, format!("folder {name:?} is being removed, or too many others are: ask again"));
    };
    let base = api.core.options.local_volumes_dir.clone();
    let removed = tokio::task::spawn_blocking(move || {
        let outcome = local::remove(&base, &name);
        drop(removal);
        outcome
    });
    match removed.await {
        Ok(Ok(())) => StatusCode::OK.into_response(),
        Ok(Err(error @ Error::Config(_))) => refuse(StatusCode::BAD_REQUEST, error.to_string()),
        Ok(Err(error)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
