//! What a driver is told with the calls, and what it tells.

use std::os::unix::fs::MetadataExt;

use serde_json::json;
use trireme_csi_driver::Options;
use trireme_proto::csi::node_service_capability::rpc::Type;

use super::{Bench, DRIVER, calls, pod, with_claim};

#[tokio::test]
async fn a_driver_is_told_of_pod_tokens_secrets_and_group() {
    let bench = Bench::start();
    bench.about(
        DRIVER,
        json!({"podInfoOnMount": true, "tokenRequests": [{"audience": "vault"}], "volumeLifecycleModes": ["Persistent", "Ephemeral"]}),
    );
    bench.api.put("/api/v1/namespaces/secret/secrets/s", json!({"metadata": {"name": "s"}, "data": {"key": "dmFsdWU="}}));
    let secret = json!({"namespace": "secret", "name": "s"});
    bench.claim(
        "c",
        DRIVER,
        json!({"accessModes": ["ReadWriteOncePod"], "csi": {"nodeStageSecretRef": secret, "nodePublishSecretRef": secret}}),
    );
    let abilities = vec![Type::StageUnstageVolume, Type::VolumeMountGroup, Type::SingleNodeMultiWriter];
    let driver = bench.driver(Options { abilities, ..bench.options(DRIVER) }).await;
    let mut user = with_claim("a", "c");
    user.spec.as_mut().unwrap().security_context = Some(serde_json::from_value(json!({"fsGroup": 4242})).unwrap());
    user.spec.as_mut().unwrap().volumes.as_mut().unwrap()[0].persistent_volume_claim.as_mut().unwrap().read_only = Some(true);
    bench.set_up(&user).await.unwrap();
    let staged = calls(&driver, "NodeStageVolume").remove(0);
    assert_eq!(staged, "c SINGLE_NODE_SINGLE_WRITER fs= flags= group=4242 publish= secrets=key=value");
    let published = calls(&driver, "NodePublishVolume").remove(0);
    for part in [
        "group=4242 readonly=true",
        "csi.storage.k8s.io/ephemeral=false",
        "csi.storage.k8s.io/pod.name=a,csi.storage.k8s.io/pod.namespace=default,csi.storage.k8s.io/pod.uid=uid-a",
        "csi.storage.k8s.io/serviceAccount.name=robot",
        "serviceAccount.tokens={\"vault\":{\"expirationTimestamp\":\"2036-01-01T00:00:00Z\",\"token\":\"the-token\"}}",
        "secrets=key=value",
    ] {
        assert!(published.contains(part), "{part} in {published}");
    }
    bench.about(
        DRIVER,
        json!({"tokenRequests": [{"audience": ""}], "serviceAccountTokenInSecrets": true, "volumeLifecycleModes": ["Ephemeral"]}),
    );
    bench.set_up(&pod("b", json!({"csi": {"driver": DRIVER}}))).await.unwrap();
    let published = calls(&driver, "NodePublishVolume").remove(1);
    assert!(published.contains("context= secrets=csi.storage.k8s.io/serviceAccount.tokens={\"\":"), "{published}");
}

#[tokio::test]
async fn a_group_gets_the_files_as_the_driver_allows() {
    for (policy, fs_type, mode, expected) in [
        (None, "ext4", "ReadWriteOnce", true),
        (None, "", "ReadWriteOnce", false),
        (None, "ext4", "ReadWriteMany", false),
        (Some("File"), "", "ReadWriteMany", true),
        (Some("None"), "ext4", "ReadWriteOnce", false),
    ] {
        let bench = Bench::start();
        bench.about(DRIVER, policy.map_or(json!({}), |policy| json!({"fsGroupPolicy": policy})));
        bench.claim("c", DRIVER, json!({"accessModes": [mode], "csi": {"fsType": fs_type}}));
        let _driver = bench.driver(bench.options(DRIVER)).await;
        let mut user = with_claim("a", "c");
        user.spec.as_mut().unwrap().security_context = Some(serde_json::from_value(json!({"fsGroup": 4242})).unwrap());
        let mounted = bench.set_up(&user).await.unwrap();
        let group = std::fs::metadata(&mounted["data"].path).unwrap().gid();
        assert_eq!(group == 4242, expected, "{policy:?} {fs_type:?} {mode}");
    }
}

#[tokio::test]
async fn a_volume_that_grew_is_expanded_and_the_claim_says_so() {
    let bench = Bench::start();
    bench.about(DRIVER, json!({}));
    bench.claim("c", DRIVER, json!({"capacity": {"storage": "2Gi"}}));
    let options = Options { abilities: vec![Type::ExpandVolume], ..bench.options(DRIVER) };
    let driver = bench.driver(options).await;
    driver.faults().fail("NodeExpandVolume", "not now");
    let user = with_claim("a", "c");
    bench.set_up(&user).await.unwrap();
    let failed =
        "VolumeResizeFailed: NodeExpandVolume.NodeExpandVolume failed for volume \"pv-c\" : rpc error: code = Internal desc = not now";
    bench.until("the failure is told", || bench.events().iter().any(|event| event == failed)).await;
    driver.faults().mend("NodeExpandVolume");
    bench.set_up(&user).await.unwrap();
    bench.set_up(&user).await.unwrap();
    assert_eq!(calls(&driver, "NodeExpandVolume"), ["c 2147483648", "c 2147483648"], "what has been done is not done again");
    let claim = bench.api.get("/api/v1/namespaces/default/persistentvolumeclaims/c").unwrap();
    assert_eq!(claim["status"]["capacity"]["storage"], "2Gi");
}

#[tokio::test]
async fn drivers_that_can_tell_how_full_a_volume_is() {
    let bench = Bench::start();
    bench.about(DRIVER, json!({}));
    bench.claim("c", DRIVER, json!({}));
    let options = Options { abilities: vec![Type::GetVolumeStats], ..bench.options(DRIVER) };
    let driver = bench.driver(options).await;
    bench.set_up(&with_claim("a", "c")).await.unwrap();
    assert!(bench.csi.usage().is_empty());
    bench.csi.ask_usage().await;
    let told = bench.csi.usage().remove(0);
    assert_eq!((told.pod_uid.as_str(), told.volume.as_str(), told.claim), ("uid-a", "data", Some(("default".into(), "c".into()))));
    let bytes = told.usage.bytes.unwrap();
    assert_eq!((bytes.total, bytes.used, bytes.available), (1 << 20, 1 << 10, (1 << 20) - (1 << 10)));
    driver.faults().fail("NodeGetVolumeStats", "no");
    bench.csi.ask_usage().await;
    assert_eq!(bench.csi.usage().len(), 1, "what was told last stays");
    bench.csi.release_pod("uid-a").await.unwrap();
    assert!(bench.csi.usage().is_empty());
}
