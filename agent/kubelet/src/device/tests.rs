//! Plugins over real sockets. Time is real: sockets do not follow a paused clock.
#![allow(clippy::unwrap_used)]

mod life;
mod never_twice;
mod pods;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Amounts, Devices, Extras,
    double::{Plan, PluginDouble},
};
use crate::{error::Result, pod::spec};

const GPU: &str = "example.com/gpu";

/// The devices of one node.
struct Bench {
    dir: tempfile::TempDir,
    devices: Arc<Devices>,
    /// The pods that were told that their devices have changed.
    woken: Arc<Mutex<BTreeSet<String>>>,
    cancel: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Bench {
    fn start() -> Bench {
        Bench::on(tempfile::tempdir().unwrap())
    }

    fn on(dir: tempfile::TempDir) -> Bench {
        let cancel = CancellationToken::new();
        let woken: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let told = woken.clone();
        let on_change = Arc::new(move |uid: &str| {
            told.lock().insert(uid.to_owned());
        });
        let devices = Devices::new(dir.path(), on_change, cancel.clone());
        devices.make_folder().unwrap();
        let (served, until) = (devices.clone(), cancel.clone());
        tokio::spawn(async move { until.run_until_cancelled(served.serve()).await });
        Bench { dir, devices, woken, cancel }
    }

    /// What a restart of the agent leaves: the disk, and the plugins.
    fn restart(mut self) -> Bench {
        self.cancel.cancel();
        Bench::on(std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap()))
    }

    fn root(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// A plugin whose devices are known.
    async fn plugin(&self, resource: &str, ids: &[&str], plan: Plan) -> PluginDouble {
        let plugin = PluginDouble::start(&self.root(), resource, ids, plan);
        self.until("its devices are known", || self.amounts(resource).allocatable == ids.len()).await;
        plugin
    }

    fn amounts(&self, resource: &str) -> Amounts {
        self.devices.totals().by_resource.get(resource).copied().unwrap_or_default()
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let met = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), met).await.is_ok(), "never happened: {what}");
    }

    /// What a container that starts gets.
    async fn prepare(&self, pod: &Pod, container: &str) -> Result<Extras> {
        self.devices.prepare(pod, named(pod, container)).await
    }

    /// The ids of the devices that a container has.
    fn ids(&self, pod: &Pod, container: &str) -> Vec<String> {
        self.devices.of_container(spec::uid(pod), container).into_iter().map(|share| share.id).collect()
    }
}

fn named<'a>(pod: &'a Pod, name: &str) -> &'a Container {
    spec::all_containers(pod).find(|(_, container)| container.name == name).unwrap().1
}

fn asks(name: &str, count: u32) -> Value {
    json!({"name": name, "resources": {"limits": {GPU: count.to_string()}}})
}

/// A pod of this name with one container that asks for so many devices.
fn pod(name: &str, count: u32) -> Pod {
    pod_of(name, json!([]), json!([asks("c", count)]))
}

fn pod_of(name: &str, init: Value, main: Value) -> Pod {
    let object = json!({"metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"initContainers": init, "containers": main}});
    serde_json::from_value(object).unwrap()
}
