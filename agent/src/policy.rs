//! Joins the pod network, which gives pods their addresses, and the enforcement of network policies.

use std::{net::Ipv4Addr, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trireme_client::Client;
use trireme_cni::gate::{Gate, SandboxPod};
use trireme_policy::{Enforcer, PolicyOptions, ruleset, state::Attached};

use crate::{
    error::Error,
    journal::{HostObject, Journal},
};

struct PolicyGate(Arc<Enforcer>);

impl Gate for PolicyGate {
    fn attach<'a>(&'a self, container_id: &'a str, pod: SandboxPod, address: Ipv4Addr) -> BoxFuture<'a, Result<(), String>> {
        let attached = Attached { pod: (pod.namespace, pod.name), uid: pod.uid, address, seen: None };
        async move { self.0.attach(container_id, attached).await }.boxed()
    }

    fn detach(&self, container_id: &str) {
        self.0.detach(container_id);
    }
}

/// Starts the enforcement. No pod is on the network before its rules are in force.
pub(crate) fn start(
    parts: &mut JoinSet<()>,
    journal: &mut Journal,
    client: Client,
    node_name: &str,
    cancel: &CancellationToken,
) -> Result<Arc<dyn Gate>, Error> {
    journal.note(HostObject::NftTable(ruleset::TABLE.into()))?;
    let enforcer = Enforcer::new(PolicyOptions { node_name: node_name.to_owned(), client }, cancel);
    let (running, stop) = (enforcer.clone(), cancel.clone());
    parts.spawn(async move {
        if let Err(error) = running.run(stop).await {
            tracing::error!(%error, "network policies are not enforced on this node");
        }
    });
    Ok(Arc::new(PolicyGate(enforcer)))
}
