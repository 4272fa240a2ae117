//! Which resource and which endpoint a request addresses, if there is one.
//!
//! Owns the answers "no such resource" (404) and "not with this verb" (405): a path that upstream's router has no route for reaches
//! no handler. Metrics use only the resources and endpoints that are resolved here as label values.

use std::sync::Arc;

use trireme_api::resources::{Resource, Subresource};
use trireme_api::status::Status;

use crate::aggregation::table::Remote;
use crate::catalog::rows::{Rows, View};
use crate::endpoints::connect::connector::Connector;
use crate::endpoints::connect::connectors;
use crate::error::Answer;
use crate::http::request_info::RequestInfo;
use crate::http::respond::method_not_allowed;

/// What a request addresses.
#[derive(Clone, Default)]
pub struct Target {
    /// The resource, if one is served under the names and the version in the path.
    pub view: Option<View>,
    /// The extension server that answers instead.
    pub remote: Option<Arc<Remote>>,
    /// The endpoint that carries the request on to a node or a pod.
    pub connector: Option<&'static Connector>,
    /// Whether the use of nodes and pods is asked for, and this server measures it.
    pub is_resource_metrics: bool,
    /// Whether group and version are served at all.
    pub group_version_served: bool,
    /// Whether the request has no bounded duration.
    pub long_running: bool,
}

impl Target {
    /// Looks the names up.
    pub fn resolve(rows: &Rows, info: &RequestInfo) -> Target {
        if !info.resource_request {
            // Tunnels are the only long-running requests outside of resources.
            return Target { long_running: info.path == trireme_tunnel::PATH, ..Target::default() };
        }
        let view = rows.view(&info.group, &info.resource).filter(|view| view.resource.serves(&info.version));
        let view = view.map(|view| view.in_version(&info.version));
        let exists = view.as_ref().is_some_and(|view| view.resource.subresource(&info.subresource).is_some());
        let connector = if exists { connectors::find(&info.group, &info.resource, &info.subresource) } else { None };
        Target {
            long_running: info.verb == "watch" || connector.is_some_and(|connector| connector.is_long_running(&info.query)),
            group_version_served: view.is_some() || rows.serves_group_version(&info.group, &info.version),
            remote: None,
            is_resource_metrics: false,
            connector,
            view,
        }
    }

    /// The resource.
    pub fn resource(&self) -> Option<&Resource> {
        self.view.as_ref().map(|view| &*view.resource)
    }

    /// Whether the path names a resource that this server does not know.
    pub fn is_unknown(&self, info: &RequestInfo) -> bool {
        info.resource_request && self.view.is_none() && self.remote.is_none() && !self.is_resource_metrics
    }

    /// Whether another server answers, which negotiates the form by itself and reads the body.
    pub fn streams_body(&self) -> bool {
        self.connector.is_some() || self.remote.is_some()
    }

    /// Refuses what no endpoint answers. `Ok` with `None` for paths that name no resource, and for unknown groups.
    pub fn check(&self, info: &RequestInfo) -> Answer<()> {
        if !info.resource_request || !self.group_version_served {
            return Ok(());
        }
        let not_found = || Box::new(Status::resource_not_found());
        let resource = self.resource().ok_or_else(not_found)?;
        // Both ways: a namespaced object has a namespace in its path, a cluster-scoped one has none.
        let wrong_scope = if resource.namespaced { info.name_in_path && !info.below_namespace } else { info.below_namespace };
        if info.has_empty_part || wrong_scope {
            return Err(not_found());
        }
        if !info.subresource.is_empty() {
            return self.check_subresource(info, resource.subresource(&info.subresource).ok_or_else(not_found)?);
        }
        let on_collection = matches!(info.verb.as_str(), "list" | "watch" | "create" | "deletecollection") && !info.name_in_path;
        let all_namespaces = resource.namespaced && !info.below_namespace;
        if !resource.has_verb(&info.verb)
            || (info.verb == "create" && info.name_in_path)
            || (!info.name_in_path && !on_collection)
            || (all_namespaces && !matches!(info.verb.as_str(), "list" | "watch"))
        {
            return Err(method_not_allowed());
        }
        Ok(())
    }

    fn check_subresource(&self, info: &RequestInfo, subresource: &Subresource) -> Answer<()> {
        // The old forms `/watch/` and `/proxy/` are authorized with that verb: they exist for objects and collections only.
        let takes_path = self.connector.is_some_and(|connector| connector.takes_path);
        if info.verb_in_path || !(takes_path || matches!(info.remainder.as_str(), "" | "/")) {
            return Err(Status::resource_not_found().into());
        }
        if takes_path || subresource.has_verb(&info.verb) { Ok(()) } else { Err(method_not_allowed()) }
    }
}
