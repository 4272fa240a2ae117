//! Which endpoints are near enough for a node: the hints of EndpointSlices. Pure.
//!
//! Answers to <https://kubernetes.io/docs/reference/networking/virtual-ips/#traffic-distribution>: hints count where all ready endpoints have
//! them and one of them names this node or its zone; otherwise the traffic goes to all endpoints.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints};

/// Where this proxy is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Here {
    /// The node's name.
    pub node: String,
    /// The node's zone, if it has one.
    pub zone: Option<String>,
}

/// What the hints of a Service's endpoints say here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Everywhere,
    SameZone,
    SameNode,
}

impl Reach {
    /// From the hints of all ready endpoints.
    pub(crate) fn of<'a>(ready: impl Iterator<Item = &'a Endpoint> + Clone, here: &Here) -> Reach {
        let all_and_any = |hints: fn(&EndpointHints) -> Vec<&str>, name: Option<&str>| {
            let names = |endpoint: &'a Endpoint| endpoint.hints.as_ref().map(hints).unwrap_or_default();
            let is_named = |endpoint: &'a Endpoint| name.is_some_and(|name| names(endpoint).contains(&name));
            ready.clone().all(|endpoint| !names(endpoint).is_empty()) && ready.clone().any(is_named)
        };
        if all_and_any(nodes, Some(&here.node)) {
            Reach::SameNode
        } else if all_and_any(zones, here.zone.as_deref()) {
            Reach::SameZone
        } else {
            Reach::Everywhere
        }
    }

    /// Whether an endpoint is within it.
    pub(crate) fn includes(self, endpoint: &Endpoint, here: &Here) -> bool {
        let hints = endpoint.hints.as_ref();
        match self {
            Reach::Everywhere => true,
            Reach::SameNode => hints.is_some_and(|hints| nodes(hints).contains(&here.node.as_str())),
            Reach::SameZone => hints.is_some_and(|hints| here.zone.as_deref().is_some_and(|zone| zones(hints).contains(&zone))),
        }
    }
}

fn nodes(hints: &EndpointHints) -> Vec<&str> {
    hints.for_nodes.iter().flatten().map(|node| node.name.as_str()).collect()
}

fn zones(hints: &EndpointHints) -> Vec<&str> {
    hints.for_zones.iter().flatten().map(|zone| zone.name.as_str()).collect()
}
