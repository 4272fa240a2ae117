//! The client: the API's verbs over a [`Transport`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::decode::from_json;
use crate::params::Query;
use crate::watch::Lines;
use crate::{
    Body, DeleteOptions, Error, Fence, Identity, List, ListOptions, Object, PartialMeta, Patch, PatchOptions, ResourceType, Status,
    Transport, TransportError, WatchEvent, watch,
};

/// A request that answers at once may take this long; upstream's servers give up after 60 s.
const UNARY_TIMEOUT: Duration = Duration::from_secs(40);
/// The head of a watch may take this long.
const WATCH_HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// How often "429, come back in n seconds" is obeyed before the caller hears of it.
const MAX_THROTTLE_RETRIES: u32 = 3;

const JSON: &str = "application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// A cheap handle: clone it freely. Errors are [`Error`]; nothing is retried except an explicit 429, whose
/// request was refused before anything happened.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    identity: Option<Identity>,
    fence: Option<Fence>,
    user_agent: HeaderValue,
    field_manager: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("identity", &self.identity).field("fence", &self.fence).finish_non_exhaustive()
    }
}

impl Client {
    /// A client over this transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self {
            transport,
            identity: None,
            fence: None,
            user_agent: HeaderValue::from_static(concat!("trireme/", env!("CARGO_PKG_VERSION"))),
            field_manager: None,
        }
    }

    /// Speaks as this identity (in-process transport only).
    #[must_use]
    pub fn with_identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Writes only under this leadership (in-process transport only).
    #[must_use]
    pub fn with_fence(mut self, fence: Fence) -> Self {
        self.fence = Some(fence);
        self
    }

    /// Names itself so; the user agent's first word is also the default field manager.
    #[must_use]
    pub fn with_user_agent(mut self, user_agent: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(user_agent) {
            self.user_agent = value;
        }
        self
    }

    /// Owns the fields it writes under this name.
    #[must_use]
    pub fn with_field_manager(mut self, manager: impl Into<String>) -> Self {
        self.field_manager = Some(manager.into());
        self
    }

    // --- typed verbs ---

    /// Reads one object.
    pub async fn get<T: Typed>(&self, namespace: Option<&str>, name: &str) -> Result<T, Error> {
        let path = T::resource_type().path(namespace, Some(name), None);
        self.call(Method::GET, path, JSON, None).await
    }

    /// Creates an object; returns it as stored.
    pub async fn create<T: Typed>(&self, namespace: Option<&str>, object: &T) -> Result<T, Error> {
        let path = self.write_path(T::resource_type().path(namespace, None, None));
        self.call(Method::POST, path, JSON, Some((JSON, encode(object)?))).await
    }

    /// Replaces an object. Only for objects whose every field we know.
    pub async fn replace<T: Typed>(&self, namespace: Option<&str>, name: &str, object: &T) -> Result<T, Error> {
        let path = self.write_path(T::resource_type().path(namespace, Some(name), None));
        self.call(Method::PUT, path, JSON, Some((JSON, encode(object)?))).await
    }

    /// Patches an object.
    pub async fn patch<T: Typed>(&self, namespace: Option<&str>, name: &str, patch: &Patch) -> Result<T, Error> {
        self.patch_any(&T::resource_type(), namespace, name, None, patch, &PatchOptions::default()).await
    }

    /// Patches an object's status.
    pub async fn patch_status<T: Typed>(&self, namespace: Option<&str>, name: &str, patch: &Patch) -> Result<T, Error> {
        self.patch_subresource(namespace, name, "status", patch).await
    }

    /// Patches a subresource.
    pub async fn patch_subresource<T: Typed>(
        &self,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        patch: &Patch,
    ) -> Result<T, Error> {
        let options = PatchOptions::default();
        self.patch_any(&T::resource_type(), namespace, name, Some(subresource), patch, &options).await
    }

    /// Deletes an object. Whether it is already gone or still terminating is the server's answer, ignored here.
    pub async fn delete<T: Typed>(&self, namespace: Option<&str>, name: &str, options: &DeleteOptions) -> Result<(), Error> {
        self.delete_any(&T::resource_type(), namespace, name, options).await
    }

    /// Lists objects: one page if a limit is given.
    pub async fn list<T: Typed>(&self, namespace: Option<&str>, options: &ListOptions) -> Result<List<T>, Error> {
        self.list_any(&T::resource_type(), namespace, options).await
    }

    /// Watches objects.
    pub async fn watch<T: Typed>(
        &self,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>, Error>> + Send + Unpin + use<T>, Error> {
        self.watch_any::<T>(&T::resource_type(), namespace, options).await
    }

    /// Creates a subresource such as `binding`, `eviction` or `token`.
    pub async fn create_subresource<T: Typed>(
        &self,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> Result<Value, Error> {
        let path = self.write_path(T::resource_type().path(namespace, Some(name), Some(subresource)));
        self.call(Method::POST, path, JSON, Some((JSON, encode(body)?))).await
    }

    /// Binds a pod to a node.
    pub async fn bind(&self, namespace: &str, pod: &str, pod_uid: &str, node: &str) -> Result<(), Error> {
        let body = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod, "namespace": namespace, "uid": pod_uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        self.create_subresource::<k8s_openapi::api::core::v1::Pod>(Some(namespace), pod, "binding", &body).await.map(drop)
    }

    // --- verbs for any resource ---

    /// Reads one object of any resource.
    pub async fn get_any<T: DeserializeOwned>(&self, resource: &ResourceType, namespace: Option<&str>, name: &str) -> Result<T, Error> {
        self.call(Method::GET, resource.path(namespace, Some(name), None), JSON, None).await
    }

    /// Reads one object's metadata.
    pub async fn get_meta(&self, resource: &ResourceType, namespace: Option<&str>, name: &str) -> Result<PartialMeta, Error> {
        self.call(Method::GET, resource.path(namespace, Some(name), None), METADATA, None).await
    }

    /// Creates an object of any resource.
    pub async fn create_any<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        object: &B,
    ) -> Result<T, Error> {
        let path = self.write_path(resource.path(namespace, None, None));
        self.call(Method::POST, path, JSON, Some((JSON, encode(object)?))).await
    }

    /// Patches an object of any resource, or one of its subresources.
    pub async fn patch_any<T: DeserializeOwned>(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        name: &str,
        subresource: Option<&str>,
        patch: &Patch,
        options: &PatchOptions,
    ) -> Result<T, Error> {
        let mut query = Query::default();
        let apply_manager = matches!(patch, Patch::Apply(_)).then_some("trireme");
        let manager = options.field_manager.as_deref().or(self.field_manager.as_deref()).or(apply_manager);
        query.add_some("fieldManager", manager);
        if options.force {
            query.add("force", "true");
        }
        let path = resource.path(namespace, Some(name), subresource) + &query.text;
        let (content_type, body) = patch.parts();
        self.call(Method::PATCH, path, JSON, Some((content_type, encode(body)?))).await
    }

    /// Deletes an object of any resource.
    pub async fn delete_any(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        let path = resource.path(namespace, Some(name), None);
        self.call::<serde::de::IgnoredAny>(Method::DELETE, path, JSON, Some((JSON, delete_body(options)?))).await.map(drop)
    }

    /// Deletes every object of a collection that the options select.
    pub async fn delete_collection(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        options: &DeleteOptions,
        select: &ListOptions,
    ) -> Result<(), Error> {
        let path = resource.path(namespace, None, None) + &select.query(false);
        self.call::<serde::de::IgnoredAny>(Method::DELETE, path, JSON, Some((JSON, delete_body(options)?))).await.map(drop)
    }

    /// Lists any resource; asks for metadata only when `T` is [`PartialMeta`].
    pub async fn list_any<T: Object>(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<List<T>, Error> {
        let path = resource.path(namespace, None, None) + &options.query(false);
        self.call(Method::GET, path, if is_metadata::<T>() { METADATA_LIST } else { JSON }, None).await
    }

    /// Watches any resource; asks for metadata only when `T` is [`PartialMeta`].
    pub async fn watch_any<T: Object>(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>, Error>> + Send + Unpin + use<T>, Error> {
        let lines = self.watch_lines(resource, namespace, options, is_metadata::<T>()).await?;
        Ok(watch::events(lines))
    }

    /// One page with its items undecoded, so that one strange object does not hide the others.
    pub(crate) async fn list_raw(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        options: &ListOptions,
        metadata_only: bool,
    ) -> Result<List<Box<RawValue>>, Error> {
        let path = resource.path(namespace, None, None) + &options.query(false);
        self.call(Method::GET, path, if metadata_only { METADATA_LIST } else { JSON }, None).await
    }

    /// A watch as undecoded lines.
    pub(crate) fn watch_lines(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        options: &ListOptions,
        metadata_only: bool,
    ) -> BoxFuture<'static, Result<Lines, Error>> {
        let path = resource.path(namespace, None, None) + &options.query(true);
        let request = self.build(Method::GET, path, if metadata_only { METADATA } else { JSON }, None);
        let transport = Arc::clone(&self.transport);
        Box::pin(async move {
            let response = tokio::time::timeout(WATCH_HEAD_TIMEOUT, transport.send(request?))
                .await
                .map_err(|_| TransportError::Timeout(WATCH_HEAD_TIMEOUT))??;
            if response.status() != StatusCode::OK {
                return Err(refused(response).await);
            }
            Ok(Lines::new(response.into_body()))
        })
    }

    /// Calls a path that answers with JSON: discovery and the like.
    pub async fn get_path<T: DeserializeOwned>(&self, path: &str, accept: &str) -> Result<T, Error> {
        self.call(Method::GET, path.to_owned(), accept, None).await
    }

    /// Replaces a subresource of any resource (namespace `finalize`, ...).
    pub async fn replace_any<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        name: &str,
        subresource: Option<&str>,
        object: &B,
    ) -> Result<T, Error> {
        let path = self.write_path(resource.path(namespace, Some(name), subresource));
        self.call(Method::PUT, path, JSON, Some((JSON, encode(object)?))).await
    }

    /// Sends any request (path and query in its URI) with this client's identity and fence; streams the answer,
    /// whatever its status.
    pub async fn request(&self, mut request: Request<Bytes>) -> Result<Response<Body>, Error> {
        self.dress(&mut request);
        Ok(self.transport.send(request).await?)
    }

    // --- plumbing ---

    fn write_path(&self, path: String) -> String {
        match &self.field_manager {
            Some(manager) => {
                let mut query = Query::default();
                query.add("fieldManager", manager);
                path + &query.text
            }
            None => path,
        }
    }

    fn dress(&self, request: &mut Request<Bytes>) {
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| self.user_agent.clone());
        if let Some(identity) = &self.identity {
            request.extensions_mut().insert(identity.clone());
        }
        if let Some(fence) = self.fence {
            request.extensions_mut().insert(fence);
        }
    }

    fn build(&self, method: Method, path: String, accept: &str, body: Option<(&'static str, Bytes)>) -> Result<Request<Bytes>, Error> {
        let mut builder = Request::builder().method(method).uri(path).header(ACCEPT, accept);
        let bytes = match body {
            Some((content_type, bytes)) => {
                builder = builder.header(CONTENT_TYPE, content_type);
                bytes
            }
            None => Bytes::new(),
        };
        let mut request = builder.body(bytes).map_err(|error| Error::Request(error.to_string()))?;
        self.dress(&mut request);
        Ok(request)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        accept: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<T, Error> {
        let what = format!("the answer to {method} {path}");
        let bytes = self.exchange(method, path, accept.to_owned(), body).await?;
        from_json(&bytes).map_err(|source| Error::Decode { what, source })
    }

    /// One request, one complete answer. Boxed: it is the same for every type, and large.
    fn exchange(
        &self,
        method: Method,
        path: String,
        accept: String,
        body: Option<(&'static str, Bytes)>,
    ) -> BoxFuture<'static, Result<Bytes, Error>> {
        let client = self.clone();
        Box::pin(async move {
            let mut throttled = 0;
            loop {
                let request = client.build(method.clone(), path.clone(), &accept, body.clone())?;
                let response = tokio::time::timeout(UNARY_TIMEOUT, client.transport.send(request))
                    .await
                    .map_err(|_| TransportError::Timeout(UNARY_TIMEOUT))??;
                let status = response.status();
                if status == StatusCode::TOO_MANY_REQUESTS
                    && throttled < MAX_THROTTLE_RETRIES
                    && let Some(wait) = retry_after(&response)
                {
                    throttled += 1;
                    drop(response);
                    tokio::time::sleep(wait).await;
                    continue;
                }
                if !status.is_success() {
                    return Err(refused(response).await);
                }
                let body = tokio::time::timeout(UNARY_TIMEOUT, response.into_body().collect())
                    .await
                    .map_err(|_| TransportError::Timeout(UNARY_TIMEOUT))?
                    .map_err(|error| Error::Body(error.to_string()))?;
                return Ok(body.to_bytes());
            }
        })
    }
}

/// A typed resource of `k8s_openapi`.
pub trait Typed: Object + k8s_openapi::Resource {
    /// Its place in the API.
    fn resource_type() -> ResourceType;
}

impl<T> Typed for T
where
    T: Object + k8s_openapi::Resource,
    T::Scope: 'static,
{
    fn resource_type() -> ResourceType {
        ResourceType::of::<T>()
    }
}

pub(crate) fn is_metadata<T: 'static>() -> bool {
    std::any::TypeId::of::<T>() == std::any::TypeId::of::<PartialMeta>()
}

fn encode<B: Serialize + ?Sized>(body: &B) -> Result<Bytes, Error> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| Error::Request(error.to_string()))
}

fn delete_body(options: &DeleteOptions) -> Result<Bytes, Error> {
    let mut body = serde_json::to_value(options).map_err(|error| Error::Request(error.to_string()))?;
    body["apiVersion"] = "v1".into();
    body["kind"] = "DeleteOptions".into();
    encode(&body)
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(10)))
}

/// Reads a refusal's body, but not more of it than a `Status` needs.
async fn refused(response: Response<Body>) -> Error {
    const MAX_BYTES: usize = 1 << 20;
    let code = response.status().as_u16();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data);
            }
            if bytes.len() > MAX_BYTES {
                break;
            }
        }
    };
    // The status is read from the part of the body that arrived before the timeout.
    let _ = tokio::time::timeout(UNARY_TIMEOUT, read).await;
    Error::api(Status::from_response(code, &bytes))
}
