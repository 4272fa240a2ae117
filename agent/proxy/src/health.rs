//! The proxy's health over HTTP (port 10256): what cloud load balancers ask of a node.

use std::{convert::Infallible, net::SocketAddr};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Serves `/healthz` and `/livez` until cancelled.
pub async fn serve(
    address: SocketAddr,
    healthy: watch::Receiver<bool>,
    metrics: Metrics,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted { Ok((stream, _)) => stream, Err(_) => continue },
            () = cancel.cancelled() => return Ok(()),
        };
        let (healthy, metrics) = (healthy.clone(), metrics.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, *healthy.borrow());
                metrics.health_asked(request.uri().path(), answer.status());
                async move { Ok::<_, Infallible>(answer) }
            });
            // A peer that hangs up is not our error.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

fn answer(request: &Request<Incoming>, healthy: bool) -> Response<Full<Bytes>> {
    let (status, text) = match request.uri().path() {
        "/healthz" | "/livez" if healthy => (StatusCode::OK, "ok"),
        "/healthz" | "/livez" => (StatusCode::SERVICE_UNAVAILABLE, "service rules are not in step"),
        _ => (StatusCode::NOT_FOUND, "404 page not found"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
