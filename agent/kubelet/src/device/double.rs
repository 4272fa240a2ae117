//! A device plugin over real sockets, for tests. It does what plugins of vendors do: it listens beside the kubelet's socket, registers, and
//! begins anew when its own socket is removed.
#![allow(clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::{net::UnixListener, sync::watch};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};
use trireme_proto::{
    deviceplugin::{
        self as wire,
        device_plugin_server::{DevicePlugin, DevicePluginServer},
        registration_client::RegistrationClient,
    },
    pluginregistration::{
        self as registry,
        registration_server::{Registration, RegistrationServer},
    },
};

use crate::plugin_call::channel;

const LOOK: Duration = Duration::from_millis(10);

/// What a plugin offers and does.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) options: wire::DevicePluginOptions,
    /// What is preferred is the last ones of these.
    pub(crate) prefers: Vec<String>,
    /// Every call of this name fails, or does not return.
    pub(crate) fails: Option<&'static str>,
    pub(crate) hangs: Option<&'static str>,
    /// Said in place of a sound answer.
    pub(crate) answer: Option<wire::ContainerAllocateResponse>,
}

#[derive(Clone)]
struct Service {
    devices: watch::Sender<Vec<wire::Device>>,
    calls: Arc<Mutex<Vec<String>>>,
    plan: Arc<Mutex<Plan>>,
    /// Connections outlive their server: what is open ends with this.
    ends: CancellationToken,
}

impl Service {
    async fn enter(&self, call: &'static str, what: &[String]) -> Result<(), Status> {
        self.calls.lock().push(format!("{call} {}", what.join(",")).trim_end().to_owned());
        if self.plan.lock().hangs == Some(call) {
            self.ends.cancelled().await;
        }
        if self.ends.is_cancelled() {
            return Err(Status::unavailable("the plugin has ended"));
        }
        match self.plan.lock().fails == Some(call) {
            true => Err(Status::unknown("no such luck")),
            false => Ok(()),
        }
    }
}

