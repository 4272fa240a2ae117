//! Volumes of a real driver over its sockets, with an API server in memory. Time is real: sockets do not follow a paused clock.
#![allow(clippy::unwrap_used)]

mod life;
mod registration;
mod requests;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_client::EventRecorder;
use trireme_csi_driver::{Driver, Options};

use super::{
    layout::{Form, VolumeId},
    state::{Csi, Parts},
};
use crate::{
    api_double::Api,
    clock::Clock,
    container::fields::Place,
    device::Devices,
    events::Events,
    objects::Objects,
    volume::{self, Mounted, content::token::Tokens},
};

const DRIVER: &str = "d.example.com";
const NODE: &str = "/api/v1/nodes/n1";

/// One node without pods.
struct Bench {
    dir: tempfile::TempDir,
    api: Api,
    csi: Arc<Csi>,
    objects: Objects,
    tokens: Tokens,
    node: Arc<RwLock<Option<Arc<Node>>>>,
    cancel: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Bench {
    fn start() -> Bench {
        let api = Api::new();
        api.put(NODE, json!({"metadata": {"name": "n1"}, "spec": {}, "status": {}}));
        Bench::on(tempfile::tempdir().unwrap(), api)
    }

    fn on(dir: tempfile::TempDir, api: Api) -> Bench {
        let cancel = CancellationToken::new();
        let client = api.client();
        let recorder = EventRecorder::start(client.clone(), "kubelet", "n1", cancel.clone());
        let node: Arc<RwLock<Option<Arc<Node>>>> = Arc::default();
        let root = dir.path().join("kubelet");
        std::fs::create_dir_all(root.join("pods")).unwrap();
        let csi = Csi::new(Parts {
            client: client.clone(),
            node_name: "n1",
            root: &root,
            events: Events::new(recorder, "n1"),
            node: node.clone(),
            devices: Devices::new(&root, Arc::new(|_: &str| {}), cancel.clone()),
            cancel: cancel.clone(),
        });
        csi.make_folders().unwrap();
        let objects = Objects::new(client.clone(), Arc::new(|_: &str| {}), cancel.clone());
        let followed = csi.clone();
        let until = cancel.clone();
        tokio::spawn(async move { until.run_until_cancelled(followed.follow_plugins()).await });
        Bench { dir, api, csi, objects, tokens: Tokens::new(client), node, cancel }
    }

    /// What a restart of the agent leaves: the disk, and the API server.
    fn restart(mut self) -> Bench {
        self.cancel.cancel();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Bench::on(dir, self.api.clone())
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("kubelet")
    }

    fn options(&self, name: &str) -> Options {
        Options::new(name, &self.root(), &self.dir.path().join(name))
    }

    /// A driver that is registered.
    async fn driver(&self, options: Options) -> Driver {
        let name = options.name.clone();
        let driver = Driver::start(options).await.unwrap();
        self.until("it is registered", || self.csi.drivers.get(&name).is_some()).await;
        driver
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let met = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(60), met).await;
        assert!(done.is_ok(), "never happened: {what}; events: {:?}", self.events());
    }

    /// The driver's object: volumes are not attached unless it says so.
    fn about(&self, driver: &str, spec: Value) {
        let mut object = json!({"metadata": {"name": driver}, "spec": {"attachRequired": false}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        self.api.put(&format!("/apis/storage.k8s.io/v1/csidrivers/{driver}"), object);
    }

    /// A claim that is bound to a volume of the driver, both of this name.
    fn claim(&self, name: &str, driver: &str, more: Value) {
        let mut volume = json!({"metadata": {"name": format!("pv-{name}")}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "csi": {"driver": driver, "volumeHandle": name},
            "claimRef": {"namespace": "default", "name": name, "uid": format!("uid-of-{name}")}}});
        for (key, value) in more.as_object().unwrap() {
            match value.as_object().filter(|_| key == "csi") {
                Some(parts) => parts.iter().for_each(|(key, value)| volume["spec"]["csi"][key] = value.clone()),
                None => volume["spec"][key] = value.clone(),
            }
        }
        self.api.put(&format!("/api/v1/persistentvolumes/pv-{name}"), volume);
        let claim = json!({"metadata": {"name": name, "uid": format!("uid-of-{name}")}, "spec": {"volumeName": format!("pv-{name}")},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        self.api.put(&format!("/api/v1/namespaces/default/persistentvolumeclaims/{name}"), claim);
    }

    /// Sets a pod's volumes up as its worker does; an error is what its event says.
    async fn set_up(&self, pod: &Pod) -> Result<BTreeMap<String, Mounted>, String> {
        let pod_dir = self.root().join("pods").join(pod.metadata.uid.as_deref().unwrap());
        let node = self.node.read().clone();
        let place = Place { host_ips: Vec::new(), pod_ips: Vec::new(), allocatable: BTreeMap::new() };
        let context = volume::Context {
            pod,
            pod_dir: &pod_dir,
            place: &place,
            objects: &self.objects,
            tokens: &self.tokens,
            csi: &self.csi,
            node_memory_bytes: 0,
            node: node.as_deref(),
            local_volumes: self.dir.path(),
            now: Clock::Wall.now(),
        };
        volume::set_up(&context).await.map(|prepared| prepared.mounted).map_err(|failure| failure.error.to_string())
    }

    fn events(&self) -> Vec<String> {
        let shown = |e: &Value| format!("{}: {}", e["reason"].as_str().unwrap_or_default(), e["message"].as_str().unwrap_or_default());
        self.api.find("/events/").iter().map(shown).collect()
    }

    /// What a volume of a pod has on disk.
    fn published(&self, uid: &str, name: &str) -> PathBuf {
        self.csi.layout.published(uid, name, Form::FileSystem).unwrap()
    }

    fn staged(&self, handle: &str) -> PathBuf {
        self.csi.layout.staging(&VolumeId { driver: DRIVER.into(), handle: handle.into() }).unwrap()
    }
}

/// A pod with one volume.
fn pod(name: &str, volume: Value) -> Pod {
    let mut volume = volume;
    volume["name"] = json!("data");
    let object = json!({"metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")}, "spec": {
        "serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}], "volumes": [volume]}});
    serde_json::from_value(object).unwrap()
}

fn with_claim(name: &str, claim: &str) -> Pod {
    pod(name, json!({"persistentVolumeClaim": {"claimName": claim}}))
}

/// The calls of a kind, without their names.
fn calls(driver: &Driver, kind: &str) -> Vec<String> {
    let all = driver.calls();
    all.iter().filter_map(|call| call.strip_prefix(kind)?.strip_prefix(' ').map(str::to_owned)).collect()
}
