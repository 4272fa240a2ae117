//! Pods that use claims.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};

use serde_json::{Value, json};

use super::{Bench, api::Api, one_container};

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn claim(api: &Api, name: &str, more: Value) {
    let mut claim =
        json!({"metadata": {"name": name, "uid": format!("uid-of-{name}")}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
    merge(&mut claim, more);
    api.put(&format!("{CLAIMS}/{name}"), claim);
}

fn volume(api: &Api, claim: &str, source: Value, more: Value) {
    let mut volume = json!({"metadata": {"name": "pv"}, "spec": source});
    volume["spec"]["claimRef"] = json!({"namespace": "default", "name": claim, "uid": format!("uid-of-{claim}")});
    merge(&mut volume, more);
    api.put(&format!("{VOLUMES}/pv"), volume);
}

/// A pod with a volume of this source, mounted at `/data`.
fn spec(source: Value) -> Value {
    let mut spec = one_container();
    let mut volume = source;
    volume["name"] = json!("data");
    spec["volumes"] = json!([volume]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    spec
}

fn by_claim() -> Value {
    spec(json!({"persistentVolumeClaim": {"claimName": "c"}}))
}

async fn start(spec: Value, prepare: impl FnOnce(&Api)) -> Bench {
    Bench::start_with(json!({"metadata": {"name": "p"}, "spec": spec}), |api, _, _| prepare(api)).await
}

/// Where the container finds a path, and whether it may only read it.
fn mount(bench: &Bench, path: &str) -> (PathBuf, bool) {
    let mounts = bench.runtime.config("a").unwrap().mounts;
    let found = mounts.into_iter().find(|mount| mount.container_path == path).unwrap();
    (found.host_path.into(), found.readonly)
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_claim_and_gets_the_folder_of_its_volume() {
    let bench = start(by_claim(), |_| {}).await;
    bench.until("it says that there is none", |b| b.has_event("FailedMount") && b.has_event("persistentvolumeclaim \"c\" not found")).await;
    claim(&bench.api, "c", json!({"spec": {"volumeName": null}, "status": {"phase": "Pending"}}));
    bench.until("it says that it is not bound", |b| b.has_event("error processing PVC default/c: PVC is not bound")).await;
    let folder = bench.core.options.local_volumes_dir.join("pvc-1");
    let source = json!({"hostPath": {"path": folder, "type": "DirectoryOrCreate"}});
    volume(&bench.api, "other", source.clone(), json!({}));
    claim(&bench.api, "c", json!({}));
    bench.until("it says whose volume it is", |b| b.has_event("does not point to claim.UID")).await;
    assert!(!folder.exists(), "nothing is made for another claim");
    volume(&bench.api, "c", source, json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "trireme.dev/local-path"}}}));
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    assert_eq!(mount(&bench, "/data"), (folder.clone(), false));
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o777);

    // Deleted while the pod runs: the claim stays the pod's, also for a container that starts again.
    claim(&bench.api, "c", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    bench.runtime.exit("a", 1);
    bench.wake.notify_one();
    bench.until("it runs again", |b| b.container(0)["restartCount"] == 1 && !b.container(0)["state"]["running"].is_null()).await;
    bench.change(|pod| {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 1.into();
    });
    bench.until("the object is deleted", |b| b.api.get(&b.path).is_none()).await;
    assert!(folder.is_dir(), "the data outlives the pod");
}

#[tokio::test(start_paused = true)]
async fn what_this_node_cannot_mount_is_refused_in_words() {
    let path = json!({"hostPath": {"path": "/tmp"}});
    let elsewhere = json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}]}}}});
    let cases = [
        (
            path.clone(),
            json!({"spec": {"volumeMode": "Block"}}),
            json!({}),
            "volume data has volumeMode Block, which this node supports for CSI only",
        ),
        (json!({"nfs": {"server": "s", "path": "/"}}), json!({}), json!({}), "is of a type that this node does not support (nfs)"),
        (path.clone(), json!({"spec": {"mountOptions": ["ro"]}}), json!({}), "mount options are not supported"),
        (path.clone(), elsewhere, json!({}), "no matching NodeSelectorTerms"),
        (json!({"local": {"path": "/nowhere/at/all"}}), json!({}), json!({}), "path \"/nowhere/at/all\" does not exist"),
        (path, json!({}), json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), "PVC is being deleted"),
    ];
    for (source, of_volume, of_claim, said) in cases {
        let bench = start(by_claim(), |api| {
            claim(api, "c", of_claim);
            volume(api, "c", source, of_volume);
        })
        .await;
        let node = json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}}});
        *bench.core.node.write() = Some(std::sync::Arc::new(serde_json::from_value(node).unwrap()));
        bench.until(said, |b| b.has_event(said)).await;
        assert!(bench.runtime.config("a").is_none(), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_local_volume_becomes_the_groups_and_may_be_read_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let group = || std::fs::metadata(dir.path().join("file")).unwrap().gid();
    let path = json!({"local": {"path": dir.path()}});
    let mut spec = by_claim();
    spec["securityContext"] = json!({"fsGroup": 4242});
    spec["volumes"][0]["persistentVolumeClaim"]["readOnly"] = json!(true);
    let prepare = |api: &Api| {
        claim(api, "c", json!({}));
        volume(api, "c", path.clone(), json!({}));
    };
    let bench = start(spec.clone(), prepare).await;
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    assert_eq!(mount(&bench, "/data"), (dir.path().to_path_buf(), true));
    assert_ne!(group(), 4242, "what is only read is not changed");
    spec["volumes"][0]["persistentVolumeClaim"]["readOnly"] = json!(false);
    let bench = start(spec, prepare).await;
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    assert_eq!((mount(&bench, "/data").1, group()), (false, 4242));
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_volume_is_the_claim_that_was_made_for_the_pod() {
    let bench = start(spec(json!({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}})), |api| {
        claim(api, "p-data", json!({}));
        volume(api, "p-data", json!({"hostPath": {"path": "/tmp"}}), json!({}));
    })
    .await;
    let said = "PVC default/p-data was not created for pod default/p (pod is not owner)";
    bench.until("it refuses another's claim", |b| b.has_event(said)).await;
    let uid = bench.api.get(&bench.path).unwrap()["metadata"]["uid"].clone();
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]);
    claim(&bench.api, "p-data", json!({"metadata": {"ownerReferences": owner}}));
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    assert_eq!(mount(&bench, "/data").0, PathBuf::from("/tmp"));
}
