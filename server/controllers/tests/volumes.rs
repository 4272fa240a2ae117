//! Claims and volumes on a small API server in memory, under leaders that are deposed between any two writes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "cluster/fake_api.rs"]
mod fake_api;
#[path = "cluster/leaders.rs"]
mod leaders;

use std::sync::Arc;
use std::time::Duration;

use fake_api::FakeApi;
use leaders::lead;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_client::Client;
use trireme_controllers::{ControllerOptions, Controllers, Switches};

struct Cluster {
    api: FakeApi,
    cancel: CancellationToken,
}

impl Cluster {
    fn start() -> Self {
        Self::on(FakeApi::new(), None)
    }

    /// Each leader makes `writes` writes, if there is a number.
    fn on(api: FakeApi, writes: Option<usize>) -> Self {
        Self::with(api, writes, Switches::default())
    }

    fn with(api: FakeApi, writes: Option<usize>, switches: Switches) -> Self {
        let cancel = CancellationToken::new();
        let transport = api.clone();
        // No kubelet renews the nodes' Leases in these tests.
        let options = ControllerOptions { node_monitor_grace: Duration::from_secs(100_000_000), switches, ..ControllerOptions::default() };
        let client_for = move |name: &str| Client::new(Arc::new(transport.clone())).with_user_agent(name);
        let controllers = Controllers::start(client_for, options, &cancel);
        if let Some(writes) = writes {
            api.depose_after(writes);
        }
        tokio::spawn(lead(controllers, api.clone(), cancel.clone()));
        Self { api, cancel }
    }

    fn claim(&self, name: &str) -> Value {
        self.api.get("persistentvolumeclaims", "ns", name).unwrap()
    }

    fn volume(&self, name: &str) -> Value {
        self.api.get("persistentvolumes", "", name).unwrap()
    }

    async fn until_told(&self, name: &str, what: &str) {
        let told = |api: &FakeApi| {
            let told = api.told.lock();
            let says = |event: &Value| {
                event["involvedObject"]["name"] == name && format!("{}: {}", text(&event["reason"]), text(&event["message"])) == what
            };
            told.iter().any(says)
        };
        let met = tokio::time::timeout(Duration::from_secs(60), self.api.until(what, told)).await;
        assert!(met.is_ok(), "{name} is not told {what:?} but {:#?}", *self.api.told.lock());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn claim(name: &str, class: &str, size: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": size}}}})
}

fn volume(name: &str, class: &str, size: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "capacity": {"storage": size},
        "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": format!("/data/{name}")}}})
}

fn class(name: &str, provisioner: &str, late: bool) -> Value {
    let mode = if late { "WaitForFirstConsumer" } else { "Immediate" };
    json!({"metadata": {"name": name}, "provisioner": provisioner, "reclaimPolicy": "Delete", "volumeBindingMode": mode})
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}, "annotations": {"trireme.dev/local-path": "/var/lib/storage"}},
        "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

fn phase(api: &FakeApi, plural: &str, namespace: &str, name: &str) -> String {
    text(&api.get(plural, namespace, name).unwrap_or_default()["status"]["phase"]).to_owned()
}

fn is_bound(api: &FakeApi, claim: &str) -> bool {
    phase(api, "persistentvolumeclaims", "ns", claim) == "Bound"
}

