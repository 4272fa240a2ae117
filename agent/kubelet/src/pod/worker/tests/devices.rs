//! Pods with devices of a plugin, over its real socket. Time is real here: sockets do not follow a paused clock.

use serde_json::{Value, json};
use tokio::sync::watch;
use trireme_proto::deviceplugin as wire;

use super::{Bench, one_container};
use crate::{
    device::double::{Plan, PluginDouble, healthy},
    node,
};

const GPU: &str = "example.com/gpu";
const NODE: &str = "/api/v1/nodes/n1";

fn asking(count: u32) -> Value {
    let mut spec = one_container();
    spec["containers"][0]["resources"] = json!({"limits": {GPU: count.to_string()}, "requests": {GPU: count.to_string()}});
    spec["containers"][0]["env"] = json!([{"name": "OWN", "value": "1"}]);
    spec["containers"][0]["command"] = json!(["use", "$(DEVICES)"]);
    spec
}

/// A node with a plugin of two devices, whose first pod comes when they are known.
async fn start(spec: Value, plan: Plan) -> (Bench, PluginDouble) {
    let bench = Bench::start_later(json!({"metadata": {"name": "p"}, "spec": spec})).await;
    bench.core.devices.make_folder().unwrap();
    let (devices, cancel) = (bench.core.devices.clone(), bench.cancel.clone());
    tokio::spawn(async move { cancel.run_until_cancelled(devices.serve()).await });
    let plugin = PluginDouble::start(&bench.core.options.data_dir, GPU, &["a", "b"], plan);
    bench.until("the plugin is known", |b| b.core.devices.totals().by_resource.contains_key(GPU)).await;
    bench.begin();
    (bench, plugin)
}

#[tokio::test]
async fn a_container_starts_with_its_devices_and_gives_them_back_at_its_end() {
    let options = wire::DevicePluginOptions { pre_start_required: true, ..Default::default() };
    let (bench, plugin) = start(asking(1), Plan { options, ..Plan::default() }).await;
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    let config = bench.runtime.config("a").unwrap();
    let envs: Vec<(&str, &str)> = config.envs.iter().map(|env| (env.key.as_str(), env.value.as_str())).collect();
    assert!(envs.contains(&("DEVICES", "a")) && envs.contains(&("OWN", "1")), "{envs:?}");
    assert_eq!(config.command, ["use", "a"]);
    assert_eq!(config.devices.iter().map(|d| (d.container_path.as_str(), d.permissions.as_str())).collect::<Vec<_>>(), [("/dev/a", "rw")]);
    assert!(config.mounts.iter().any(|m| m.container_path == "/usr/lib/fake" && m.readonly), "{:?}", config.mounts);
    assert_eq!(config.annotations["example.com/devices"], "a");
    assert_eq!(config.cdi_devices[0].name, "example.com/fake=a");
    assert_eq!((plugin.count("Allocate"), plugin.count("PreStartContainer")), (1, 1), "{:?}", plugin.calls());

    let health = |b: &Bench| b.container(0)["allocatedResourcesStatus"].clone();
    assert_eq!(health(&bench), json!([{"name": GPU, "resources": [{"resourceID": "a", "health": "Healthy"}]}]));
    let mut devices = healthy(&["a", "b"]);
    devices[0].health = "Unhealthy".into();
    plugin.offer(devices);
    bench.until("its status says so", |b| health(b)[0]["resources"][0]["health"] == "Unhealthy").await;

    bench.runtime.exit("a", 1);
    bench.wake.notify_one();
    bench.until("it runs again", |b| b.container(0)["restartCount"] == 1 && !b.container(0)["state"]["running"].is_null()).await;
    assert_eq!((plugin.count("Allocate"), plugin.count("PreStartContainer")), (1, 2), "{:?}", plugin.calls());

    let uid = bench.api.get(&bench.path).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(bench.core.devices.of_container(&uid, "a").len(), 1);
    bench.change(|pod| {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 1.into();
    });
    bench.until("the object is deleted", |b| b.api.get(&b.path).is_none()).await;
    assert!(bench.core.devices.of_container(&uid, "a").is_empty());
}

#[tokio::test]
async fn a_pod_that_asks_for_more_devices_than_there_are_is_refused_in_upstreams_words() {
    let (bench, plugin) = start(asking(3), Plan::default()).await;
    bench.until("it has failed", |b| b.status()["phase"] == "Failed").await;
    let message = format!(
        "Pod was rejected: Allocate failed due to requested number of devices unavailable for {GPU}. Requested: 3, Available: 2, \
         which is unexpected"
    );
    assert_eq!((&bench.status()["reason"], &bench.status()["message"]), (&json!("UnexpectedAdmissionError"), &json!(message)));
    assert!(bench.has_event(&format!("UnexpectedAdmissionError: {message}")));
    assert_eq!((bench.runtime.calls(), plugin.count("Allocate")), (Vec::new(), 0));
}

#[tokio::test]
async fn a_pod_that_is_deleted_does_not_wait_for_a_plugin_that_hangs() {
    let (bench, plugin) = start(asking(1), Plan { hangs: Some("Allocate"), ..Plan::default() }).await;
    bench.until("the plugin is asked", |_| plugin.count("Allocate") == 1).await;
    bench.change(|pod| {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    });
    let began = tokio::time::Instant::now();
    bench.until("the object is deleted", |b| b.api.get(&b.path).is_none()).await;
    assert!(began.elapsed().as_secs() < 30, "{:?}: the call's own deadline is two minutes", began.elapsed());
    assert_eq!(bench.runtime.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn the_nodes_status_has_the_devices_of_its_plugins() {
    let (bench, plugin) = start(one_container(), Plan::default()).await;
    bench.api.put(NODE, json!({"metadata": {"name": "n1"}, "spec": {}, "status": {"capacity": {"example.com/dongle": "4"}}}));
    let (_up, runtime_up) = watch::channel(true);
    let (core, cancel) = (bench.core.clone(), bench.cancel.clone());
    tokio::spawn(async move { cancel.run_until_cancelled(node::run(core, runtime_up)).await });
    let amounts = |b: &Bench| {
        let status = b.api.get(NODE).unwrap()["status"].clone();
        json!([status["capacity"][GPU], status["allocatable"][GPU], status["capacity"]["example.com/dongle"]])
    };
    // Nothing was known of an earlier kubelet's devices.
    bench.until("they are there", |b| amounts(b) == json!(["2", "2", "0"])).await;
    let mut devices = healthy(&["a", "b", "c"]);
    devices[0].health = "Unhealthy".into();
    plugin.offer(devices);
    bench.until("only healthy ones can be allocated", |b| amounts(b) == json!(["3", "2", "0"])).await;
    drop(plugin);
    bench.until("none can be without a plugin", |b| amounts(b) == json!(["3", "0", "0"])).await;
}
