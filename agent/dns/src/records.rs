//! What the cluster's names stand for: Services and their endpoints, kept by event, looked up by name.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointSlice},
};
use parking_lot::RwLock;
use trireme_client::{Event, Informer};

/// (namespace, service name).
type ServiceKey = (String, String);

/// The cluster's names. Cheap to share; a look-up takes a read lock only.
#[derive(Default)]
pub struct Cluster {
    state: RwLock<State>,
    is_complete: AtomicBool,
}

#[derive(Default)]
struct State {
    services: HashMap<ServiceKey, Arc<Service>>,
    slices: HashMap<ServiceKey, BTreeMap<String, Arc<EndpointSlice>>>,
    /// The service of each address, for reverse look-ups.
    by_address: HashMap<Ipv4Addr, ServiceKey>,
    namespaces: HashMap<String, usize>,
}

/// A pod behind a headless service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadlessEndpoint {
    /// First label of its own name: its hostname, or its address with dashes.
    pub label: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The slice's ports: (name, protocol in lower case, number).
    pub ports: Vec<(String, String, u16)>,
}

/// What a service's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceRecords {
    /// One virtual address and its ports: (name, protocol in lower case, number).
    ClusterIp(Ipv4Addr, Vec<(String, String, u16)>),
    /// The pods themselves.
    Headless(Vec<HeadlessEndpoint>),
    /// Another name.
    External(String),
}

impl Cluster {
    /// Whether the whole cluster is known.
    pub fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// Says that the whole cluster is known.
    pub fn set_complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }

    /// Follows both informers; the caller says when both have synced.
    pub fn follow(self: &Arc<Self>, services: &Informer<Service>, slices: &Informer<EndpointSlice>) {
        let this = self.clone();
        services.on_event(move |event| this.on_service(event));
        let this = self.clone();
        slices.on_event(move |event| this.on_slice(event));
    }

    /// Takes in a change of a Service.
    pub fn on_service(&self, event: &Event<Service>) {
        let mut state = self.state.write();
        if let Some(old) = event.old() {
            state.remove_service(old);
        }
        match event {
            Event::Deleted(service) => state.remove_service(service),
            other => state.add_service(other.object()),
        }
    }

    /// Takes in a change of an EndpointSlice.
    pub fn on_slice(&self, event: &Event<EndpointSlice>) {
        let mut state = self.state.write();
        if let Some(old) = event.old() {
            state.remove_slice(old);
        }
        match event {
            Event::Deleted(slice) => state.remove_slice(slice),
            other => state.add_slice(other.object()),
        }
    }

    /// What `name.namespace.svc` stands for.
    pub fn service(&self, namespace: &str, name: &str) -> Option<ServiceRecords> {
        let state = self.state.read();
        let key = (namespace.to_owned(), name.to_owned());
        let spec = state.services.get(&key)?.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return spec.external_name.clone().map(ServiceRecords::External);
        }
        if let Some(ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()) {
            let ports = spec.ports.iter().flatten().filter_map(|p| named_port(p.name.as_deref(), p.protocol.as_deref(), p.port));
            return Some(ServiceRecords::ClusterIp(ip, ports.collect()));
        }
        Some(ServiceRecords::Headless(state.endpoints(&key)))
    }

    /// Whether anything is known in a namespace (so that a missing name there is a missing name, not a missing zone).
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.state.read().namespaces.contains_key(namespace)
    }

    /// The name (below the cluster domain) of an address.
    pub fn reverse(&self, address: Ipv4Addr) -> Option<String> {
        let state = self.state.read();
        let key = state.by_address.get(&address)?;
        let (namespace, name) = key;
        let cluster_ip = state.services.get(key).and_then(|s| cluster_ip(s));
        if cluster_ip == Some(address) {
            return Some(format!("{name}.{namespace}.svc"));
        }
        let endpoint = state.endpoints(key).into_iter().find(|e| e.address == address)?;
        Some(format!("{}.{name}.{namespace}.svc", endpoint.label))
    }
}

impl State {
    fn add_service(&mut self, service: &Arc<Service>) {
        let key = (text(&service.metadata.namespace), text(&service.metadata.name));
        if let Some(ip) = cluster_ip(service) {
            self.by_address.insert(ip, key.clone());
        }
        *self.namespaces.entry(key.0.clone()).or_default() += 1;
        self.services.insert(key, service.clone());
    }

    fn remove_service(&mut self, service: &Service) {
        let key = (text(&service.metadata.namespace), text(&service.metadata.name));
        if self.services.remove(&key).is_none() {
            return;
        }
        if let Some(ip) = cluster_ip(service) {
            self.by_address.remove(&ip);
        }
        if let Some(count) = self.namespaces.get_mut(&key.0) {
            *count -= 1;
            if *count == 0 {
                self.namespaces.remove(&key.0);
            }
        }
    }

    fn add_slice(&mut self, slice: &Arc<EndpointSlice>) {
        let Some(key) = slice_key(slice) else { return };
        for address in addresses(slice) {
            // A cluster IP wins; the last service with this pod wins among headless ones.
            if self.services.get(&key).is_none_or(|s| cluster_ip(s).is_none()) {
                self.by_address.insert(address, key.clone());
            }
        }
        self.slices.entry(key).or_default().insert(text(&slice.metadata.name), slice.clone());
    }

    fn remove_slice(&mut self, slice: &EndpointSlice) {
        let Some(key) = slice_key(slice) else { return };
        for address in addresses(slice) {
            if self.by_address.get(&address) == Some(&key) && self.services.get(&key).and_then(|s| cluster_ip(s)) != Some(address) {
                self.by_address.remove(&address);
            }
        }
        if let Some(slices) = self.slices.get_mut(&key) {
            slices.remove(&text(&slice.metadata.name));
            if slices.is_empty() {
                self.slices.remove(&key);
            }
        }
    }

    fn endpoints(&self, key: &ServiceKey) -> Vec<HeadlessEndpoint> {
        let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
        slices.flat_map(|slice| slice.endpoints.iter().flatten().filter_map(|e| headless(slice, e))).collect()
    }
}

fn headless(slice: &EndpointSlice, endpoint: &Endpoint) -> Option<HeadlessEndpoint> {
    if !endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true) {
        return None;
    }
    let address: Ipv4Addr = endpoint.addresses.first()?.parse().ok()?;
    let label = endpoint.hostname.clone().unwrap_or_else(|| address.to_string().replace('.', "-"));
    let ports = slice.ports.iter().flatten().filter_map(|p| named_port(p.name.as_deref(), p.protocol.as_deref(), p.port?));
    Some(HeadlessEndpoint { label, address, ports: ports.collect() })
}

fn named_port(name: Option<&str>, protocol: Option<&str>, port: i32) -> Option<(String, String, u16)> {
    Some((name.unwrap_or_default().to_owned(), protocol.unwrap_or("TCP").to_ascii_lowercase(), u16::try_from(port).ok()?))
}

fn cluster_ip(service: &Service) -> Option<Ipv4Addr> {
    service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
}

fn slice_key(slice: &EndpointSlice) -> Option<ServiceKey> {
    let service = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    (slice.address_type == "IPv4").then(|| (text(&slice.metadata.namespace), service.clone()))
}

fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = Ipv4Addr> {
    slice.endpoints.iter().flatten().filter_map(|e| e.addresses.first()?.parse().ok())
}

fn text(field: &Option<String>) -> String {
    field.clone().unwrap_or_default()
}