fn select_node(api: &FakeApi, claim: &str, node: &str) {
    api.edit("persistentvolumeclaims", "ns", claim, |claim| {
        claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = json!(node)
    });
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_the_smallest_volume_that_fits_and_gives_it_back() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    for (name, class, size) in [("large", "", "3Gi"), ("small", "", "2Gi"), ("tiny", "", "1Gi"), ("classy", "fast", "2Gi")] {
        api.create("persistentvolumes", volume(name, class, size));
    }
    api.until("all are offered", |api| api.list("persistentvolumes").iter().all(|volume| volume["status"]["phase"] == "Available")).await;
    api.create("persistentvolumeclaims", claim("c", "", "1.5Gi"));
    api.until("it is bound", |api| is_bound(api, "c") && phase(api, "persistentvolumes", "", "small") == "Bound").await;
    let (claim, bound) = (cluster.claim("c"), cluster.volume("small"));
    assert_eq!(claim["spec"]["volumeName"], "small");
    assert_eq!(claim["status"], json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}}));
    let annotations = json!({"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"});
    assert_eq!(claim["metadata"]["annotations"], annotations);
    assert_eq!(bound["spec"]["claimRef"]["uid"], claim["metadata"]["uid"]);
    assert_eq!(bound["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"], "yes");

    api.delete("persistentvolumeclaims", "ns", "c", "Background");
    api.until("it is released", |api| phase(api, "persistentvolumes", "", "small") == "Released").await;
    // The next claim of that name does not get what was another one's.
    api.create("persistentvolumeclaims", self::claim("c", "", "1.5Gi"));
    api.until("another volume is bound", |api| is_bound(api, "c")).await;
    assert_eq!(cluster.claim("c")["spec"]["volumeName"], "large");
    api.edit("persistentvolumes", "", "small", |volume| {
        volume["spec"].as_object_mut().unwrap().remove("claimRef");
    });
    api.until("it is offered again", |api| phase(api, "persistentvolumes", "", "small") == "Available").await;
    api.create("persistentvolumeclaims", self::claim("none", "", "9Gi"));
    cluster.until_told("none", "FailedBinding: no persistent volumes available for this claim and no storage class is set").await;
    assert_eq!(phase(api, "persistentvolumeclaims", "ns", "none"), "Pending");
}

