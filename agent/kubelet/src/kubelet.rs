//! Puts the parts together and runs them.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Node;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trireme_client::metrics::{ProcessCollector, register};
use trireme_client::{Event, Informer, InformerOptions};

use crate::{
    cgroup::Cgroups,
    clock::Clock,
    core::{Core, Seams},
    dbus,
    error::{Error, Result},
    eviction, files, image, logs,
    metrics::Operations,
    node,
    options::KubeletOptions,
    pod::kill,
    pod_resources,
    pods::{Handles, Pods},
    runtime::cri::CriRuntime,
    static_pods,
};

/// A running kubelet.
pub struct Kubelet {
    core: Arc<Core>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
    address: Option<SocketAddr>,
}

impl Kubelet {
    /// Starts all parts. Returns as soon as the ports are bound and the directories are there; waiting for the runtime and the
    /// API server goes on inside, so both may come later. Cancelling leaves the pods running.
    pub async fn start(options: KubeletOptions, cancel: CancellationToken) -> Result<Kubelet> {
        let cancel = cancel.child_token();
        let socket = options.runtime_socket()?;
        let pods_dir = options.data_dir.join("pods");
        files::make_directories(&options.pod_logs_dir, 0o755)?;
        files::make_directories(&pods_dir, 0o750)?;
        // Secrets are below it, and their own modes are the pods'.
        let private = std::fs::Permissions::from_mode(0o750);
        std::fs::set_permissions(&pods_dir, private).map_err(Error::io(format!("chmod {}", pods_dir.display())))?;
        let operations = Operations::new();
        let seams = Seams {
            runtime: Arc::new(CriRuntime::new(socket, operations.clone())),
            operations,
            clock: Clock::Wall,
            cgroups: Cgroups::new(&options.cgroup_root),
        };
        let handles: Arc<Handles> = Arc::default();
        let on_change = {
            let handles = handles.clone();
            Arc::new(move |uid: &str| handles.content_changed(uid))
        };
        let core = Core::new(options, seams, on_change, &cancel);
        if core.options.stands_for_process {
            register(&core.metrics.registry, ProcessCollector::new());
        }
        follow_node(&core, &cancel);
        core.csi.make_folders()?;
        core.devices.make_folder()?;
        let pods = Pods::new(core.clone(), handles.clone(), cancel.clone());
        let mut tasks = JoinSet::new();
        let server = crate::server::bind(&core, pods.clone()).await?;
        let address = server.local_addr();
        tasks.spawn(server.run(cancel.clone()));
        tasks.spawn(pods.clone().run());
        let parts: [futures::future::BoxFuture<'static, ()>; 12] = [
            Box::pin(static_pods::follow(core.clone(), pods.clone())),
            Box::pin(static_pods::keep_mirrors(core.clone(), core.pods.mirrors_changed.clone())),
            Box::pin(node::run(core.clone(), pods.runtime_up.subscribe())),
            Box::pin(node::lease::run(core.clone())),
            Box::pin(logs::rotate::run(core.clone())),
            Box::pin(eviction::run(core.clone(), handles)),
            Box::pin(image::collector::run(core.clone())),
            Box::pin(core.csi.clone().introduce()),
            Box::pin(core.csi.clone().follow_plugins()),
            Box::pin(core.csi.clone().follow_usage()),
            Box::pin(core.devices.clone().serve()),
            Box::pin(show_pod_resources(&core)),
        ];
        for part in parts {
            let cancel = cancel.clone();
            tasks.spawn(async move {
                cancel.run_until_cancelled(part).await;
            });
        }
        Ok(Kubelet { core, cancel, tasks, address })
    }

    /// Where the kubelet API listens, if it is served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Stops all parts and waits for them. Pods run on.
    pub async fn shutdown(mut self) {
        self.stop().await;
    }

    async fn stop(&mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends the pods too where the host itself is being shut down, which systemd tells; otherwise they run on. Their hooks and signals
    /// get at most `within`, and each pod no more than its own grace period. Their statuses stay as they are: after the reboot the pods
    /// start again. Answers to <https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/>.
    pub async fn shutdown_with_host(mut self, within: Duration) {
        self.stop().await;
        if within.is_zero() || !crate::clock::blocking(dbus::host_is_stopping) {
            return;
        }
        tracing::info!(seconds = within.as_secs(), "the host is shutting down: pods are ended");
        kill::end_pods(&self.core, within).await;
    }
}

/// Dropping stops all parts without waiting for them.
impl Drop for Kubelet {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Tells readers which devices pods have.
fn show_pod_resources(core: &Arc<Core>) -> impl Future<Output = ()> + use<> {
    let of = core.clone();
    pod_resources::serve(core.options.data_dir.clone(), core.devices.clone(), Box::new(move || of.pods.list()))
}

fn follow_node(core: &Arc<Core>, cancel: &CancellationToken) {
    let this_node = InformerOptions { field_selector: Some(format!("metadata.name={}", core.options.node_name)), ..Default::default() };
    let nodes = Informer::start(core.client.clone(), this_node, cancel.clone());
    let seen = Arc::downgrade(core);
    nodes.on_event(move |event: &Event<Node>| {
        if let (Some(core), Event::Added(node) | Event::Updated { new: node, .. }) = (seen.upgrade(), event) {
            *core.node.write() = Some(node.clone());
        }
    });
}
