//! Puts the parts together and runs them.

use std::{net::SocketAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::RwLock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trireme_client::metrics::{ProcessCollector, register};
use trireme_client::{Event, EventRecorder, Informer, InformerOptions};

use crate::{
    cgroup::Cgroups,
    core::Core,
    error::{Error, Result},
    events::Events,
    image::Images,
    logs,
    machine::Machine,
    metrics::Metrics,
    node,
    objects::Objects,
    options::KubeletOptions,
    pods::{Handles, Pods},
    runtime::Runtime,
    volume::token::Tokens,
};

/// A running kubelet.
pub struct Kubelet {
    handles: Arc<Handles>,
    pods: Arc<Pods>,
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
        for directory in [options.data_dir.join("pods"), options.pod_logs_dir.clone()] {
            std::fs::create_dir_all(&directory).map_err(Error::io(format!("create {}", directory.display())))?;
        }
        let runtime = Runtime::new(socket);
        let client = options.client.clone();
        let handles: Arc<Handles> = Arc::default();
        let machine = Machine::look(&options.data_dir);
        let cgroups = Cgroups::new(&options.cgroup_root);
        cgroups.prepare()?;
        let on_change = {
            let handles = handles.clone();
            Arc::new(move |uid: &str| handles.content_changed(uid))
        };
        let mine = InformerOptions { field_selector: Some(format!("spec.nodeName={}", options.node_name)), ..Default::default() };
        let this_node = InformerOptions { field_selector: Some(format!("metadata.name={}", options.node_name)), ..Default::default() };
        let services =
            options.services.clone().unwrap_or_else(|| Informer::start(client.clone(), InformerOptions::default(), cancel.clone()));
        let recorder = EventRecorder::start(client.clone(), "kubelet", &options.node_name, cancel.clone());
        let core = Arc::new(Core {
            allocatable: machine.allocatable(options.max_pods, &options.reserved),
            machine,
            objects: Objects::new(client.clone(), on_change, cancel.clone()),
            tokens: Tokens::new(client.clone()),
            images: Images::new(runtime.clone()),
            events: Events::new(recorder, &options.node_name),
            services,
            pods: Informer::start_with(client.clone(), mine, |pod: &mut Pod| pod.metadata.managed_fields = None, cancel.clone()),
            node: RwLock::new(None),
            cgroups,
            metrics: Metrics::new(runtime.operations()),
            runtime,
            client: client.clone(),
            options,
        });
        if core.options.stands_for_process {
            register(&core.metrics.registry, ProcessCollector::new());
        }

        let nodes = Informer::start(client, this_node, cancel.clone());
        let seen = Arc::downgrade(&core);
        nodes.on_event(move |event: &Event<Node>| {
            if let (Some(core), Event::Added(node) | Event::Updated { new: node, .. }) = (seen.upgrade(), event) {
                *core.node.write() = Some(node.clone());
            }
        });
        let pods = Pods::new(core.clone(), handles.clone(), cancel.clone());
        let mut tasks = JoinSet::new();
        let server = crate::server::bind(&core, pods.clone()).await?;
        let address = server.local_addr();
        tasks.spawn(server.run(cancel.clone()));
        tasks.spawn(pods.clone().run());
        let parts: [futures::future::BoxFuture<'static, ()>; 3] = [
            Box::pin(node::run(core.clone(), pods.runtime_up.subscribe())),
            Box::pin(node::lease::run(core.clone())),
            Box::pin(logs::rotate::run(core)),
        ];
        for part in parts {
            let cancel = cancel.clone();
            tasks.spawn(async move {
                cancel.run_until_cancelled(part).await;
            });
        }
        Ok(Kubelet { handles, pods, cancel, tasks, address })
    }

    /// Where the kubelet API listens, if it is served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// How many pods have a worker now.
    pub fn pod_count(&self) -> usize {
        self.handles.len()
    }

    /// Whether the container runtime answers.
    pub fn is_runtime_up(&self) -> bool {
        *self.pods.runtime_up.borrow()
    }

    /// Stops all parts and waits for them. Pods run on.
    pub async fn shutdown(mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Whoever lets go of it without waiting stops it all the same.
impl Drop for Kubelet {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
