//! The cluster under test: its hosts, the load on it, and what "all is well" means.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Node, Pod},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, Patch, PatchParams, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::task::{JoinHandle, block_in_place};
use trireme_harness::{Cluster, Containers, Host, Namespace, eventually};

use super::{
    LIMIT,
    history::{History, judge, reign, reigns},
    load::{LABEL, Load, Writer, read_back},
    pods::{Census, Running, running},
};

const STILL: usize = 4;
const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: still}
spec:
  replicas: 4
  selector: {matchLabels: {app: still}}
  template:
    metadata: {labels: {app: still}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: 'localhost/trireme/box:1', imagePullPolicy: IfNotPresent}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: elastic}
spec:
  replicas: 2
  selector: {matchLabels: {app: elastic}}
  template:
    metadata: {labels: {app: elastic}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: 'localhost/trireme/box:1', imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Service
metadata: {name: elastic}
spec:
  selector: {app: elastic}
  ports: [{port: 80, targetPort: 8080}]
"#;

/// What a fault has touched.
pub struct Touched {
    pub host: String,
    /// Its containers are gone and come back as new attempts.
    pub rebooted: bool,
    /// A leader of a later term must come.
    pub after_term: Option<u64>,
    /// Seconds since 1970 of the fault.
    pub after: i64,
}

pub struct Site {
    cluster: Cluster,
    pub servers: Vec<Host>,
    pub nodes: Vec<Host>,
    clients: Vec<Client>,
    namespace: Namespace,
    pub load: Arc<Load>,
    maps: Option<History<ConfigMap>>,
    leases: Option<History<Lease>>,
    census: Census,
    writers: Vec<JoinHandle<anyhow::Result<()>>>,
    others: Vec<JoinHandle<()>>,
    failed: Arc<Mutex<Option<String>>>,
}

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

impl Site {
    pub fn new(cluster: Cluster, servers: Vec<Host>, nodes: Vec<Host>) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Other tests share these clusters, and every run of this one has a namespace of its own.
        let namespace = block_in_place(|| cluster.namespace("kills"))?;
        let (failed, load) = (Arc::default(), Arc::default());
        Ok(Self {
            cluster,
            servers,
            nodes,
            clients: Vec::new(),
            namespace,
            load,
            maps: None,
            leases: None,
            census: Census::default(),
            writers: Vec::new(),
            others: Vec::new(),
            failed,
        })
    }

    async fn client(&self, server: &Host) -> anyhow::Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.cluster.kubeconfig())?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.cluster_url = format!("https://{}:6443", server.address()?).parse()?;
        // The ledger must know of every attempt.
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(1));
        config.read_timeout = Some(Duration::from_secs(5));
        Ok(Client::try_from(config)?)
    }

    /// Servers' APIs of one kind, beginning with the `first`.
    fn apis<T>(&self, first: usize, api: impl Fn(Client) -> Api<T>) -> Vec<Api<T>> {
        let count = self.clients.len();
        (0..count).map(|n| api(self.clients[(first + n) % count].clone())).collect()
    }

    fn spawn(&mut self, what: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let failed = self.failed.clone();
        self.others.push(tokio::spawn(async move {
            if let Err(error) = task.await {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(format!("{what}: {error:#}"));
            }
        }));
    }

    /// What broke in the background.
    pub fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the workloads, then starts writers, scaler, watches and census.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        for server in &self.servers {
            self.clients.push(self.client(server).await?);
        }
        let ns = self.namespace.name().to_owned();
        block_in_place(|| {
            self.namespace.kubectl_with(&["apply", "-f", "-"], MANIFEST)?;
            self.namespace.kubectl(&["rollout", "status", "deployment/still", "--timeout=90s"])?;
            self.namespace.kubectl(&["rollout", "status", "deployment/elastic", "--timeout=90s"])
        })?;

        let maps = self.apis(0, |client| Api::<ConfigMap>::namespaced(client, &ns));
        let start = revision_of(maps[0].list(&ListParams::default().labels("none=such")).await?.metadata.resource_version)?;
        let history = History::from(start);
        let labels = format!("{}={}", LABEL.0, LABEL.1);
        self.spawn("the watch of ConfigMaps", history.clone().follow(maps, WatchParams::default().labels(&labels)));
        self.maps = Some(history);

        let leases = self.apis(0, |client| Api::<Lease>::namespaced(client, "kube-system"));
        let history = History::from(start);
        self.spawn(
            "the watch of the leader's Lease",
            history.clone().follow(leases, WatchParams::default().fields("metadata.name=kube-controller-manager")),
        );
        self.leases = Some(history);

        for node in self.nodes.clone() {
            self.spawn("the census", self.census.clone().follow(node));
        }
        for n in 0..self.servers.len().max(2) {
            let apis = self.apis(n, |client| Api::<ConfigMap>::namespaced(client, &ns));
            let writer = Writer::new(&format!("w{n}"), self.load.clone(), apis).run();
            let failed = self.failed.clone();
            self.writers.push(tokio::spawn(async move {
                let outcome = writer.await;
                if let Err(error) = &outcome {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(format!("{error:#}"));
                }
                outcome
            }));
        }
        let deployments = self.apis(0, |client| Api::<Deployment>::namespaced(client, &ns));
        self.spawn("the scaler", scale_up_and_down(deployments, self.load.clone()));
        self.until("the first leader's Lease", || async { self.leader().map(drop) }).await
    }

    /// Polls until it holds; background failures end it at once.
    async fn until<F: Future<Output = anyhow::Result<()>>>(&self, what: &str, mut attempt: impl FnMut() -> F) -> anyhow::Result<()> {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(failure) = self.failure() {
                bail!("{failure}");
            }
            match attempt().await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > end => return Err(error.context(format!("waited {} s in vain for {what}", LIMIT.as_secs()))),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Who leads, and since which term.
    pub fn leader(&self) -> anyhow::Result<(Host, u64)> {
        let lease = self.leases.as_ref().context("not started")?.last().context("no Lease seen yet")?;
        let (host, term) = reign(&lease).context("a Lease without a holder")?;
        Ok((Host::named(&host), term))
    }

    pub async fn leads_after(&self, term: u64) -> anyhow::Result<()> {
        self.until("another leader", || async {
            let (host, now) = self.leader()?;
            ensure!(now > term, "{} still leads in term {now}", host.name());
            Ok(())
        })
        .await
    }

    pub async fn writes_since(&self, moment: Instant) -> anyhow::Result<()> {
        self.until("an acknowledged write", || async { self.load.gap(moment, moment).map(drop).context("none yet") }).await
    }

    /// What runs of the untouched Deployment, by node.
    pub async fn still_running(&self) -> anyhow::Result<BTreeMap<String, Running>> {
        let uids: Vec<String> = self.pods("app=still").await?.iter().filter_map(|pod| pod.uid()).collect();
        let mut all = BTreeMap::new();
        for node in &self.nodes {
            let mut running = running(&Containers::of(node).list().await?)?;
            running.retain(|(uid, _), _| uids.contains(uid));
            all.insert(node.name().to_owned(), running);
        }
        Ok(all)
    }

    /// The pods with a label, from whichever server answers.
    async fn pods(&self, labels: &str) -> anyhow::Result<Vec<Pod>> {
        let mut last = None;
        for client in &self.clients {
            match Api::<Pod>::namespaced(client.clone(), self.namespace.name()).list(&ListParams::default().labels(labels)).await {
                Ok(list) => return Ok(list.items),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no server")?.into())
    }

    /// Until every server is ready, every writer writes, every node reports, and every pod runs and says so.
    pub async fn recovered(&self, moment: Instant, touched: &Touched) -> anyhow::Result<()> {
        if let Some(term) = touched.after_term {
            self.leads_after(term).await?;
        }
        self.until("every server to be ready", || async {
            for client in &self.clients {
                client.request_text(http_get("/readyz")?).await?;
            }
            Ok(())
        })
        .await?;
        self.until("every writer to write", || async {
            ensure!(self.load.all_write(self.writers.len(), moment), "some writer has none acknowledged");
            Ok(())
        })
        .await?;
        self.until("every node to report", || self.nodes_report(touched)).await?;
        self.until("every pod to run and say so", || self.pods_agree("app=still", STILL)).await
    }

    async fn nodes_report(&self, touched: &Touched) -> anyhow::Result<()> {
        let client = &self.clients[0];
        for node in &self.nodes {
            let object = Api::<Node>::all(client.clone()).get(node.name()).await?;
            let conditions = object.status.and_then(|status| status.conditions).unwrap_or_default();
            ensure!(
                conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
                "{} is not Ready",
                node.name()
            );
            if touched.host == node.name() {
                let lease = Api::<Lease>::namespaced(client.clone(), "kube-node-lease").get(node.name()).await?;
                let renewed = lease.spec.and_then(|spec| spec.renew_time).context("no renewTime")?.0.as_second();
                ensure!(renewed >= touched.after, "{} has not renewed its Lease since", node.name());
            }
        }
        Ok(())
    }

    /// Each of so many pods has exactly one container, it runs on its node, and its status names it and says Ready.
    async fn pods_agree(&self, labels: &str, count: usize) -> anyhow::Result<()> {
        let pods = self.pods(labels).await?;
        ensure!(pods.len() == count, "{} pods, expected {count}", pods.len());
        let mut runs = Running::new();
        for node in &self.nodes {
            runs.extend(running(&Containers::of(node).list().await?)?);
        }
        for pod in &pods {
            let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
            let status = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_ref())
                .and_then(|list| list.first())
                .context("no container status")?;
            let (id, _) = runs.get(&(uid, "web".to_owned())).with_context(|| format!("{name} does not run"))?;
            ensure!(
                status.ready && status.container_id.as_deref() == Some(&format!("containerd://{id}")),
                "{name}: {id} runs, the status says {status:?}"
            );
        }
        Ok(())
    }

    /// Containers of nodes that kept their power are the same ones as before; on the others each is a later attempt.
    pub fn untouched(
        &self,
        before: &BTreeMap<String, Running>,
        after: &BTreeMap<String, Running>,
        touched: &Touched,
    ) -> anyhow::Result<()> {
        for (node, old) in before {
            let new = after.get(node).context("a node is missing")?;
            if !(touched.rebooted && touched.host == *node) {
                ensure!(old == new, "{node}: running containers were {old:?} and are {new:?}");
                continue;
            }
            ensure!(old.keys().eq(new.keys()), "{node}: before the reboot {old:?}, after it {new:?}");
            for (key, (id, attempt)) in old {
                ensure!(new[key].1 > *attempt && new[key].0 != *id, "{node}: {key:?} was {id} attempt {attempt}, is {:?}", new[key]);
            }
        }
        Ok(())
    }

    /// Ends the load and holds everything against everything.
    pub async fn finish(&mut self) -> anyhow::Result<String> {
        self.load.stop();
        for writer in self.writers.drain(..) {
            writer.await??;
        }
        let ns = self.namespace.name().to_owned();
        let history = self.maps.clone().context("not started")?;
        self.until("the watch to catch up", || async {
            ensure!(history.seen() >= self.load.highest(), "seen {}, acknowledged {}", history.seen(), self.load.highest());
            Ok(())
        })
        .await?;
        let newest = judge(&history.all(), &self.load.ledger())?;
        for (server, client) in self.servers.iter().zip(&self.clients) {
            let list = Api::<ConfigMap>::namespaced(client.clone(), &ns)
                .list(&ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1)))
                .await?;
            let mut stored = BTreeMap::new();
            for map in &list.items {
                stored.insert(map.name_any(), read_back(map)?);
            }
            ensure!(stored == newest, "{} lists {stored:?}, the history ends with {newest:?}", server.name());
        }
        let reigns = reigns(&self.leases.as_ref().context("not started")?.all())?;
        self.workloads_settle().await?;
        if let Some(failure) = self.failure() {
            bail!("{failure}");
        }
        self.others.iter().for_each(JoinHandle::abort);
        let (samples, sandboxes, containers) = self.census.counts();
        let ledger = self.load.ledger();
        Ok(format!(
            "{} writes acknowledged, {} unknown, {} refused, {} leaders; {sandboxes} sandboxes and {containers} containers in {samples} samples, none doubled",
            ledger.acknowledged.len(),
            ledger.unknown.len(),
            ledger.refused.len(),
            reigns.len(),
        ))
    }

    /// The scaled Deployment comes to the wanted number, its Service reaches it, and nothing else of ours runs.
    async fn workloads_settle(&self) -> anyhow::Result<()> {
        block_in_place(|| self.namespace.kubectl(&["scale", "deployment/elastic", "--replicas=3"]))?;
        self.until("three elastic pods", || self.pods_agree("app=elastic", 3)).await?;
        self.until("nothing else to run", || async {
            let pods: Vec<String> = self.pods("").await?.iter().filter_map(|pod| pod.uid()).collect();
            for node in &self.nodes {
                let listing = Containers::of(node).list().await?;
                let ours = |labels: &std::collections::HashMap<String, String>| {
                    labels.get("io.kubernetes.pod.namespace").is_some_and(|ns| ns == self.namespace.name())
                };
                for sandbox in listing.sandboxes.iter().filter(|sandbox| sandbox.state == 0 && ours(&sandbox.labels)) {
                    let metadata = sandbox.metadata.clone().unwrap_or_default();
                    ensure!(pods.contains(&metadata.uid), "{}: a sandbox of {} runs on, and the pod is gone", node.name(), metadata.name);
                }
            }
            Ok(())
        })
        .await?;
        block_in_place(|| {
            let ip = self.namespace.kubectl(&["get", "service", "elastic", "-o", "jsonpath={.spec.clusterIP}"])?;
            for node in &self.nodes {
                eventually("the Service to answer", Duration::from_secs(20), || node.run(&format!("curl -sf --max-time 2 http://{ip}/")))?;
            }
            anyhow::Ok(())
        })
    }
}

async fn scale_up_and_down(deployments: Vec<Api<Deployment>>, load: Arc<Load>) -> anyhow::Result<()> {
    for turn in 0_usize.. {
        if load.stopped() {
            break;
        }
        let replicas = [1, 4, 2, 3][turn % 4];
        let patch = serde_json::json!({"spec": {"replicas": replicas}});
        // A failure is ignored: the next turn sets another number anyway.
        let _ = deployments[turn % deployments.len()].patch_scale("elastic", &PatchParams::default(), &Patch::Merge(&patch)).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    Ok(())
}

fn revision_of(text: Option<String>) -> anyhow::Result<i64> {
    Ok(text.context("no resourceVersion")?.parse()?)
}

fn http_get(path: &str) -> anyhow::Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}
