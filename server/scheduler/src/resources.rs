//! What pods ask for and nodes have, in whole numbers: cpu in thousandths, everything else in units. No I/O.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use trireme_api::quantity::Quantity;

pub(crate) const CPU: &str = "cpu";
pub(crate) const MEMORY: &str = "memory";
pub(crate) const PODS: &str = "pods";
/// What scoring takes for a container that asks for nothing, so that such pods spread too.
const DEFAULT_CPU_MILLI: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 << 20;

/// Amounts by resource name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts(BTreeMap<String, i64>);

type List = BTreeMap<String, Text>;

impl Amounts {
    pub(crate) fn of(list: Option<&List>) -> Self {
        Self(list.into_iter().flatten().map(|(name, text)| (name.clone(), amount(name, text))).collect())
    }

    pub(crate) fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub(crate) fn add(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_insert(0);
            *known = known.saturating_add(*amount);
        }
    }

    pub(crate) fn subtract(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_insert(0);
            *known = known.saturating_sub(*amount);
        }
        self.0.retain(|_, amount| *amount != 0);
    }

    fn raise(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_insert(0);
            *known = (*known).max(*amount);
        }
    }
}

fn amount(name: &str, text: &Text) -> i64 {
    let Ok(quantity) = text.0.parse::<Quantity>() else { return 0 };
    if name == CPU { quantity.milli_value() } else { quantity.value() }
}

/// What a pod asks for: the larger of what its containers need together and what its start needs at the worst moment, plus
/// overhead. `defaults`: with scoring's assumptions for those that ask for nothing.
pub(crate) fn requests(pod: &Pod, defaults: bool) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::default() };
    let of = |container: &Container| container_requests(pod, container, defaults);
    let mut total = Amounts::default();
    for container in &spec.containers {
        total.add(&of(container));
    }
    // Sidecars run on; each plain init container runs beside the sidecars before it.
    let mut sidecars = Amounts::default();
    let mut worst = Amounts::default();
    for container in spec.init_containers.iter().flatten() {
        let mut moment = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&moment);
            sidecars.add(&moment);
            moment = sidecars.clone();
        } else {
            moment.add(&sidecars);
        }
        worst.raise(&moment);
    }
    total.raise(&worst);
    // What is asked for the pod as a whole counts in place of the sum of its containers.
    let whole = Amounts::of(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    for (name, amount) in whole.0 {
        total.0.insert(name, amount);
    }
    total.add(&Amounts::of(spec.overhead.as_ref()));
    total
}

/// What a container takes: while it is resized, the most of what it asks for, was promised and has. Upstream counts like this
/// so that neither of two nodes' worth of room is given away before the kubelet has decided.
fn container_requests(pod: &Pod, container: &Container, defaults: bool) -> Amounts {
    let mut amounts = Amounts::of(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    if let Some(status) = container_status(pod, &container.name)
        && let Some(actual) = &status.resources
    {
        let promised = Amounts::of(status.allocated_resources.as_ref());
        if resize_is_infeasible(pod) {
            amounts = promised;
        } else {
            amounts.raise(&promised);
        }
        amounts.raise(&Amounts::of(actual.requests.as_ref()));
    }
    if defaults {
        amounts.0.entry(CPU.to_owned()).or_insert(DEFAULT_CPU_MILLI);
        amounts.0.entry(MEMORY.to_owned()).or_insert(DEFAULT_MEMORY_BYTES);
    }
    amounts
}

fn container_status<'p>(pod: &'p Pod, name: &str) -> Option<&'p ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    all.into_iter().find(|status| status.name == name)
}

fn resize_is_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible"))
}
