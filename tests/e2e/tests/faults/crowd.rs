//! Work for controllers and scheduler without a node that runs it: a ReplicaSet that grows, nodes that are only records, and a
//! watch that checks that nothing is done twice, or by a deposed leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::task::{JoinHandle, block_in_place};
use trireme_e2e::process::Server;
use trireme_harness::eventually;

use super::{
    LIMIT,
    three::{Three, get, send},
};

const SET: &str = "/apis/apps/v1/namespaces/default/replicasets";
const NODES: usize = 3;
/// A server that stands still leaves its watches silent: look elsewhere then.
const SILENCE: Duration = Duration::from_secs(2);

/// The pods, and all that was ever seen of them.
pub struct Crowd {
    wanted: usize,
    seen: Arc<Mutex<Seen>>,
    watches: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// The nodes that each pod was ever on, by UID.
    pods: BTreeMap<String, BTreeSet<String>>,
    /// The last term in which a leader renewed its Lease.
    term: u64,
    broken: Option<String>,
}

impl Crowd {
    pub async fn start(three: &Three<'_>) -> anyhow::Result<Self> {
        block_in_place(|| make(&three.servers[0]))?;
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let mut clients = Vec::new();
        for server in &three.servers {
            clients.push(client(server).await?);
        }
        let pods = clients.iter().map(|client| Api::<Pod>::namespaced(client.clone(), "default")).collect();
        let leases = clients.iter().map(|client| Api::<Lease>::namespaced(client.clone(), "kube-system")).collect();
        let (of_pods, of_leases) = (seen.clone(), seen.clone());
        let watches = vec![
            tokio::spawn(follow(pods, "metadata.namespace=default", move |event| note(&of_pods, pod_told(&of_pods, event)))),
            tokio::spawn(follow(leases, "metadata.name=kube-controller-manager", move |event| {
                note(&of_leases, lease_told(&of_leases, event));
            })),
        ];
        Ok(Self { wanted: 0, seen, watches })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for so many more, at this server.
    pub fn grow(&mut self, server: &Server<'_>, by: usize) -> anyhow::Result<()> {
        self.wanted += by;
        let scale = json!({"spec": {"replicas": self.wanted}});
        block_in_place(|| eventually("the scale to be taken", LIMIT, || send(server, "PATCH", &format!("{SET}/crowd"), &scale))).map(drop)
    }

    /// Waits until every pod that was asked for is there and has a node, and nothing was done twice on the way.
    pub async fn settle(&self, server: &Server<'_>) -> anyhow::Result<()> {
        block_in_place(|| {
            eventually("every pod to have a node", LIMIT, || {
                let list = get(server, "/api/v1/namespaces/default/pods?labelSelector=app%3Dcrowd")?;
                let items = list["items"].as_array().context("items")?;
                let bound = items.iter().filter(|pod| pod["spec"]["nodeName"].is_string()).count();
                ensure!(items.len() == self.wanted && bound == self.wanted, "{} of {} pods, {bound} with a node", items.len(), self.wanted);
                Ok(())
            })
        })?;
        let told = || {
            let seen = self.seen();
            let bound = seen.pods.values().filter(|nodes| !nodes.is_empty()).count();
            ensure!(seen.broken.is_some() || bound >= self.wanted, "it has told of {bound} of {}", self.wanted);
            Ok(())
        };
        block_in_place(|| eventually("the watch to be told of it", LIMIT, told))?;
        let seen = self.seen();
        if let Some(broken) = &seen.broken {
            bail!("{broken}");
        }
        ensure!(seen.pods.len() == self.wanted, "{} pods were ever made, {} were asked for", seen.pods.len(), self.wanted);
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.watches.iter().for_each(JoinHandle::abort);
    }
}

/// Nodes that say they are ready, and an empty ReplicaSet.
fn make(server: &Server<'_>) -> anyhow::Result<()> {
    eventually("the default service account", LIMIT, || get(server, "/api/v1/namespaces/default/serviceaccounts/default"))?;
    for n in 0..NODES {
        let name = format!("record-{n}");
        send(server, "POST", "/api/v1/nodes", &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}))?;
        let ready = json!({"status": {
            "capacity": {"cpu": "64", "memory": "64Gi", "pods": "10000"}, "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "10000"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": ""}]}});
        send(server, "PATCH", &format!("/api/v1/nodes/{name}/status"), &ready)?;
    }
    let labels = json!({"app": "crowd"});
    let pod = json!({"tolerations": [{"operator": "Exists"}], "containers": [{"name": "c", "image": "none"}]});
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "crowd"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}});
    send(server, "POST", SET, &set).map(drop)
}

async fn client(server: &Server<'_>) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(server.place().path("kubeconfig.yaml"))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.cluster_url = server.url().parse()?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(1));
    Ok(Client::try_from(config)?)
}

fn note(seen: &Mutex<Seen>, told: anyhow::Result<()>) {
    if let Err(error) = told {
        seen.lock().unwrap_or_else(PoisonError::into_inner).broken.get_or_insert(format!("{error:#}"));
    }
}

fn pod_told(seen: &Mutex<Seen>, event: &WatchEvent<Pod>) -> anyhow::Result<()> {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match event {
        WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
            let nodes = seen.pods.entry(pod.uid().context("no uid")?).or_default();
            nodes.extend(pod.spec.as_ref().and_then(|spec| spec.node_name.clone()));
            ensure!(nodes.len() < 2, "{} was bound twice: {nodes:?}", pod.name_any());
        }
        WatchEvent::Deleted(pod) => bail!("{} was one too many: it is deleted", pod.name_any()),
        WatchEvent::Bookmark(_) | WatchEvent::Error(_) => {}
    }
    Ok(())
}

/// A leader's renewal after its successor's would be a write that a fence let through.
fn lease_told(seen: &Mutex<Seen>, event: &WatchEvent<Lease>) -> anyhow::Result<()> {
    let (WatchEvent::Added(lease) | WatchEvent::Modified(lease)) = event else { return Ok(()) };
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()).context("a Lease without a holder")?;
    let term: u64 = holder.rsplit_once('_').context("a holder without a term")?.1.parse()?;
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(term >= seen.term, "{holder} renewed the leader's Lease after term {}", seen.term);
    seen.term = term;
    Ok(())
}

/// Follows a collection from its beginning through whichever server answers, for ever.
async fn follow<T>(servers: Vec<Api<T>>, fields: &str, told: impl Fn(&WatchEvent<T>))
where
    T: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let params = WatchParams::default().fields(fields);
    let (mut server, mut from) = (0, "0".to_owned());
    loop {
        if let Ok(Ok(stream)) = tokio::time::timeout(SILENCE, servers[server].watch(&params, &from)).await {
            let mut stream = stream.boxed();
            while let Ok(Some(Ok(event))) = tokio::time::timeout(SILENCE, stream.next()).await {
                match &event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                        from = object.resource_version().unwrap_or(from);
                    }
                    WatchEvent::Bookmark(mark) => from.clone_from(&mark.metadata.resource_version),
                    WatchEvent::Error(_) => {}
                }
                told(&event);
            }
        }
        server = (server + 1) % servers.len();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
