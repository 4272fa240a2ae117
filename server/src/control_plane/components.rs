//! The endpoints of the components that run in a server: the controllers' on 10257, the scheduler's on 10259.
//!
//! Must not end the server: a port that is in use is logged, and tried again.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trireme_apiserver::ApiServer;
use trireme_apiserver::http::component::Component;
use trireme_apiserver::http::serve::serve;
use trireme_client::metrics::ComponentMetrics;

const CONTROLLERS_PORT: u16 = 10257;
const SCHEDULER_PORT: u16 = 10259;
const LISTEN_AGAIN: Duration = Duration::from_secs(10);

/// What the components count.
pub struct Components {
    /// kube-controller-manager's.
    pub controllers: ComponentMetrics,
    /// kube-scheduler's.
    pub scheduler: ComponentMetrics,
    /// Those that another program does the work of: their ports are left to it.
    left_out: Vec<&'static str>,
}

const MANAGER: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";

impl Components {
    /// Nothing counted yet.
    pub fn new(is_manager_disabled: bool, is_scheduler_disabled: bool) -> Self {
        let left_out = is_manager_disabled.then_some(MANAGER).into_iter().chain(is_scheduler_disabled.then_some(SCHEDULER)).collect();
        Self { controllers: ComponentMetrics::new(), scheduler: ComponentMetrics::new(), left_out }
    }

    /// Serves both, with the API server's certificate, until cancelled.
    pub fn serve(&self, api: &ApiServer, bind: IpAddr, tls: &Arc<rustls::ServerConfig>, cancel: &CancellationToken) {
        let all = [(MANAGER, CONTROLLERS_PORT, self.controllers.clone()), (SCHEDULER, SCHEDULER_PORT, self.scheduler.clone())];
        for (name, port, metrics) in all.into_iter().filter(|(name, ..)| !self.left_out.contains(name)) {
            let component = Arc::new(api.component(name, move || metrics.render()));
            tokio::spawn(serve_one(component, name, SocketAddr::from((bind, port)), tls.clone(), cancel.clone()));
        }
    }
}

async fn serve_one(
    component: Arc<Component>,
    name: &'static str,
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    cancel: CancellationToken,
) {
    let mut said = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if !said => {
                tracing::warn!(component = name, %address, %error, "health and metrics are not served until the port is free");
                said = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LISTEN_AGAIN) => {}
            () = cancel.cancelled() => return,
        }
    };
    serve(component, listener, tls, cancel).await;
}