/// What a container with these devices gets.
pub(crate) fn sound_answer(ids: &[String]) -> wire::ContainerAllocateResponse {
    wire::ContainerAllocateResponse {
        envs: [("DEVICES".to_owned(), ids.join(","))].into(),
        mounts: vec![wire::Mount { container_path: "/usr/lib/fake".into(), host_path: "/lib/fake".into(), read_only: true }],
        devices: ids
            .iter()
            .map(|id| wire::DeviceSpec { container_path: format!("/dev/{id}"), host_path: "/dev/null".into(), permissions: "rw".into() })
            .collect(),
        annotations: [("example.com/devices".to_owned(), ids.join(","))].into(),
        cdi_devices: ids.iter().map(|id| wire::CdiDevice { name: format!("example.com/fake={id}") }).collect(),
    }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = std::pin::Pin<Box<dyn Stream<Item = Result<wire::ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(&self, _: Request<wire::Empty>) -> Result<Response<wire::DevicePluginOptions>, Status> {
        self.enter("GetDevicePluginOptions", &[]).await?;
        Ok(Response::new(self.plan.lock().options))
    }

    async fn list_and_watch(&self, _: Request<wire::Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        self.enter("ListAndWatch", &[]).await?;
        let lists = WatchStream::new(self.devices.subscribe()).map(|devices| Ok(wire::ListAndWatchResponse { devices }));
        let lists = lists.take_until(self.ends.clone().cancelled_owned());
        Ok(Response::new(Box::pin(lists)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<wire::PreferredAllocationRequest>,
    ) -> Result<Response<wire::PreferredAllocationResponse>, Status> {
        let wish = request.into_inner().container_requests.remove(0);
        let what = [wish.available_device_ids.join(","), wish.must_include_device_ids.join(","), wish.allocation_size.to_string()];
        self.enter("GetPreferredAllocation", &[what.join(" ")]).await?;
        let device_ids = self.plan.lock().prefers.clone();
        let container_responses = vec![wire::ContainerPreferredAllocationResponse { device_ids }];
        Ok(Response::new(wire::PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(&self, request: Request<wire::AllocateRequest>) -> Result<Response<wire::AllocateResponse>, Status> {
        let ids = request.into_inner().container_requests.remove(0).device_ids;
        self.enter("Allocate", &ids).await?;
        let answer = self.plan.lock().answer.clone().unwrap_or_else(|| sound_answer(&ids));
        Ok(Response::new(wire::AllocateResponse { container_responses: vec![answer] }))
    }

    async fn pre_start_container(
        &self,
        request: Request<wire::PreStartContainerRequest>,
    ) -> Result<Response<wire::PreStartContainerResponse>, Status> {
        self.enter("PreStartContainer", &request.into_inner().device_ids).await?;
        Ok(Response::new(wire::PreStartContainerResponse {}))
    }
}

/// Tells of the plugin in `plugins_registry`.
struct Registrar(registry::PluginInfo, Arc<Mutex<Vec<String>>>);

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<registry::InfoRequest>) -> Result<Response<registry::PluginInfo>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<registry::RegistrationStatus>,
    ) -> Result<Response<registry::RegistrationStatusResponse>, Status> {
        let registry::RegistrationStatus { plugin_registered, error } = request.into_inner();
        self.1.lock().push(format!("NotifyRegistrationStatus {plugin_registered} {error}").trim_end().to_owned());
        Ok(Response::new(registry::RegistrationStatusResponse {}))
    }
}

/// A running plugin. It ends when it is dropped.
pub(crate) struct PluginDouble {
    service: Service,
    socket: PathBuf,
    cancel: CancellationToken,
}

impl Drop for PluginDouble {
    fn drop(&mut self) {
        self.cancel.cancel();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Healthy devices of these ids.
pub(crate) fn healthy(ids: &[&str]) -> Vec<wire::Device> {
    ids.iter().map(|id| wire::Device { id: id.to_string(), health: "Healthy".into(), topology: None }).collect()
}

impl PluginDouble {
    fn new(socket: PathBuf, ids: &[&str], plan: Plan) -> PluginDouble {
        let cancel = CancellationToken::new();
        let (devices, plan) = (watch::Sender::new(healthy(ids)), Arc::new(Mutex::new(plan)));
        let service = Service { devices, calls: Arc::default(), plan, ends: cancel.clone() };
        PluginDouble { service, socket, cancel }
    }

    /// Registers for a resource with the kubelet of this root, and again whenever its socket has been removed.
    pub(crate) fn start(root: &Path, resource: &str, ids: &[&str], plan: Plan) -> PluginDouble {
        let name = format!("{}.sock", resource.replace('/', "_"));
        let plugin = PluginDouble::new(root.join("device-plugins").join(&name), ids, plan);
        let (service, socket, cancel) = (plugin.service.clone(), plugin.socket.clone(), plugin.cancel.clone());
        let (kubelet, resource) = (root.join("device-plugins/kubelet.sock"), resource.to_owned());
        tokio::spawn(cancel.clone().run_until_cancelled_owned(async move {
            loop {
                let served = cancel.child_token();
                let serving = Service { ends: served.clone(), ..service.clone() };
                serve(&socket, Server::builder().add_service(DevicePluginServer::new(serving)), &served);
                let request = wire::RegisterRequest {
                    version: "v1beta1".into(),
                    endpoint: name.clone(),
                    resource_name: resource.clone(),
                    options: None,
                };
                let registered = RegistrationClient::new(channel(kubelet.clone())).register(request).await;
                let said = registered.err().map(|status| status.message().to_owned()).unwrap_or_default();
                service.calls.lock().push(format!("Register {said}").trim_end().to_owned());
                while said.is_empty() && socket.exists() {
                    tokio::time::sleep(LOOK).await;
                }
                served.cancel();
                tokio::time::sleep(LOOK).await;
            }
        }));
        plugin
    }

    /// Registers by a socket in `plugins_registry`.
    pub(crate) fn start_in_registry(root: &Path, resource: &str, ids: &[&str]) -> PluginDouble {
        let plugin = PluginDouble::new(root.join("plugins_registry/gpu-reg.sock"), ids, Plan::default());
        let endpoint = root.join("plugins/gpu.sock");
        serve(&endpoint, Server::builder().add_service(DevicePluginServer::new(plugin.service.clone())), &plugin.cancel);
        let info = registry::PluginInfo {
            r#type: "DevicePlugin".into(),
            name: resource.into(),
            endpoint: endpoint.display().to_string(),
            supported_versions: vec!["v1beta1".into()],
        };
        let registrar = RegistrationServer::new(Registrar(info, plugin.service.calls.clone()));
        serve(&plugin.socket, Server::builder().add_service(registrar), &plugin.cancel);
        plugin
    }

    /// Offers other devices from now on.
    pub(crate) fn offer(&self, devices: Vec<wire::Device>) {
        self.service.devices.send_replace(devices);
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.service.plan.lock());
    }

    /// All calls so far: the call's name, and what it was about.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.service.calls.lock().clone()
    }

    /// How often a call of this name was made.
    pub(crate) fn count(&self, call: &str) -> usize {
        self.calls().iter().filter(|made| made.split(' ').next() == Some(call)).count()
    }
}

fn serve(socket: &Path, router: tonic::transport::server::Router, cancel: &CancellationToken) {
    let _ = std::fs::remove_file(socket);
    let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
    let cancel = cancel.clone();
    tokio::spawn(async move { cancel.run_until_cancelled(router.serve_with_incoming(incoming)).await });
}
