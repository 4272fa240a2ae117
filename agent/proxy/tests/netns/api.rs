//! An API server of fixed objects, behind the client's `Transport`: lists them, and watches in which nothing happens.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use trireme_client::{Body, BoxError, Client, Transport, TransportError, full_body};

#[derive(Clone)]
pub struct Api(Arc<BTreeMap<String, Value>>);

impl Api {
    /// Objects by path.
    pub fn with<'a>(objects: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        Self(Arc::new(objects.into_iter().map(|(path, object)| (path.to_owned(), object)).collect()))
    }

    pub fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }
}

impl Transport for Api {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let plural = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let of_kind = self.0.iter().filter(|(path, _)| path.split('/').rev().nth(1) == Some(plural.as_str()));
        let items: Vec<Value> = of_kind.map(|(_, object)| object.clone()).collect();
        let watch = query.contains("watch=");
        let body = if watch {
            let bookmark = json!({"type": "BOOKMARK", "object": {"apiVersion": "v1", "kind": "Service", "metadata": {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}}});
            let initial = if query.contains("sendInitialEvents=true") { items } else { Vec::new() };
            let lines = initial.into_iter().map(|object| json!({"type": "ADDED", "object": object})).chain([bookmark]);
            let frames: Vec<Result<_, BoxError>> = lines.map(|line| Ok(http_body::Frame::data(Bytes::from(format!("{line}\n"))))).collect();
            StreamBody::new(futures::stream::iter(frames).chain(futures::stream::pending())).boxed_unsync()
        } else {
            full_body(json!({"metadata": {"resourceVersion": "9"}, "items": items}).to_string().into())
        };
        async move { Ok(Response::builder().header("content-type", "application/json").body(body).unwrap()) }.boxed()
    }
}
