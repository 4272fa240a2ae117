//! Pods and their devices.

use serde_json::json;
use trireme_proto::{
    deviceplugin as wire,
    podresources::{self, pod_resources_lister_client::PodResourcesListerClient},
};

use super::{
    super::double::{Plan, healthy},
    Bench, GPU, asks, pod, pod_of,
};
use crate::{plugin_call::channel, pod_resources};

#[tokio::test]
async fn a_container_gets_what_its_plugin_says_of_its_devices() {
    let bench = Bench::start();
    let options = wire::DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true };
    let prefers = ["d", "nonsense", "b"].map(String::from).into();
    let plugin = bench.plugin(GPU, &["a", "b", "c", "d"], Plan { options, prefers, ..Plan::default() }).await;
    let pod = pod("p", 3);
    bench.devices.allocate(&pod).await.unwrap();
    assert_eq!(bench.ids(&pod, "c"), ["a", "b", "d"], "the preferred ones, and one more");
    let extras = bench.prepare(&pod, "c").await.unwrap();
    assert_eq!((extras.envs["DEVICES"].as_str(), extras.annotations["example.com/devices"].as_str()), ("a,b,d", "a,b,d"));
    assert_eq!(extras.devices.iter().map(|d| d.container_path.as_str()).collect::<Vec<_>>(), ["/dev/a", "/dev/b", "/dev/d"]);
    assert_eq!(extras.mounts[0].host_path, "/lib/fake");
    assert_eq!(extras.cdi_devices[2].name, "example.com/fake=d");
    bench.devices.allocate(&pod).await.unwrap();
    bench.prepare(&pod, "c").await.unwrap();
    let after_registration: Vec<String> = plugin.calls().into_iter().filter(|call| call.contains(',')).collect();
    let expected = ["GetPreferredAllocation a,b,c,d  3", "Allocate a,b,d", "PreStartContainer a,b,d", "PreStartContainer a,b,d"];
    assert_eq!(after_registration, expected, "devices are asked for once, and the plugin is told of each start");
}

#[tokio::test]
async fn a_pod_that_asks_for_more_than_is_free_is_refused_until_another_ends() {
    let bench = Bench::start();
    let _plugin = bench.plugin(GPU, &["a", "b"], Plan::default()).await;
    bench.devices.allocate(&pod("first", 1)).await.unwrap();
    let second = pod("second", 2);
    let refused = bench.devices.allocate(&second).await.unwrap_err().to_string();
    assert_eq!(refused, format!("requested number of devices unavailable for {GPU}. Requested: 2, Available: 1"));
    bench.devices.release("uid-second");
    bench.devices.release("uid-first");
    bench.devices.allocate(&second).await.unwrap();
    let refused = bench.devices.allocate(&pod("second", 1)).await.unwrap_err().to_string();
    assert!(refused.contains("changed request for resource"), "{refused}");
    // Nobody on this node offers it: it is counted by others.
    let other = pod_of("other", json!([]), json!([{"name": "c", "resources": {"limits": {"example.com/license": "1"}}}]));
    bench.devices.allocate(&other).await.unwrap();
}

#[tokio::test]
async fn devices_of_init_containers_are_used_again_but_those_of_sidecars_are_not() {
    let bench = Bench::start();
    let plugin = bench.plugin(GPU, &["a", "b", "c"], Plan::default()).await;
    let mut sidecar = asks("s", 1);
    sidecar["restartPolicy"] = json!("Always");
    let init = json!([asks("i1", 2), sidecar, asks("i2", 2)]);
    let pod = pod_of("p", init, json!([asks("m1", 1), asks("m2", 1)]));
    bench.devices.allocate(&pod).await.unwrap();
    let has = |container: &str| bench.ids(&pod, container);
    assert_eq!((has("i1"), has("s"), has("i2")), (vec!["a".into(), "b".into()], vec!["a".into()], vec!["b".into(), "c".into()]));
    assert_eq!((has("m1"), has("m2")), (vec!["b".into()], vec!["c".into()]));
    assert_eq!(plugin.count("Allocate"), 5);
}

