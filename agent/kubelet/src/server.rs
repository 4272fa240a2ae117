//! The kubelet API.
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use crate::{core::Core, error::Result, pods::Pods};
pub(crate) struct Server;
pub(crate) async fn bind(_core: &Arc<Core>, _pods: Arc<Pods>) -> Result<Server> { Ok(Server) }
impl Server { pub(crate) async fn run(self, cancel: CancellationToken) { cancel.cancelled().await } }
