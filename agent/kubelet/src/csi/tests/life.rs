//! A volume's life on a node, through failures, restarts and drivers that hang or lie.

use serde_json::json;

use super::{Bench, DRIVER, calls, pod, with_claim};

#[tokio::test]
async fn a_volume_is_staged_once_and_published_to_each_pod_until_the_last_is_gone() {
    let bench = Bench::start();
    bench.about(DRIVER, json!({}));
    bench.claim("c", DRIVER, json!({"csi": {"fsType": "ext4"}, "mountOptions": ["noatime"]}));
    let driver = bench.driver(bench.options(DRIVER)).await;
    let (first, second) = (with_claim("a", "c"), with_claim("b", "c"));
    let mounted = bench.set_up(&first).await.unwrap();
    assert_eq!(mounted["data"].path, bench.published("uid-a", "pv-c").join("mount"));
    assert!(mounted["data"].path.is_dir() && bench.staged("c").join("globalmount").is_dir());
    bench.set_up(&first).await.unwrap();
    assert_eq!(calls(&driver, "NodeStageVolume"), ["c SINGLE_NODE_WRITER fs=ext4 flags=noatime group= publish= secrets="]);
    assert_eq!(calls(&driver, "NodePublishVolume").len(), 1, "what is there is not published again");
    bench.set_up(&second).await.unwrap();
    bench.csi.release_pod("uid-a").await.unwrap();
    assert!(!bench.published("uid-a", "pv-c").exists());
    bench.csi.release_pod("uid-a").await.unwrap();
    bench.until("the look at the first is over", || bench.csi.cleaning.lock().is_empty()).await;
    assert_eq!(calls(&driver, "NodeUnstageVolume").len(), 0, "the second pod still has it");
    bench.csi.release_pod("uid-b").await.unwrap();
    bench.until("it is unstaged", || !bench.staged("c").exists()).await;
    let count = |kind| calls(&driver, kind).len();
    assert_eq!((count("NodeUnpublishVolume"), count("NodeUnstageVolume")), (2, 1));
}

#[tokio::test]
async fn a_pod_waits_until_its_volume_is_attached_and_keeps_it_attached() {
    let bench = Bench::start();
    bench.about(DRIVER, json!({"attachRequired": true}));
    bench.claim("c", DRIVER, json!({}));
    let driver = bench.driver(bench.options(DRIVER)).await;
    let name = format!("kubernetes.io/csi/{DRIVER}^c");
    let is_in_use = || bench.csi.volumes_in_use() == std::slice::from_ref(&name);
    let says = |used: bool, attached: bool| {
        let volume = json!({"name": name, "devicePath": ""});
        let node = json!({"metadata": {"name": "n1"}, "status": {
            "volumesInUse": if used { vec![name.clone()] } else { vec![] }, "volumesAttached": if attached { vec![volume] } else { vec![] }}});
        *bench.node.write() = Some(std::sync::Arc::new(serde_json::from_value(node).unwrap()));
    };
    let id = super::VolumeId { driver: DRIVER.into(), handle: "c".into() };
    let path = format!("/apis/storage.k8s.io/v1/volumeattachments/{}", id.attachment("n1"));
    let attachment = |status| json!({"metadata": {"name": id.attachment("n1")}, "spec": {"attacher": DRIVER, "nodeName": "n1", "source": {}}, "status": status});
    let user = with_claim("a", "c");
    let set_up = bench.set_up(&user);
    let by_others = async {
        // Each half alone is not enough.
        bench.until("the kubelet wants to use it", is_in_use).await;
        bench.api.put(&path, attachment(json!({"attached": true, "attachmentMetadata": {"device": "7"}})));
        says(false, true);
        tokio::task::yield_now().await;
        says(true, false);
        tokio::task::yield_now().await;
        bench.api.put(&path, attachment(json!({"attached": false})));
        says(true, true);
        assert_eq!(calls(&driver, "NodeStageVolume").len(), 0);
        bench.api.put(&path, attachment(json!({"attached": true, "attachmentMetadata": {"device": "7"}})));
    };
    let (mounted, ()) = tokio::join!(set_up, by_others);
    mounted.unwrap();
    assert!(calls(&driver, "NodeStageVolume")[0].contains("publish=device=7"));
    assert!(is_in_use());
    let bench = bench.restart();
    assert_eq!(bench.csi.volumes_in_use(), [name], "also for the next agent");
    bench.csi.release_pod("uid-a").await.unwrap();
    bench.until("it may be detached", || bench.csi.volumes_in_use().is_empty()).await;
    assert_eq!(calls(&driver, "NodeUnstageVolume"), ["c"]);
}

