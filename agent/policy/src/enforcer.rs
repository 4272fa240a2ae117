//! Keeps the table in step with the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::{core::v1::Namespace, networking::v1::NetworkPolicy};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use trireme_client::{Client, Informer, InformerOptions};
use trireme_nft::{Family, OwnedTable};

use crate::{
    Error,
    compile::compile,
    objects::PodAddress,
    ruleset::{self, RuleSet},
    state::{Attached, State},
};

/// Changes that arrive within this time go into one transaction.
const COALESCE: Duration = Duration::from_millis(5);
const RETRY: Duration = Duration::from_secs(1);
/// How long a pod's start waits for its rules. Less than the runtime waits for the network plugin.
const ATTACH_LIMIT: Duration = Duration::from_secs(20);

/// What the enforcement is told at start.
#[derive(Clone)]
pub struct PolicyOptions {
    /// This node's name.
    pub node_name: String,
    /// How the API is asked.
    pub client: Client,
}

/// The network policies of one node.
pub struct Enforcer {
    options: PolicyOptions,
    policies: Arc<Informer<NetworkPolicy>>,
    /// Followed while there is a policy.
    peers: Mutex<Option<Arc<Peers>>>,
    /// By sandbox.
    attached: Mutex<BTreeMap<String, Attached>>,
    changed: Arc<Notify>,
    /// Counts the pods that were given an address.
    asked: AtomicU64,
    in_force: watch::Sender<InForce>,
}

/// Whose rules are in force.
#[derive(Default)]
struct InForce {
    /// Of the pods up to this count,
    asked: u64,
    /// except those of these sandboxes, which the API has not shown yet.
    unknown: BTreeSet<String>,
}

/// What policies select by.
struct Peers {
    namespaces: Arc<Informer<Namespace>>,
    pods: Arc<Informer<PodAddress>>,
    cancel: CancellationToken,
}

impl Enforcer {
    /// Begins to follow the policies, until cancelled.
    pub fn new(options: PolicyOptions, cancel: &CancellationToken) -> Arc<Enforcer> {
        let policies = Informer::start(options.client.clone(), InformerOptions::default(), cancel.clone());
        let changed = Arc::new(Notify::new());
        let poke = changed.clone();
        policies.on_event(move |_| poke.notify_one());
        Arc::new(Enforcer {
            options,
            policies,
            peers: Mutex::new(None),
            attached: Mutex::default(),
            changed,
            asked: AtomicU64::new(0),
            in_force: watch::Sender::default(),
        })
    }

    /// A pod of this node gets an address. Completes when what the policies say of it is in force, or with the reason why that is not so.
    pub async fn attach(&self, container_id: &str, attached: Attached) -> Result<(), String> {
        let name = format!("{}/{}", attached.pod.0, attached.pod.1);
        if tokio::time::timeout(ATTACH_LIMIT, self.attach_and_wait(container_id, attached)).await.is_err() {
            let seconds = ATTACH_LIMIT.as_secs();
            return Err(format!(
                "the network policies for pod {name} are not in force after {seconds} s: the agent's log says why, or the API server cannot be reached"
            ));
        }
        // The runtime may have given up meanwhile, and the address may be another pod's.
        match self.attached.lock().contains_key(container_id) {
            true => Ok(()),
            false => Err(format!("the sandbox of pod {name} was removed")),
        }
    }

    async fn attach_and_wait(&self, container_id: &str, attached: Attached) {
        self.attached.lock().insert(container_id.to_owned(), attached);
        self.policies.wait_synced().await;
        // With the first policy everything is compiled.
        if self.policies.list().is_empty() {
            return;
        }
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.changed.notify_one();
        let mut in_force = self.in_force.subscribe();
        // An error is impossible: the sender lives as long as self.
        drop(in_force.wait_for(|now| now.asked >= asked && !now.unknown.contains(container_id)).await);
    }

    /// A sandbox is gone, and its address with it.
    pub fn detach(&self, container_id: &str) {
        if self.attached.lock().remove(container_id).is_some() {
            self.changed.notify_one();
        }
    }

