//! The client that every other part of Trireme uses to talk to the API server.
//!
//! Owns: the [`Transport`] seam (in process on a server, [`HttpsTransport`] elsewhere), the typed and the
//! dynamic [`Client`], [`Informer`]s, the [`WorkQueue`], the [`EventRecorder`], the [`metrics`] that every component has, label selector matching
//! for typed objects, and [`once`], a single request outside the pooled transport.
//!
//! Must not: import the API server or the store. A controller is a client even inside one process; the only
//! addition of the in-process transport over HTTPS is a typed [`Fence`] and [`Identity`] in the request's
//! extensions, which no header can set.
//!
//! Answers to: <https://kubernetes.io/docs/reference/using-api/api-concepts/> and client-go's `tools/cache`
//! and `util/workqueue`.

pub mod backoff;
mod client;
mod decode;
mod error;
mod events;
mod https;
mod informer;
pub mod labels;
mod leader_lease;
pub mod metrics;
mod object;
pub mod once;
mod params;
pub mod placement;
pub mod storage;
mod transport;
mod watch;
mod workqueue;

pub use client::{Client, Typed};
pub use error::{Error, Status};
pub use events::{EventKind, EventRecorder, reference};
pub use https::{Credentials, HttpsOptions, HttpsTransport};
pub use informer::{Event, Index, Informer, InformerOptions, ObjectKey, Subscription, Synced};
pub use leader_lease::publish_leader;
pub use object::{Object, PartialMeta, ResourceType};
pub use params::{DeleteOptions, List, ListOptions, Patch, PatchOptions, Preconditions, Propagation};
pub use transport::{Body, BoxError, Fence, Identity, Transport, TransportError, full_body};
pub use watch::WatchEvent;
pub use workqueue::WorkQueue;
