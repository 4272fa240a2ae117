//! Services of type LoadBalancer, answered by the nodes themselves: each gets the nodes' addresses.
//!
//! Owns `status.loadBalancer` of Services of that type without a `loadBalancerClass`; those with one are another controller's. The nodes'
//! service proxies carry the traffic. Of two Services that want one port the older gets it: the addresses are the same for all.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/services-networking/service/#loadbalancer>, and k3s' ServiceLB.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use trireme_client::{Client, EventKind, EventRecorder, Informer, Object, ObjectKey, Patch};

use super::labels;
use crate::Error;
use crate::runtime::{Context, Controller, Next, Watches};
use plan::Plan;

/// The controller.
pub(crate) struct LoadBalancers {
    client: Client,
    recorder: EventRecorder,
    services: Arc<Informer<Service>>,
    nodes: Arc<Informer<Node>>,
    slices: Arc<Informer<EndpointSlice>>,
    reserved_ports: Vec<u16>,
}

impl Controller for LoadBalancers {
    const NAME: &'static str = "service-controller";
    const QUEUE: &'static str = "service";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<Service>>, Arc<Informer<Node>>, Arc<Informer<EndpointSlice>>);

    fn new((services, nodes, slices): Self::Reads, context: &Context) -> Option<Self> {
        let reserved_ports = context.options.load_balancer_reserved_ports.clone()?;
        Some(Self { client: context.client.clone(), recorder: context.recorder.clone(), services, nodes, slices, reserved_ports })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        let services = Arc::clone(&self.services);
        watches.on(&self.services, move |event| {
            let mut keys = vec![ObjectKey::of(&**event.object())];
            // What it no longer holds, or is the first to want, another one may get or lose.
            let claims = |service: &Service| (plan::ports(service), plan::node_ports(service));
            if event.is_deletion() || event.old().is_none_or(|old| claims(old) != claims(event.object())) {
                keys.extend(balanced(&services));
            }
            keys
        });
        let services = Arc::clone(&self.services);
        watches.on(&self.nodes, move |event| {
            let is_news = event.is_deletion() || event.old().is_none_or(|old| plan::address(old) != plan::address(event.object()));
            if is_news { balanced(&services) } else { Vec::new() }
        });
        let services = Arc::clone(&self.services);
        watches.on(&self.slices, move |event| {
            let service = labels::service_of(event.object()).and_then(|key| services.get_key(&key));
            service.filter(|service| plan::is_local(service)).map(|service| ObjectKey::of(&*service))
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(service) = self.services.get_key(key).filter(|service| service.metadata.deletion_timestamp.is_none()) else {
            return Ok(Next::Wait);
        };
        let slices = self.slices.list_namespace(service.namespace());
        match plan::plan(&service, &self.services.list(), &self.nodes.list(), &slices, &self.reserved_ports) {
            Plan::NotOurs => {}
            Plan::Refused(reason, message) => {
                self.recorder.record(&*service, EventKind::Warning, reason, message);
                self.write(&service, &[]).await?;
            }
            Plan::Addresses(addresses) => self.write(&service, &addresses).await?,
        }
        Ok(Next::Wait)
    }
}

impl LoadBalancers {
    async fn write(&self, service: &Service, addresses: &[String]) -> Result<(), Error> {
        if plan::shown(service) == addresses {
            return Ok(());
        }
        let ingress: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        let balancer = if ingress.is_empty() { json!({"ingress": null}) } else { json!({"ingress": ingress}) };
        let patch = json!({"metadata": {"uid": service.uid()}, "status": {"loadBalancer": balancer}});
        match self.client.patch_status::<Service>(Some(service.namespace()), service.name(), &Patch::Merge(patch)).await {
            Ok(_) => {
                if !addresses.is_empty() {
                    self.recorder.record(service, EventKind::Normal, "EnsuredLoadBalancer", "Ensured load balancer".to_owned());
                }
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// All Services that nodes are to answer for.
fn balanced(services: &Informer<Service>) -> Vec<ObjectKey> {
    services.list().iter().filter(|service| plan::is_balanced(service)).map(|service| ObjectKey::of(&**service)).collect()
}
