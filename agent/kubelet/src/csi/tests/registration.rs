//! Drivers come and go.

use serde_json::{Value, json};

use super::{Bench, DRIVER, NODE};
use crate::device::double::PluginDouble;
use trireme_csi_driver::{Driver, Options};

const CSI_NODE: &str = "/apis/storage.k8s.io/v1/csinodes/n1";

fn drivers(bench: &Bench) -> Value {
    bench.api.get(CSI_NODE).map(|node| node["spec"]["drivers"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn the_api_is_told_of_a_driver_and_of_its_end() {
    let bench = Bench::start();
    let options = Options { topology: vec![("topology.d.example.com/zone".into(), "z1".into())], max_volumes: 7, ..bench.options(DRIVER) };
    let driver = bench.driver(options).await;
    let expected =
        json!([{"name": DRIVER, "nodeID": "node-1", "topologyKeys": ["topology.d.example.com/zone"], "allocatable": {"count": 7}}]);
    assert_eq!(drivers(&bench), expected);
    assert_eq!(bench.api.get(CSI_NODE).unwrap()["metadata"]["ownerReferences"][0]["name"], "n1");
    let node = bench.api.get(NODE).unwrap();
    assert_eq!(node["metadata"]["labels"]["topology.d.example.com/zone"], "z1");
    assert_eq!(node["metadata"]["annotations"]["csi.volume.kubernetes.io/nodeid"], format!("{{\"{DRIVER}\":\"node-1\"}}"));
    bench.until("its registrar is told", || driver.calls().iter().any(|call| call == "NotifyRegistrationStatus registered")).await;

    drop(driver);
    bench.until("it is forgotten", || bench.csi.drivers.get(DRIVER).is_none() && drivers(&bench) == json!([])).await;
    let ids = || bench.api.get(NODE).unwrap()["metadata"]["annotations"]["csi.volume.kubernetes.io/nodeid"].clone();
    bench.until("its id is forgotten", || ids().is_null()).await;
}

#[tokio::test]
async fn a_driver_that_cannot_be_taken_is_told_why_and_tried_again() {
    let bench = Bench::start();
    let mut node = bench.api.get(NODE).unwrap();
    node["metadata"]["labels"] = json!({"zone": "elsewhere"});
    bench.api.put(NODE, node.clone());
    let driver = Driver::start(Options { topology: vec![("zone".into(), "here".into())], ..bench.options(DRIVER) }).await.unwrap();
    let told = || driver.calls().iter().any(|call| call.contains("not registered: detected topology value collision"));
    bench.until("it is told why", told).await;
    assert!(bench.csi.drivers.get(DRIVER).is_none());
    node["metadata"]["labels"] = json!({});
    bench.api.put(NODE, node);
    bench.until("it is registered", || bench.csi.drivers.get(DRIVER).is_some()).await;
}

#[tokio::test]
async fn a_device_plugin_may_register_where_drivers_do() {
    let bench = Bench::start();
    let plugin = PluginDouble::start_in_registry(&bench.root(), "example.com/gpu", &["a"]);
    let allocatable = || bench.csi.devices.totals().by_resource.get("example.com/gpu").map(|amounts| amounts.allocatable);
    bench.until("its device is known", || allocatable() == Some(1)).await;
    bench.until("it is told", || plugin.calls().iter().any(|call| call == "NotifyRegistrationStatus true")).await;
    std::fs::remove_file(bench.root().join("plugins_registry/gpu-reg.sock")).unwrap();
    bench.until("it is gone with its registration", || allocatable() == Some(0)).await;
}

#[tokio::test]
async fn a_driver_that_hangs_while_it_registers_holds_up_no_other() {
    let bench = Bench::start();
    let options = bench.options("slow.example.com");
    trireme_csi_driver::Faults::new(&options.data).hang("NodeGetInfo");
    let slow = Driver::start(options).await.unwrap();
    bench.until("the slow one is asked", || slow.calls().iter().any(|call| call == "NodeGetInfo")).await;
    let _quick = bench.driver(bench.options(DRIVER)).await;
    assert!(bench.csi.drivers.get("slow.example.com").is_none());
    slow.faults().mend("NodeGetInfo");
    bench.until("the slow one is registered", || bench.csi.drivers.get("slow.example.com").is_some()).await;
}
