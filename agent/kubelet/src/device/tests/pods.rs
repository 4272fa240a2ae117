//! Pods and their devices.

use serde_json::json;
use trireme_proto::deviceplugin as wire;

use super::{
    super::double::{Plan, healthy},
    Bench, GPU, asks, pod, pod_of,
};

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