    /// Programs the kernel until cancelled. The rules stay when it ends: what was isolated must stay so while the agent restarts.
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), Error> {
        let mut table = OwnedTable::new(Family::Ip, ruleset::TABLE)?;
        let mut loaded: Option<RuleSet> = None;
        // Old rules stay in force until everything is known: half of it would cut pods off.
        let known = async { self.policies.wait_synced().await };
        if cancel.run_until_cancelled(known).await.is_none() {
            return Ok(());
        }
        loop {
            if cancel.run_until_cancelled(self.follow_peers(&cancel)).await.is_none() {
                return Ok(());
            }
            if !table.is_intact() {
                loaded = None;
            }
            let wait = match self.sync(&mut table, &mut loaded).await {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%error, "network policies not in step, loading all of them again");
                    loaded = None;
                    Some(RETRY)
                }
            };
            tokio::select! {
                () = self.changed.notified(), if wait.is_none() => tokio::time::sleep(COALESCE).await,
                () = table.disturbed(), if wait.is_none() => {
                    tracing::warn!("somebody else changed or removed the rules of network policies, loading all of them again");
                    // Repeated changes by another program are answered no more often than this.
                    tokio::time::sleep(COALESCE).await;
                }
                () = async { if let Some(wait) = wait { tokio::time::sleep(wait).await } else { std::future::pending().await } } => {}
                () = cancel.cancelled() => return Ok(()),
            }
        }
    }

    /// Begins to follow namespaces and pods with the first policy, and ends it after the last one. Completes when they are known.
    async fn follow_peers(&self, cancel: &CancellationToken) {
        let current = self.peers.lock().clone();
        if self.policies.list().is_empty() {
            if let Some(peers) = current {
                peers.cancel.cancel();
                *self.peers.lock() = None;
            }
            return;
        }
        if current.is_some() {
            return;
        }
        let (client, cancel) = (&self.options.client, cancel.child_token());
        let peers = Peers {
            namespaces: Informer::start(client.clone(), InformerOptions::default(), cancel.clone()),
            pods: Informer::start_for(PodAddress::resource_type(), client.clone(), InformerOptions::default(), cancel.clone()),
            cancel,
        };
        let (of_namespaces, of_pods) = (self.changed.clone(), self.changed.clone());
        peers.namespaces.on_event(move |event| {
            let is_news = event.is_deletion() || event.old().is_none_or(|old| old.metadata.labels != event.object().metadata.labels);
            if is_news {
                of_namespaces.notify_one();
            }
        });
        peers.pods.on_event(move |event| {
            if event.is_deletion() || event.old().is_none_or(|old| is_other(old, event.object())) {
                of_pods.notify_one();
            }
        });
        let began = Instant::now();
        peers.namespaces.wait_synced().await;
        peers.pods.wait_synced().await;
        tracing::info!(pods = peers.pods.list().len(), elapsed = ?began.elapsed(), "network policies are enforced");
        *self.peers.lock() = Some(Arc::new(peers));
    }

    async fn sync(&self, table: &mut OwnedTable, loaded: &mut Option<RuleSet>) -> Result<(), Error> {
        let asked = self.asked.load(Ordering::SeqCst);
        // The first policy came a moment ago: the next round begins with what it selects by.
        let Some(state) = self.state() else { return Ok(()) };
        let rules = compile(&state);
        if loaded.as_ref().is_none_or(|old| old.cut != rules.cut) && !rules.cut.is_empty() {
            tracing::warn!(policies = ?rules.cut, "NetworkPolicies have more than 2000 peers and ports in one direction: only their first rules are allowed");
        }
        let mut transaction = table.transaction();
        match loaded {
            Some(old) => ruleset::difference(&mut transaction, old, &rules),
            None => {
                ruleset::skeleton(&mut transaction);
                ruleset::difference(&mut transaction, &RuleSet::default(), &rules);
            }
        }
        if !transaction.is_empty() {
            table.commit(&transaction).await?;
        }
        *loaded = Some(rules);
        self.in_force.send_replace(InForce { asked, unknown: state.unknown });
        Ok(())
    }

    /// The state to compile. None while policies exist and their namespaces and pods are not listed yet.
    fn state(&self) -> Option<State> {
        let peers = self.peers.lock().clone();
        let policies = self.policies.list();
        let Some(peers) = peers else { return policies.is_empty().then(State::default) };
        let mut attached = self.attached.lock();
        for given in attached.values_mut() {
            if let Some(object) = peers.pods.get(&given.pod.0, &given.pod.1).filter(|object| given.is(object)) {
                given.seen = Some(object);
            }
        }
        Some(State::new(&self.options.node_name, policies, &peers.namespaces.list(), peers.pods.list(), &attached))
    }
}

/// Whether anything has changed that rules are made of.
fn is_other(old: &PodAddress, new: &PodAddress) -> bool {
    old.metadata.labels != new.metadata.labels
        || old.metadata.uid != new.metadata.uid
        || (&old.node_name, old.host_network, old.ended, &old.addresses, &old.ports)
            != (&new.node_name, new.host_network, new.ended, &new.addresses, &new.ports)
}
