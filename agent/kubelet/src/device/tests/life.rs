//! Plugins come, change and go, and so does the agent.

use std::os::unix::fs::PermissionsExt;

use trireme_proto::deviceplugin::{self as wire, registration_client::RegistrationClient};

use super::{
    super::{
        Amounts,
        double::{Plan, PluginDouble, healthy},
    },
    Bench, GPU, pod,
};
use crate::{error::Error, plugin_call::channel};

#[tokio::test]
async fn the_node_has_what_a_plugin_offers_while_it_is_there() {
    let bench = Bench::start();
    assert!(bench.devices.totals().by_resource.is_empty());
    let plugin = bench.plugin(GPU, &["a", "b", "c"], Plan::default()).await;
    let mut devices = healthy(&["a", "b"]);
    devices[1].health = "Unhealthy".into();
    plugin.offer(devices);
    bench.until("one is unhealthy", || bench.amounts(GPU) == Amounts { capacity: 2, allocatable: 1 }).await;
    drop(plugin);
    bench.until("none can be given", || bench.amounts(GPU) == Amounts { capacity: 2, allocatable: 0 }).await;
    let refused = bench.devices.allocate(&pod("p", 1)).await.unwrap_err().to_string();
    assert_eq!(refused, format!("no healthy devices present; cannot allocate unhealthy devices {GPU}"));
    let _plugin = bench.plugin(GPU, &["a", "b", "c"], Plan::default()).await;
    bench.devices.allocate(&pod("p", 3)).await.unwrap();
}

#[tokio::test]
async fn a_registration_that_cannot_be_taken_is_refused_with_a_reason() {
    let bench = Bench::start();
    let mut client = RegistrationClient::new(channel(bench.root().join("device-plugins/kubelet.sock")));
    for (version, endpoint, resource, why) in [
        ("v1alpha1", "x.sock", GPU, "requested API version"),
        ("v1beta1", "x.sock", "cpu", "is invalid"),
        ("v1beta1", "../x.sock", GPU, "is no name of a plugin's socket"),
        ("v1beta1", "kubelet.sock", GPU, "is no name of a plugin's socket"),
    ] {
        let request =
            wire::RegisterRequest { version: version.into(), endpoint: endpoint.into(), resource_name: resource.into(), options: None };
        let refused = client.register(request).await.unwrap_err();
        assert!(refused.message().contains(why), "{refused}");
    }
    assert!(bench.devices.totals().by_resource.is_empty());
}

#[tokio::test]
async fn a_plugin_that_registers_again_takes_the_place_of_the_earlier_one() {
    let bench = Bench::start();
    let plugin = bench.plugin(GPU, &["a"], Plan::default()).await;
    std::fs::remove_file(bench.root().join("device-plugins/example.com_gpu.sock")).unwrap();
    bench.until("it has registered again", || plugin.count("ListAndWatch") == 2).await;
    plugin.offer(healthy(&["a", "b"]));
    // The end of the first stream says nothing about the second one.
    bench.until("the new one is heard", || bench.amounts(GPU) == Amounts { capacity: 2, allocatable: 2 }).await;
}

#[tokio::test]
async fn a_list_that_is_too_long_ends_the_plugin_and_not_the_agent() {
    let bench = Bench::start();
    let plugin = bench.plugin(GPU, &["a"], Plan::default()).await;
    let long = "x".repeat(5 << 20);
    plugin.offer(healthy(&[&long]));
    bench.until("it is given up", || bench.amounts(GPU) == Amounts { capacity: 1, allocatable: 0 }).await;
}

#[tokio::test]
async fn what_was_given_stays_given_over_a_restart_of_the_agent() {
    let bench = Bench::start();
    let plugin = bench.plugin(GPU, &["a", "b", "c"], Plan::default()).await;
    let (kept, ended) = (pod("kept", 1), pod("ended", 1));
    bench.devices.allocate(&kept).await.unwrap();
    bench.devices.allocate(&ended).await.unwrap();
    let before = bench.ids(&kept, "c");
    let file = bench.root().join("device-plugins/kubelet_internal_checkpoint");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    plugin.change(|plan| plan.hangs = Some("GetDevicePluginOptions"));

    let bench = bench.restart();
    assert_eq!(bench.ids(&kept, "c"), before);
    assert_eq!(bench.amounts(GPU), Amounts::default(), "the plugin has not come back yet");
    let waits = bench.devices.allocate(&pod("early", 1)).await.unwrap_err();
    assert!(matches!(waits, Error::Waiting(_)), "{waits}");
    let waits = bench.prepare(&kept, "c").await.unwrap_err();
    assert!(waits.to_string().contains("has not registered with this agent yet"), "{waits}");
    bench.until("the plugin is asked", || plugin.count("GetDevicePluginOptions") == 2).await;
    // The plugin that hung is begun anew by its owner.
    drop(plugin);
    let plugin = PluginDouble::start(&bench.root(), GPU, &["a", "b", "c"], Plan::default());
    bench.until("it is back", || bench.amounts(GPU).allocatable == 3).await;
    bench.devices.release_others(|uid| uid == "uid-kept");
    let refused = bench.devices.allocate(&pod("big", 3)).await.unwrap_err().to_string();
    assert_eq!(refused, format!("requested number of devices unavailable for {GPU}. Requested: 3, Available: 2"));
    bench.devices.allocate(&pod("next", 2)).await.unwrap();
    assert!(!bench.ids(&pod("next", 2), "c").contains(&before[0]));
    assert_eq!(bench.prepare(&kept, "c").await.unwrap().envs["DEVICES"], before[0], "as it was first told");
    assert_eq!(plugin.count("Allocate"), 1, "{:?}", plugin.calls());
}

#[tokio::test]
async fn a_plugin_notices_the_restart_of_the_agent_by_its_socket() {
    let bench = Bench::start();
    let plugin = bench.plugin(GPU, &["a"], Plan::default()).await;
    let bench = bench.restart();
    bench.until("it has come back by itself", || bench.amounts(GPU) == Amounts { capacity: 1, allocatable: 1 }).await;
    assert!(plugin.count("Register") >= 2);
}

#[tokio::test]
async fn a_node_that_knows_nothing_of_earlier_devices_says_so_once() {
    let bench = Bench::start();
    assert!(bench.devices.totals().is_new);
    bench.devices.reported();
    assert!(!bench.devices.totals().is_new);
    assert!(!bench.restart().devices.totals().is_new);
}
