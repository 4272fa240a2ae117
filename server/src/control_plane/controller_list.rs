//! `/trireme/v1/controllers`: which controllers work on this server, and why others do not.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Response};
use trireme_api::admin::{CONTROLLERS, Controller, ControllerList};
use trireme_apiserver::endpoints::operator::{RouteFamily, RouteRequest, json, method_not_allowed, not_found};
use trireme_apiserver::{Answer, Body};
use trireme_controllers::Controllers;
use trireme_raft::Store;

/// The flag that leaves the scheduler to another one.
const DISABLE_SCHEDULER: &str = "--disable-scheduler";

/// The endpoint.
pub struct ControllersOf {
    store: Store,
    controllers: Arc<Controllers>,
    has_scheduler: bool,
}

impl RouteFamily for ControllersOf {
    fn name(&self) -> &'static str {
        CONTROLLERS
    }

    fn answer(&self, request: RouteRequest) -> BoxFuture<'_, Answer<Response<Body>>> {
        async move {
            match (&request.method, request.parts().as_slice()) {
                (&Method::GET, []) => json(&self.list()),
                (_, []) => Err(method_not_allowed(&request)),
                _ => Err(not_found()),
            }
        }
        .boxed()
    }
}

impl ControllersOf {
    /// Those of this server, whose leadership is the store's.
    pub fn new(store: Store, controllers: Arc<Controllers>, has_scheduler: bool) -> Self {
        Self { store, controllers, has_scheduler }
    }

    fn list(&self) -> ControllerList {
        let of = |name: &str, reason: Option<String>| Controller {
            name: name.to_owned(),
            state: if reason.is_none() { "on" } else { "off" }.to_owned(),
            reason,
        };
        let mut controllers: Vec<Controller> = self.controllers.states().into_iter().map(|state| of(state.name, state.reason)).collect();
        controllers.push(of("kube-scheduler", (!self.has_scheduler).then(|| DISABLE_SCHEDULER.to_owned())));
        controllers.sort_by(|a, b| a.name.cmp(&b.name));
        ControllerList { leads: self.store.status().borrow().leadership.is_some_and(|lead| lead.caught_up), controllers }
    }
}
