//! Ends pods that use more local storage than they may, and pods of a node that runs short of memory or disk.
//!
//! Owns the decision; the pod's worker carries it out, as it does with every other verdict. Follows
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/> and
//! <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#resource-emphemeralstorage-consumption>, with upstream's words.
//!
//! `usage` measures, `limits` judges one pod by its limits, `rank` chooses among all pods under pressure. One difference to upstream: a pod whose end
//! would give nothing back is not ended for it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use trireme_proto::cri;

use self::{rank::Candidate, usage::PodUsage};
use crate::{
    amount::Amount,
    core::Core,
    image::collector,
    node::{
        signal::Resource,
        thresholds::{Crossed, Watched},
    },
    pod::{spec, verdict::Verdict},
    pods::Handles,
    runtime::keys,
};

mod limits;
mod rank;
mod usage;

/// Between two looks, as upstream.
const PERIOD: Duration = Duration::from_secs(10);
/// Rounds in which an evicted pod may end before the next one is chosen.
const PATIENCE_ROUNDS: u32 = 3;
/// A pod that exceeds its own limits gets so long to end, as upstream.
const LIMIT_GRACE_SECS: i64 = 1;

/// What the rounds remember.
#[derive(Default)]
struct Evictor {
    /// The pod that was evicted last for the node's sake, and the rounds since.
    last: Option<(String, u32)>,
    watched: Watched,
}

/// Looks again and again until cancelled.
pub(crate) async fn run(core: Arc<Core>, handles: Arc<Handles>) {
    let mut evictor = Evictor::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        evictor.round(&core, &handles).await;
    }
}

impl Evictor {
    async fn round(&mut self, core: &Core, handles: &Handles) {
        let mut pods: Vec<Arc<Pod>> = core.pods.list();
        // As upstream, a static pod is critical.
        pods.retain(|pod| !spec::is_finished(pod) && !spec::is_deleted(pod) && !core.pods.is_static(spec::uid(pod)));
        let crossed = self.still_crossed(core).await;
        let is_limited = pods.iter().any(|pod| limits::has_limits(pod));
        if pods.is_empty() || (crossed.is_none() && !is_limited) {
            self.last = None;
            return;
        }
        let stats = match core.runtime.container_stats().await {
            Ok(stats) => stats,
            Err(error) => {
                tracing::debug!(%error, "what pods use is not known; nothing is evicted");
                return;
            }
        };
        let wanted = crossed.as_ref().map(|crossed| crossed.signal.resource());
        let stats = by_uid(&stats);
        let none = Vec::new();
        let mut measured = Vec::new();
        for pod in &pods {
            let disk = limits::has_limits(pod) || wanted.is_some_and(Resource::is_of_disks);
            let of = stats.get(spec::uid(pod)).unwrap_or(&none);
            let mut usage = usage::measure(pod, of, &core.options, disk).await;
            if wanted == Some(Resource::Pids) {
                usage.pids = core.cgroups.pids(pod);
            }
            if let Some((signal, message)) = limits::exceeded(pod, &usage) {
                evict(core, handles, pod, signal, Verdict::evicted(message, LIMIT_GRACE_SECS));
                continue;
            }
            measured.push((pod.clone(), usage));
        }
        if let Some(crossed) = crossed {
            self.relieve(core, handles, &crossed, &measured);
        }
    }

    /// The threshold that is crossed, memory before disks before process ids.
    async fn crossed(&mut self, core: &Core) -> Option<Crossed> {
        let images = core.runtime.image_folder().await.ok().flatten();
        let readings = core.readings(images.as_deref());
        self.watched.first(&core.options.eviction_hard, &core.options.eviction_soft, &readings, tokio::time::Instant::now())
    }

    /// The threshold that is crossed also when the node has given back what no pod needs.
    async fn still_crossed(&mut self, core: &Core) -> Option<Crossed> {
        let crossed = self.crossed(core).await?;
        if !crossed.signal.resource().is_of_disks() {
            return Some(crossed);
        }
        match collector::remove_unused(core).await {
            Ok(0) => Some(crossed),
            Ok(_) => self.crossed(core).await,
            Err(error) => {
                tracing::debug!(%error, "unused images are not removed");
                Some(crossed)
            }
        }
    }

    /// Evicts one pod, unless the one before is still ending.
    fn relieve(&mut self, core: &Core, handles: &Handles, crossed: &Crossed, measured: &[(Arc<Pod>, PodUsage)]) {
        if let Some((uid, rounds)) = &mut self.last
            && *rounds < PATIENCE_ROUNDS
            && measured.iter().any(|(pod, _)| spec::uid(pod) == uid)
        {
            *rounds += 1;
            return;
        }
        let candidates = measured.iter().map(|(pod, usage)| Candidate { pod, usage });
        let signal = crossed.signal.name();
        let Some(chosen) = rank::choose(candidates, crossed.signal.resource()) else {
            tracing::warn!(signal, "the node is short, and no pod can be evicted for it");
            return;
        };
        self.last = Some((spec::uid(chosen.pod).to_owned(), 0));
        let verdict = Verdict::evicted(rank::message(&chosen, crossed), crossed.grace_secs);
        evict(core, handles, chosen.pod, signal, verdict);
    }
}

fn evict(core: &Core, handles: &Handles, pod: &Pod, signal: &str, verdict: Verdict) {
    tracing::warn!(pod = spec::display(pod), signal, message = verdict.message, "evicting a pod");
    core.metrics.evicted(signal);
    handles.evict(spec::uid(pod), verdict);
}

/// A pod's containers, by its UID.
fn by_uid(all: &[cri::ContainerStats]) -> BTreeMap<String, Vec<&cri::ContainerStats>> {
    let mut pods: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for stats in all {
        if let Some(uid) = stats.attributes.as_ref().and_then(|attributes| attributes.labels.get(keys::POD_UID)) {
            pods.entry(uid.clone()).or_default().push(stats);
        }
    }
    pods
}

/// Bytes as upstream's messages show them: `100Mi`, `90724Ki`.
fn shown(bytes: i64) -> String {
    Amount::from_units(bytes).binary()
}