#[tokio::test]
async fn failures_are_told_in_upstreams_words_and_leave_nothing_behind() {
    let bench = Bench::start();
    bench.about(DRIVER, json!({}));
    bench.about("gone.example.com", json!({}));
    bench.claim("c", DRIVER, json!({}));
    bench.claim("gone", "gone.example.com", json!({}));
    let driver = bench.driver(bench.options(DRIVER)).await;
    let user = with_claim("a", "c");
    driver.faults().fail("NodeStageVolume", "no such disk");
    let said = bench.set_up(&user).await.unwrap_err();
    assert_eq!(said, "MountVolume.MountDevice failed for volume \"pv-c\" : rpc error: code = Internal desc = no such disk");
    driver.faults().mend("NodeStageVolume");
    driver.faults().fail("NodePublishVolume", "no such folder");
    let said = bench.set_up(&user).await.unwrap_err();
    assert_eq!(said, "MountVolume.SetUp failed for volume \"pv-c\" : rpc error: code = Internal desc = no such folder");
    driver.faults().mend("NodePublishVolume");
    driver.faults().lie("NodePublishVolume");
    let said = bench.set_up(&user).await.unwrap_err();
    assert!(said.contains("says that the volume is published, but nothing is at"), "{said}");
    driver.faults().mend("NodePublishVolume");
    bench.csi.release_pod("uid-a").await.unwrap();
    bench.until("what was staged is unstaged", || !bench.staged("c").exists()).await;
    let said = bench.set_up(&with_claim("b", "gone")).await.unwrap_err();
    let expected = "MountVolume.MountDevice failed for volume \"pv-gone\" : kubernetes.io/csi: attacher.MountDevice failed to create \
                    newCsiDriverClient: driver name gone.example.com not found in the list of registered CSI drivers";
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_driver_that_hangs_holds_up_its_own_volume_only_and_not_the_end_of_its_pod() {
    let bench = Bench::start();
    for driver in [DRIVER, "other.example.com"] {
        bench.about(driver, json!({}));
    }
    bench.claim("c", DRIVER, json!({}));
    bench.claim("other", "other.example.com", json!({}));
    let driver = bench.driver(bench.options(DRIVER)).await;
    let _other = bench.driver(bench.options("other.example.com")).await;
    driver.faults().hang("NodePublishVolume");
    let user = with_claim("a", "c");
    let asked = || bench.until("the driver is asked", || !calls(&driver, "NodePublishVolume").is_empty());
    tokio::select! {
        outcome = bench.set_up(&user) => panic!("it hangs: {outcome:?}"),
        () = asked() => {}
    }
    bench.set_up(&with_claim("b", "other")).await.unwrap();
    // The pod is deleted: what the driver was asked for is undone, because it may yet do it.
    bench.csi.release_pod("uid-a").await.unwrap();
    assert_eq!(calls(&driver, "NodeUnpublishVolume"), ["c"]);
    bench.until("it is unstaged", || !bench.staged("c").exists()).await;
}

#[tokio::test]
async fn what_an_earlier_agent_published_is_released_by_the_next() {
    let bench = Bench::start();
    bench.about(DRIVER, json!({}));
    bench.claim("c", DRIVER, json!({}));
    bench.claim("half", DRIVER, json!({}));
    let driver = bench.driver(bench.options(DRIVER)).await;
    bench.set_up(&with_claim("a", "c")).await.unwrap();
    driver.faults().fail("NodePublishVolume", "no");
    bench.set_up(&with_claim("b", "half")).await.unwrap_err();
    driver.faults().mend("NodePublishVolume");
    let bench = bench.restart();
    bench.csi.clean_all();
    bench.until("what no pod got is unstaged", || !bench.staged("half").exists()).await;
    assert!(bench.staged("c").exists() && bench.csi.holds("uid-a").unwrap());
    driver.faults().fail("NodeUnpublishVolume", "busy");
    let said = bench.csi.release_pod("uid-a").await.unwrap_err().to_string();
    assert_eq!(said, "UnmountVolume.TearDown failed for volume \"pv-c\" : rpc error: code = Internal desc = busy");
    assert!(bench.staged("c").exists(), "what is not unpublished is not unstaged");
    driver.faults().mend("NodeUnpublishVolume");
    bench.csi.release_pod("uid-a").await.unwrap();
    bench.until("it is unstaged", || !bench.staged("c").exists()).await;
}

#[tokio::test]
async fn a_pod_that_comes_while_its_volume_is_unstaged_gets_it_staged_again() {
    let bench = Bench::start();
    bench.about(DRIVER, json!({}));
    bench.claim("c", DRIVER, json!({}));
    let driver = bench.driver(bench.options(DRIVER)).await;
    bench.set_up(&with_claim("a", "c")).await.unwrap();
    driver.faults().hang("NodeUnstageVolume");
    bench.csi.release_pod("uid-a").await.unwrap();
    bench.until("it is being unstaged", || calls(&driver, "NodeUnstageVolume").len() == 1).await;
    let next = with_claim("b", "c");
    let mend = async {
        let id = super::VolumeId { driver: DRIVER.into(), handle: "c".into() };
        bench.until("the next pod wants it", || bench.csi.is_used(&id)).await;
        driver.faults().mend("NodeUnstageVolume");
    };
    let (mounted, ()) = tokio::join!(bench.set_up(&next), mend);
    mounted.unwrap();
    bench.until("the task is over", || bench.csi.cleaning.lock().is_empty()).await;
    assert_eq!((calls(&driver, "NodeStageVolume").len(), calls(&driver, "NodeUnstageVolume").len()), (2, 1));
    assert!(bench.staged("c").join("globalmount").is_dir());
}

#[tokio::test]
async fn an_inline_volume_is_published_for_its_pod_alone() {
    let bench = Bench::start();
    bench.about(DRIVER, json!({"volumeLifecycleModes": ["Ephemeral"]}));
    let driver = bench.driver(bench.options(DRIVER)).await;
    let user = pod("a", json!({"csi": {"driver": DRIVER, "volumeAttributes": {"size": "small"}}}));
    let mounted = bench.set_up(&user).await.unwrap();
    assert!(mounted["data"].path.ends_with("pods/uid-a/volumes/kubernetes.io~csi/data/mount"));
    assert_eq!(calls(&driver, "NodeStageVolume").len(), 0);
    assert!(calls(&driver, "NodePublishVolume")[0].starts_with("csi-"));
    bench.csi.release_pod("uid-a").await.unwrap();
    assert_eq!(calls(&driver, "NodeUnpublishVolume").len(), 1);
    bench.about(DRIVER, json!({"volumeLifecycleModes": ["Persistent"]}));
    let said = bench.set_up(&pod("b", json!({"csi": {"driver": DRIVER}}))).await.unwrap_err();
    assert!(said.contains("volume mode \"Ephemeral\" not supported by driver d.example.com (only supports [\"Persistent\"])"), "{said}");
}

#[tokio::test]
async fn a_block_volume_is_a_device_beside_the_pods_folders() {
    let bench = Bench::start();
    bench.about(DRIVER, json!({}));
    bench.claim("c", DRIVER, json!({"volumeMode": "Block"}));
    let driver = bench.driver(bench.options(DRIVER)).await;
    let mut user = with_claim("a", "c");
    let device = json!([{"name": "data", "devicePath": "/dev/xvda"}]);
    user.spec.as_mut().unwrap().containers[0].volume_devices = serde_json::from_value(device).unwrap();
    let mounted = bench.set_up(&user).await.unwrap();
    assert!(mounted["data"].is_device && mounted["data"].path.ends_with("pods/uid-a/volumeDevices/kubernetes.io~csi/pv-c/device"));
    assert!(calls(&driver, "NodePublishVolume")[0].starts_with("c SINGLE_NODE_WRITER block"));
    bench.csi.release_pod("uid-a").await.unwrap();
    assert!(!mounted["data"].path.parent().unwrap().exists());
    bench.until("it is unstaged", || !bench.staged("c").exists()).await;
    driver.faults().fail("NodeStageVolume", "no");
    let said = bench.set_up(&user).await.unwrap_err();
    assert!(said.starts_with("MapVolume.SetUpDevice failed for volume \"pv-c\" : "), "{said}");
}