#[tokio::test]
async fn what_a_plugin_refuses_or_says_badly_is_free_again() {
    let bench = Bench::start();
    let plugin = bench.plugin(GPU, &["a"], Plan { fails: Some("Allocate"), ..Plan::default() }).await;
    let refused = bench.devices.allocate(&pod("p", 1)).await.unwrap_err().to_string();
    assert_eq!(refused, "rpc error: code = Unknown desc = no such luck");
    let relative = wire::Mount { container_path: "x".into(), host_path: "/y".into(), read_only: false };
    let answer = Some(wire::ContainerAllocateResponse { mounts: vec![relative], ..Default::default() });
    plugin.change(|plan| *plan = Plan { answer, ..Plan::default() });
    let refused = bench.devices.allocate(&pod("p", 1)).await.unwrap_err().to_string();
    assert!(refused.contains("\"x\" is no absolute path"), "{refused}");
    plugin.change(|plan| *plan = Plan::default());
    bench.devices.allocate(&pod("q", 1)).await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_hangs_holds_up_nobody_else() {
    let bench = Bench::start();
    let slow = bench.plugin(GPU, &["a"], Plan { hangs: Some("Allocate"), ..Plan::default() }).await;
    let _quick = bench.plugin("example.com/nic", &["n"], Plan::default()).await;
    let hung = pod("hung", 1);
    {
        let allocating = bench.devices.allocate(&hung);
        tokio::pin!(allocating);
        let asked = bench.until("the slow one is asked", || slow.count("Allocate") == 1);
        tokio::select! {
            _ = &mut allocating => panic!("it hangs"),
            () = asked => {}
        }
        let refused = bench.devices.allocate(&pod("late", 1)).await.unwrap_err().to_string();
        assert!(refused.contains("Requested: 1, Available: 0"), "its device is held meanwhile: {refused}");
        let other = pod_of("other", json!([]), json!([{"name": "c", "resources": {"limits": {"example.com/nic": "1"}}}]));
        bench.devices.allocate(&other).await.unwrap();
    }
    slow.change(|plan| plan.hangs = None);
    bench.devices.allocate(&pod("late", 1)).await.unwrap();
    assert_eq!(bench.ids(&hung, "c"), Vec::<String>::new(), "who gave up has nothing");
}

#[tokio::test]
async fn the_pods_of_a_device_that_fails_are_told() {
    let bench = Bench::start();
    let plugin = bench.plugin(GPU, &["a", "b"], Plan::default()).await;
    bench.devices.allocate(&pod("p", 1)).await.unwrap();
    bench.woken.lock().clear();
    let mut devices = healthy(&["a", "b"]);
    devices[1].health = "Unhealthy".into();
    plugin.offer(devices.clone());
    bench.until("it is known", || bench.amounts(GPU).allocatable == 1).await;
    assert!(bench.woken.lock().is_empty(), "nobody has that one");
    devices[0].health = "Unhealthy".into();
    plugin.offer(devices);
    bench.until("its pod is told", || bench.woken.lock().contains("uid-p")).await;
}

#[tokio::test]
async fn readers_see_which_pods_have_which_devices() {
    let bench = Bench::start();
    let plugin = bench.plugin(GPU, &["a", "b"], Plan::default()).await;
    let mut devices = healthy(&["a", "b", "c"]);
    devices[0].topology = Some(wire::TopologyInfo { nodes: vec![wire::NumaNode { id: 1 }] });
    devices[2].health = "Unhealthy".into();
    plugin.offer(devices);
    bench.until("the third one is known", || bench.amounts(GPU).capacity == 3).await;
    let with = pod_of("with", json!([asks("i", 1)]), json!([asks("c", 1), {"name": "d"}]));
    bench.devices.allocate(&with).await.unwrap();
    let mut over = pod("over", 1);
    over.status = Some(serde_json::from_value(json!({"phase": "Succeeded"})).unwrap());
    let pods: Vec<_> = [with, over].map(std::sync::Arc::new).into();
    let serving = pod_resources::serve(bench.root(), bench.devices.clone(), Box::new(move || pods.clone()));
    let (cancel, socket) = (bench.cancel.clone(), bench.root().join("pod-resources/kubelet.sock"));
    tokio::spawn(async move { cancel.run_until_cancelled(serving).await });
    bench.until("it listens", || socket.exists()).await;
    let mut client = PodResourcesListerClient::new(channel(socket));

    let device = |id: &str, node: Option<i64>| podresources::ContainerDevices {
        resource_name: GPU.into(),
        device_ids: vec![id.into()],
        topology: node.map(|id| podresources::TopologyInfo { nodes: vec![podresources::NumaNode { id }] }),
    };
    let container = |name: &str, devices| podresources::ContainerResources { name: name.into(), devices, ..Default::default() };
    let containers = vec![container("c", vec![device("a", Some(1))]), container("d", Vec::new())];
    let expected = podresources::PodResources { name: "with".into(), namespace: "default".into(), containers };
    let list = client.list(podresources::ListPodResourcesRequest {}).await.unwrap().into_inner();
    assert_eq!((list.pod_resources.len(), list.pod_resources.first()), (1, Some(&expected)), "a pod that has ended is left out");
    let get = |name: &str| podresources::GetPodResourcesRequest { pod_name: name.into(), pod_namespace: "default".into() };
    assert_eq!(client.get(get("with")).await.unwrap().into_inner().pod_resources, Some(expected));
    let missing = client.get(get("none")).await.unwrap_err();
    assert_eq!(missing.message(), "pod none in namespace default not found");
    let all = client.get_allocatable_resources(podresources::AllocatableResourcesRequest {}).await.unwrap().into_inner();
    assert_eq!(all.devices, [device("a", Some(1)), device("b", None)]);
    assert!(all.cpu_ids.is_empty() && all.memory.is_empty());
}
