//! The health ports of Services with `externalTrafficPolicy: Local` (`healthCheckNodePort`).
//!
//! A balancer outside asks each node there whether it has endpoints of the Service: 200 if it has, 503 if not, with upstream's JSON
//! body and headers. Answers to
//! <https://kubernetes.io/docs/reference/networking/virtual-ips/> and upstream's `pkg/proxy/healthcheck/service_health.go`.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use trireme_client::{Informer, ObjectKey};

use crate::services::{self, LocalHealth};

/// Changes that arrive within this time are looked at together.
const COALESCE: Duration = Duration::from_millis(20);
/// A port that another process holds may become free.
const LISTEN_AGAIN: Duration = Duration::from_secs(10);
/// Balancers ask on short connections.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 256;

/// A port that is served.
struct Served {
    health: watch::Sender<LocalHealth>,
    _stop: DropGuard,
}

/// Serves every health port until cancelled. `proxy_healthy`: whether this node's rules are in step.
pub async fn run(
    all: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    node_name: String,
    proxy_healthy: watch::Receiver<bool>,
    cancel: CancellationToken,
) {
    let (poke, mut poked) = mpsc::channel(1);
    let also = poke.clone();
    let by_service = services::by_service(&slices);
    all.on_event(move |_| {
        let _ = poke.try_send(());
    });
    slices.on_event(move |_| {
        let _ = also.try_send(());
    });
    tokio::select! {
        () = async { all.wait_synced().await; slices.wait_synced().await; } => {}
        () = cancel.cancelled() => return,
    }
    let mut served: BTreeMap<u16, Served> = BTreeMap::new();
    loop {
        let health = |service: &Arc<Service>| {
            services::health_port(service)?;
            let slices = by_service.get(&ObjectKey::of(service.as_ref()).to_string());
            services::local_health(service, &slices, &node_name)
        };
        let wanted: BTreeMap<u16, LocalHealth> = all.list().iter().filter_map(health).collect();
        served.retain(|port, _| wanted.contains_key(port));
        for (port, health) in wanted {
            match served.get(&port) {
                Some(running) => drop(running.health.send_if_modified(|now| std::mem::replace(now, health.clone()) != health)),
                None => drop(served.insert(port, serve(port, health, proxy_healthy.clone()))),
            }
        }
        tokio::select! {
            _ = poked.recv() => tokio::time::sleep(COALESCE).await,
            () = cancel.cancelled() => return,
        }
    }
}

fn serve(port: u16, health: LocalHealth, proxy_healthy: watch::Receiver<bool>) -> Served {
    let stop = CancellationToken::new();
    let (health, known) = watch::channel(health);
    let stopped = stop.clone();
    tokio::spawn(async move { stopped.run_until_cancelled(listen(port, known, proxy_healthy)).await });
    Served { health, _stop: stop.drop_guard() }
}

async fn listen(port: u16, health: watch::Receiver<LocalHealth>, proxy_healthy: watch::Receiver<bool>) {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let mut is_said = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                if !std::mem::replace(&mut is_said, true) {
                    let LocalHealth { namespace, name, .. } = health.borrow().clone();
                    tracing::warn!(%error, port, "the health port of Service {namespace}/{name} is not served, trying again");
                }
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        }
    };
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (health, proxy_healthy) = (health.clone(), proxy_healthy.clone());
        tokio::spawn(async move {
            let service = service_fn(move |_| {
                let answer = answer(&health.borrow(), *proxy_healthy.borrow());
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            let server = server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false);
            // A peer that hangs up is not our error.
            drop(server.serve_connection(TokioIo::new(stream), service).await);
            drop(permit);
        });
    }
}

/// Any path and method is answered, as upstream does.
fn answer(health: &LocalHealth, proxy_healthy: bool) -> Response<Full<Bytes>> {
    let LocalHealth { namespace, name, endpoints } = health;
    let body = json!({
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": proxy_healthy,
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = if *endpoints > 0 && proxy_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("x-load-balancing-endpoint-weight", HeaderValue::from(*endpoints));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn d12_a_balancer_hears_whether_this_node_has_endpoints() {
        let health = |endpoints| LocalHealth { namespace: "default".into(), name: "web".into(), endpoints };
        let whole = answer(&health(2), true);
        assert_eq!(whole.status(), 200);
        assert_eq!(whole.headers()["x-load-balancing-endpoint-weight"], "2");
        let body: serde_json::Value = serde_json::from_slice(&whole.into_body().collect().await.unwrap().to_bytes()).unwrap();
        let expected = json!({"service": {"namespace": "default", "name": "web"}, "localEndpoints": 2, "serviceProxyHealthy": true});
        assert_eq!(body, expected);
        assert_eq!(answer(&health(0), true).status(), 503);
        assert_eq!(answer(&health(2), false).status(), 503);
    }

    #[tokio::test]
    async fn d12_the_port_is_served_and_follows_its_service() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (_healthy, proxy_healthy) = watch::channel(true);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let served = serve(free, LocalHealth { namespace: "a".into(), name: "b".into(), endpoints: 0 }, proxy_healthy);
        let ask = async || -> String {
            let connect = async || loop {
                match tokio::net::TcpStream::connect(("127.0.0.1", free)).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            };
            let mut stream = connect().await;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(ask().await, "HTTP/1.1 503 Service Unavailable");
        served.health.send_modify(|health| health.endpoints = 1);
        assert_eq!(ask().await, "HTTP/1.1 200 OK");
    }
}