#[tokio::test(start_paused = true)]
async fn claims_that_race_get_one_volume_each_whoever_leads() {
    for seed in 0..8 {
        let cluster = Cluster::on(FakeApi::slow(seed), Some(1 + usize::try_from(seed % 6).unwrap()));
        let api = &cluster.api;
        for nth in 0..4 {
            api.create("persistentvolumeclaims", claim(&format!("c{nth}"), "", "1Gi"));
        }
        for nth in 0..3 {
            api.create("persistentvolumes", volume(&format!("v{nth}"), "", "1Gi"));
        }
        let bound = |api: &FakeApi| api.list("persistentvolumeclaims").iter().filter(|claim| claim["status"]["phase"] == "Bound").count();
        api.until("three are bound", |api| bound(api) == 3).await;
        let settled = |api: &FakeApi| {
            let claims = api.list("persistentvolumeclaims");
            api.list("persistentvolumes").iter().all(|volume| {
                let owner = claims.iter().find(|claim| claim["metadata"]["uid"] == volume["spec"]["claimRef"]["uid"]);
                volume["status"]["phase"] == "Bound" && owner.is_some_and(|claim| claim["spec"]["volumeName"] == volume["metadata"]["name"])
            })
        };
        api.until("both ends agree", settled).await;
        // No claim ever names another volume than the one that it names in the end.
        for (_, _, seen) in api.history("persistentvolumeclaims") {
            let now = &cluster.claim(text(&seen["metadata"]["name"]))["spec"]["volumeName"];
            assert!(seen["spec"]["volumeName"].is_null() || seen["spec"]["volumeName"] == *now, "seed {seed}: {seen}");
        }
        api.create("persistentvolumes", volume("v3", "", "2Gi"));
        api.until("the last one too", |api| bound(api) == 4).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_taken_unseen_is_not_taken_away() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    api.create("persistentvolumes", volume("v", "", "1Gi"));
    api.until("it is available", |api| phase(api, "persistentvolumes", "", "v") == "Available").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    api.hold("persistentvolumes");
    let taken = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": "ns", "name": "other", "uid": "u"});
    api.edit("persistentvolumes", "", "v", |volume| volume["spec"]["claimRef"] = taken.clone());
    // The binder believes that the volume is free.
    api.create("persistentvolumeclaims", claim("late", "", "1Gi"));
    tokio::time::sleep(Duration::from_secs(30)).await;
    api.release("persistentvolumes");
    cluster.until_told("late", "FailedBinding: no persistent volumes available for this claim and no storage class is set").await;
    for (_, _, seen) in api.history("persistentvolumes") {
        let owner = &seen["spec"]["claimRef"]["uid"];
        assert!(owner.is_null() || owner == "u", "{seen}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_local_volume_is_made_on_its_node_and_deleted_with_its_data_whoever_leads() {
    for writes in [None, Some(1), Some(2), Some(3)] {
        let cluster = Cluster::on(FakeApi::slow(writes.unwrap_or_default() as u64), writes);
        let api = &cluster.api;
        api.create("nodes", node("n1"));
        api.create("storageclasses", class("local-path", "trireme.dev/local-path", true));
        api.create("persistentvolumeclaims", claim("c", "local-path", "1Gi"));
        cluster.until_told("c", "WaitForFirstConsumer: waiting for first consumer to be created before binding").await;
        assert!(api.list("persistentvolumes").is_empty());
        select_node(api, "c", "n1");
        api.until("it is bound", |api| is_bound(api, "c")).await;
        let uid = text(&cluster.claim("c")["metadata"]["uid"]).to_owned();
        let name = format!("pvc-{uid}");
        let spec = cluster.volume(&name)["spec"].clone();
        assert_eq!(spec["hostPath"], json!({"path": format!("/var/lib/storage/{name}_ns_c"), "type": "DirectoryOrCreate"}));
        assert_eq!(spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"], json!(["n1"]));
        assert_eq!((&spec["persistentVolumeReclaimPolicy"], &spec["capacity"]["storage"]), (&json!("Delete"), &json!("1Gi")));

        // A user deletes the volume first: it stays while it is bound, and its data is deleted with the claim.
        api.delete("persistentvolumes", "", &name, "Background");
        *api.kubelet_says.lock() = (500, "the disk is on fire");
        assert!(api.asked.lock().is_empty());
        api.delete("persistentvolumeclaims", "ns", "c", "Background");
        api.until("the deletion fails", |api| phase(api, "persistentvolumes", "", &name) == "Failed").await;
        // A leader that is deposed may take its events along.
        let says = |event: &Value| event["reason"] == "VolumeFailedDelete" && text(&event["message"]).contains("the disk is on fire");
        api.until("it says why", |api| writes.is_some() || api.told.lock().iter().any(says)).await;
        *api.kubelet_says.lock() = (200, "");
        api.until("the volume is gone", |api| api.list("persistentvolumes").is_empty()).await;
        let path = format!("DELETE /api/v1/nodes/n1/proxy/trireme/local-volumes/{name}_ns_c");
        assert!(api.asked.lock().iter().all(|asked| *asked == path) && !api.asked.lock().is_empty(), "{:?}", api.asked.lock());
    }
}

#[tokio::test(start_paused = true)]
async fn local_volumes_are_made_and_deleted_for_another_controller_manager() {
    let cluster = Cluster::with(FakeApi::new(), None, Switches::without_manager());
    let api = &cluster.api;
    api.create("nodes", node("n1"));
    api.create("storageclasses", class("local-path", "trireme.dev/local-path", true));
    api.create("persistentvolumeclaims", claim("c", "local-path", "1Gi"));
    select_node(api, "c", "n1");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(api.list("persistentvolumes").is_empty(), "nobody asked for a volume");
    // From here on this test is the other one's volume binder.
    let asked = "volume.kubernetes.io/storage-provisioner";
    api.edit("persistentvolumeclaims", "ns", "c", |claim| claim["metadata"]["annotations"][asked] = json!("trireme.dev/local-path"));
    api.until("the volume is made", |api| !api.list("persistentvolumes").is_empty()).await;
    let name = format!("pvc-{}", text(&cluster.claim("c")["metadata"]["uid"]));
    assert_eq!(cluster.volume(&name)["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"], "trireme.dev/local-path");
    api.edit("persistentvolumeclaims", "ns", "c", |claim| claim["spec"]["volumeName"] = json!(name));
    api.edit("persistentvolumes", "", &name, |volume| volume["status"]["phase"] = json!("Released"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(api.asked.lock().is_empty(), "the claim is there: its data stays, whatever the volume's phase says");
    api.delete("persistentvolumeclaims", "ns", "c", "Background");
    api.until("the volume is gone", |api| api.list("persistentvolumes").is_empty()).await;
    assert!(!api.asked.lock().is_empty(), "its data went first");
}

#[tokio::test(start_paused = true)]
async fn data_is_not_deleted_where_it_must_stay_or_cannot_be_reached() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    for name in ["n1", "gone"] {
        api.create("nodes", node(name));
    }
    api.create("storageclasses", class("local-path", "trireme.dev/local-path", true));
    for (name, on) in [("kept", "n1"), ("lost", "gone"), ("moved", "n1")] {
        api.create("persistentvolumeclaims", claim(name, "local-path", "1Gi"));
        select_node(api, name, on);
    }
    api.until("all are bound", |api| ["kept", "lost", "moved"].iter().all(|name| is_bound(api, name))).await;
    let volume_of = |name: &str| text(&cluster.claim(name)["spec"]["volumeName"]).to_owned();
    let (kept, lost, moved) = (volume_of("kept"), volume_of("lost"), volume_of("moved"));
    api.edit("persistentvolumes", "", &kept, |volume| volume["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain"));
    api.edit("persistentvolumes", "", &moved, |volume| volume["spec"]["hostPath"]["path"] = json!("/etc/shadow"));
    api.delete("nodes", "", "gone", "Background");
    for name in ["kept", "lost", "moved"] {
        api.delete("persistentvolumeclaims", "ns", name, "Background");
    }
    api.until("the one of the node that is gone is gone", |api| api.get("persistentvolumes", "", &lost).is_none()).await;
    api.until("the retained one is released", |api| phase(api, "persistentvolumes", "", &kept) == "Released").await;
    api.until("the strange one failed", |api| phase(api, "persistentvolumes", "", &moved) == "Failed").await;
    assert!(text(&cluster.volume(&moved)["status"]["message"]).contains("is not a folder in"), "{}", cluster.volume(&moved));
    assert!(api.asked.lock().is_empty(), "{:?}", api.asked.lock());
    api.delete("persistentvolumes", "", &kept, "Background");
    api.until("who deletes a retained volume is not held up", |api| api.get("persistentvolumes", "", &kept).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_provisioned_is_said_and_the_node_is_chosen_again() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    api.create("nodes", node("n1"));
    api.create("nodes", json!({"metadata": {"name": "old"}, "spec": {}}));
    api.create("storageclasses", class("local-path", "trireme.dev/local-path", true));
    api.create("storageclasses", class("by-hand", "kubernetes.io/no-provisioner", false));
    api.create("storageclasses", class("csi", "csi.example.com", false));
    let mut shared = claim("shared", "local-path", "1Gi");
    shared["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    let mut device = claim("device", "local-path", "1Gi");
    device["spec"]["volumeMode"] = json!("Block");
    let cases = [
        (shared, "n1", "access mode ReadWriteMany is not supported: a folder of one node is ReadWriteOnce or ReadWriteOncePod"),
        (device, "n1", "volumeMode Block is not supported: a folder is a file system"),
        (
            claim("early", "local-path", "1Gi"),
            "old",
            "node \"old\" does not say where it keeps volumes (annotation trireme.dev/local-path)",
        ),
        (claim("late", "local-path", "1Gi"), "never", "node \"never\" is gone"),
    ];
    for (claim, on, said) in cases {
        let name = text(&claim["metadata"]["name"]).to_owned();
        api.create("persistentvolumeclaims", claim);
        select_node(api, &name, on);
        cluster
            .until_told(&name, &format!("ProvisioningFailed: failed to provision volume with StorageClass \"local-path\": {said}"))
            .await;
        let selected = |api: &FakeApi| {
            api.get("persistentvolumeclaims", "ns", &name).unwrap()["metadata"]["annotations"]["volume.kubernetes.io/selected-node"].clone()
        };
        api.until("the node is given up", |api| selected(api).is_null()).await;
    }
    assert!(api.list("persistentvolumes").is_empty());
    api.create("persistentvolumeclaims", claim("missing", "nowhere", "1Gi"));
    cluster.until_told("missing", "ProvisioningFailed: storageclass.storage.k8s.io \"nowhere\" not found").await;
    api.create("persistentvolumeclaims", claim("manual", "by-hand", "1Gi"));
    cluster.until_told("manual", "ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner").await;
    api.create("persistentvolumeclaims", claim("external", "csi", "1Gi"));
    let said = "ExternalProvisioning: Waiting for a volume to be created either by the external provisioner 'csi.example.com' or manually by the \
                system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.";
    cluster.until_told("external", said).await;
    let annotations = cluster.claim("external")["metadata"]["annotations"].clone();
    for key in ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"] {
        assert_eq!(annotations[key], "csi.example.com");
    }
}

#[tokio::test(start_paused = true)]
async fn reservations_are_honoured_and_losses_are_told() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let mut reserved = volume("reserved", "", "1Gi");
    reserved["spec"]["claimRef"] = json!({"namespace": "ns", "name": "owner"});
    api.create("persistentvolumes", reserved);
    let mut named = claim("thief", "", "1Gi");
    named["spec"]["volumeName"] = json!("reserved");
    api.create("persistentvolumeclaims", named.clone());
    cluster.until_told("thief", "FailedBinding: volume \"reserved\" already bound to a different claim.").await;
    api.create("persistentvolumeclaims", claim("owner", "", "1Gi"));
    api.until("its owner gets it", |api| is_bound(api, "owner")).await;
    let bound = cluster.volume("reserved");
    assert!(bound["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"].is_null(), "a user wrote it: {bound}");
    assert_eq!(bound["spec"]["claimRef"]["uid"], cluster.claim("owner")["metadata"]["uid"]);

    named["metadata"]["name"] = json!("picky");
    named["spec"]["volumeName"] = json!("small");
    api.create("persistentvolumeclaims", named);
    api.create("persistentvolumes", volume("small", "", "1Mi"));
    cluster.until_told("picky", "VolumeMismatch: Cannot bind to requested volume \"small\": requested PV is too small").await;

    // A user removes the finalizers and the volume.
    api.edit("persistentvolumes", "", "reserved", |volume| {
        volume["metadata"]["finalizers"] = json!([]);
        volume["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    api.until("its claim is lost", |api| phase(api, "persistentvolumeclaims", "ns", "owner") == "Lost").await;
    cluster.until_told("owner", "ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!").await;

    for (name, policy, said) in [
        (
            "again",
            "Recycle",
            "VolumeFailedRecycle: Recycle is not supported: delete the data, then remove spec.claimRef to offer the volume again",
        ),
        (
            "stranger",
            "Delete",
            "VolumeFailedDelete: no provisioner made this volume, so none deletes it: delete its data and then the volume",
        ),
    ] {
        let mut volume = volume(name, name, "1Gi");
        volume["spec"]["persistentVolumeReclaimPolicy"] = json!(policy);
        api.create("persistentvolumes", volume);
        api.create("persistentvolumeclaims", claim(name, name, "1Gi"));
        api.until("it is bound", |api| is_bound(api, name)).await;
        api.delete("persistentvolumeclaims", "ns", name, "Background");
        cluster.until_told(name, said).await;
        assert_eq!(phase(api, "persistentvolumes", "", name), "Failed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_a_class_gets_the_default_class_when_there_is_one() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let mut plain = claim("plain", "", "1Gi");
    plain["spec"].as_object_mut().unwrap().remove("storageClassName");
    api.create("persistentvolumeclaims", plain);
    api.create("persistentvolumeclaims", claim("none", "", "1Gi"));
    cluster.until_told("plain", "FailedBinding: no persistent volumes available for this claim and no storage class is set").await;
    let mut standard = class("standard", "csi.example.com", false);
    standard["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    api.create("storageclasses", standard);
    api.until("it has the class", |api| {
        api.get("persistentvolumeclaims", "ns", "plain").unwrap()["spec"]["storageClassName"] == "standard"
    })
    .await;
    assert_eq!(cluster.claim("none")["spec"]["storageClassName"], "", "that one asked for none");
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_volume_gets_a_claim_that_goes_with_its_pod() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    api.create("persistentvolumeclaims", claim("p-taken", "", "1Gi"));
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": claim("", "", "1Gi")["spec"]});
    let pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [], "volumes": [
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "taken", "ephemeral": {"volumeClaimTemplate": template}}]}});
    let pod = api.create("pods", pod);
    api.until("the claim is made", |api| api.get("persistentvolumeclaims", "ns", "p-scratch").is_some()).await;
    let made = cluster.claim("p-scratch");
    assert_eq!((&made["metadata"]["ownerReferences"][0]["uid"], &made["metadata"]["labels"]["a"]), (&pod["metadata"]["uid"], &json!("b")));
    cluster.until_told("p", "FailedBinding: ephemeral volume taken: PVC ns/p-taken was not created for pod ns/p (pod is not owner)").await;
    api.delete("persistentvolumeclaims", "ns", "p-taken", "Background");
    api.until("the other one is made as soon as the name is free", |api| {
        api.get("persistentvolumeclaims", "ns", "p-taken").is_some_and(|claim| !claim["metadata"]["ownerReferences"].is_null())
    })
    .await;
    api.delete("pods", "ns", "p", "Background");
    api.until("both go with the pod", |api| api.list("persistentvolumeclaims").is_empty()).await;
}
