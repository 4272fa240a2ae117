//! Scheduler and kubelets in one: binds pods, starts them and ends them, each step after a time that follows from a seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fake_api::FakeApi;
use crate::{is_ready, name, text};

/// What a pod's template carries so that its deletion takes time.
pub const FINALIZER: &str = "example.com/running";

/// The image that never becomes ready.
pub const BROKEN: &str = "broken";

/// The nodes' doubles.
#[derive(Clone)]
pub struct Nodes {
    /// Pods fail, are killed and lose their readiness.
    trouble: Arc<AtomicBool>,
}

impl Nodes {
    pub fn start(api: FakeApi, seed: u64, cancel: &CancellationToken) -> Self {
        let nodes = Self { trouble: Arc::default() };
        let (me, cancel) = (nodes.clone(), cancel.clone());
        tokio::spawn(async move { cancel.run_until_cancelled(me.run(api, StdRng::seed_from_u64(seed))).await });
        nodes
    }

    pub fn set_trouble(&self, trouble: bool) {
        self.trouble.store(trouble, Ordering::Relaxed);
    }

    async fn run(self, api: FakeApi, mut random: StdRng) {
        loop {
            for pod in api.list("pods") {
                if random.random_bool(0.6) {
                    self.step(&api, &pod, &mut random);
                }
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(20..200))).await;
        }
    }

    fn step(&self, api: &FakeApi, pod: &Value, random: &mut StdRng) {
        let edit = |change: &dyn Fn(&mut Value)| api.edit("pods", "ns", name(pod), change);
        let phase = text(&pod["status"]["phase"]);
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            edit(&|pod| pod["metadata"]["finalizers"] = json!([]));
        } else if text(&pod["spec"]["nodeName"]).is_empty() {
            let node = target(pod);
            edit(&|pod| {
                pod["spec"]["nodeName"] = json!(node);
                pod["status"]["phase"] = json!("Pending");
            });
        } else if phase == "Pending" {
            edit(&|pod| pod["status"]["phase"] = json!("Running"));
        } else if phase == "Running" && !is_ready(pod) && crate::image(pod) != BROKEN {
            edit(&|pod| pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]));
        } else if self.trouble.load(Ordering::Relaxed) {
            match random.random_range(0..40) {
                0 => edit(&|pod| pod["status"]["phase"] = json!("Failed")),
                1 => edit(&|pod| pod["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}])),
                2 => api.delete("pods", "ns", name(pod), "Background"),
                _ => {}
            }
        }
    }
}

fn target(pod: &Value) -> String {
    let required = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let node = &required["nodeSelectorTerms"][0]["matchFields"][0]["values"][0];
    node.as_str().unwrap_or("n0").to_owned()
}
