//! The way from admission plugins back to their own server: a request in the name of `system:apiserver`.
//!
//! Holds the server weakly, so that its plugins do not keep it.

use std::sync::Arc;

use futures::FutureExt;
use http_body_util::BodyExt;
use trireme_api::status::Status;

use crate::admission::loopback::Loopback;
use crate::chain;
use crate::chain::call::Source;
use crate::error::Answer;
use crate::http::body::Payload;
use crate::http::respond::Body;
use crate::server::Server;
use crate::user::{GROUP_AUTHENTICATED, GROUP_MASTERS, UserInfo};

/// Answers the requests of `loopback` by `server`.
pub fn connect(server: &Arc<Server>, loopback: &Loopback) {
    let server = Arc::downgrade(server);
    loopback.connect(move |request| {
        let server = server.upgrade();
        async move {
            let Some(server) = server else { return Err(Box::new(Status::service_unavailable("the server is shutting down"))) };
            let user = UserInfo::new("system:apiserver", &[GROUP_MASTERS, GROUP_AUTHENTICATED]);
            let answer = chain::run(server, Source::InProcess(Box::new(user), None), request.map(Payload::from)).await;
            outcome(answer).await
        }
        .boxed()
    });
}

async fn outcome(answer: ::http::Response<Body>) -> Answer<()> {
    if answer.status().is_success() {
        return Ok(());
    }
    let code = answer.status().as_u16();
    let body = answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let status = serde_json::from_slice::<Status>(&body);
    Err(Box::new(status.unwrap_or_else(|_| Status::failure(code, "", format!("status {code}")))))
}
