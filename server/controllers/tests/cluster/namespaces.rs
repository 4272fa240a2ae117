//! What a namespace's owner is promised: quotas, volumes that are in use, network policies, token Secrets.

use serde_json::{Value, json};

use super::{Cluster, FakeApi};

fn used(api: &FakeApi) -> Value {
    api.get("resourcequotas", "ns", "q").unwrap()["status"]["used"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_quota_shows_what_is_there() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    let hard = json!({"pods": "5", "requests.cpu": "2", "secrets": "3", "services.nodeports": "1", "count/replicasets.apps": "2", "count/boats.example.com": "1"});
    for name in ["a", "b"] {
        api.create("secrets", json!({"metadata": {"name": name, "namespace": "ns"}}));
    }
    api.create("resourcequotas", json!({"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": hard}}));
    // A resource that is not served cannot be counted.
    let counted = |pods: &str, cpu: &str, secrets: &str, ports: &str| json!({"pods": pods, "requests.cpu": cpu, "secrets": secrets, "services.nodeports": ports, "count/replicasets.apps": "0"});
    api.until("it is counted", |api| used(api) == counted("0", "0", "2", "0")).await;
    assert_eq!(api.get("resourcequotas", "ns", "q").unwrap()["status"]["hard"], hard);

    let pod = |name: &str, image: &str| {
        json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"containers": [
            {"name": "c", "image": image, "resources": {"requests": {"cpu": "300m"}}}]}})
    };
    api.create("pods", pod("p", "run"));
    api.create("pods", pod("over", "exit:0"));
    api.delete("secrets", "ns", "a", "Background");
    api.until("a secret that went is given back", |api| used(api) == counted("1", "300m", "1", "0")).await;
    api.delete("pods", "ns", "p", "Background");
    api.until("and a pod", |api| used(api) == counted("0", "0", "1", "0")).await;
    // Admission charges for an object that is not written after all.
    api.edit("resourcequotas", "ns", "q", |quota| quota["status"]["used"]["secrets"] = json!("2"));
    api.until("a charge for nothing does not stay", |api| used(api) == counted("0", "0", "1", "0")).await;
    api.edit("resourcequotas", "ns", "q", |quota| quota["spec"] = json!({"hard": {"secrets": "7"}, "scopes": ["Terminating"]}));
    api.until("the limits follow the spec", |api| {
        api.get("resourcequotas", "ns", "q").unwrap()["status"] == json!({"hard": {"secrets": "7"}, "used": {"secrets": "0"}})
    })
    .await;
    cluster.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn claims_and_volumes_stay_while_they_are_used() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    let finalizers =
        |plural: &str, namespace: &str, name: &str| api.get(plural, namespace, name).map(|object| object["metadata"]["finalizers"].clone());
    let spec =
        json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": "v", "resources": {"requests": {"storage": "1Gi"}}});
    api.create("persistentvolumeclaims", json!({"metadata": {"name": "c", "namespace": "ns"}, "spec": spec}));
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/v"},
        "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "ns", "name": "c"}});
    api.create("persistentvolumes", json!({"metadata": {"name": "v"}, "spec": spec}));
    api.until("they are bound", |api| api.get("persistentvolumes", "", "v").unwrap()["status"]["phase"] == "Bound").await;
    api.until("both are protected", |_| {
        finalizers("persistentvolumeclaims", "ns", "c") == Some(json!(["kubernetes.io/pvc-protection"]))
            && finalizers("persistentvolumes", "", "v") == Some(json!(["kubernetes.io/pv-protection"]))
    })
    .await;
    let volumes = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]);
    api.create(
        "pods",
        json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [{"name": "c", "image": "run"}], "volumes": volumes}}),
    );
    api.until("the pod runs", |api| api.get("pods", "ns", "p").unwrap()["status"]["phase"] == "Running").await;
    api.delete("persistentvolumeclaims", "ns", "c", "Background");
    api.delete("persistentvolumes", "", "v", "Background");
    // Once a later deletion has been handled, the earlier ones have been too: those objects stay on purpose.
    api.create(
        "persistentvolumeclaims",
        json!({"metadata": {"name": "later", "namespace": "ns", "finalizers": ["kubernetes.io/pvc-protection"]}, "spec": {}}),
    );
    api.delete("persistentvolumeclaims", "ns", "later", "Background");
    api.until("an unused claim goes", |api| api.get("persistentvolumeclaims", "ns", "later").is_none()).await;
    assert!(finalizers("persistentvolumeclaims", "ns", "c").is_some() && finalizers("persistentvolumes", "", "v").is_some());
    api.delete("pods", "ns", "p", "Background");
    api.until("nothing is left", |api| api.list("persistentvolumeclaims").is_empty() && api.list("persistentvolumes").is_empty()).await;
    cluster.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn d02_a_network_policy_that_nobody_enforces_says_so_once() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (stop, work) = cluster.lead(1);
    let names = |api: &FakeApi| -> Vec<String> {
        let told = api.told.lock();
        let about = told.iter().filter(|event| event["reason"] == "NotEnforced" && event["involvedObject"]["name"] == "deny");
        about.map(|event| event["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    api.create("networkpolicies", json!({"metadata": {"name": "deny", "namespace": "ns"}, "spec": {"podSelector": {}}}));
    api.until("it is said", |api| names(api).len() == 1).await;
    assert_eq!(api.told.lock().iter().find(|event| event["reason"] == "NotEnforced").unwrap()["type"], "Warning");
    api.edit("networkpolicies", "ns", "deny", |policy| policy["metadata"]["labels"] = json!({"a": "b"}));
    api.edit("networkpolicies", "ns", "deny", |policy| policy["spec"]["policyTypes"] = json!(["Egress"]));
    api.until("and for the new generation", |api| names(api).len() == 2).await;
    assert_ne!(names(api)[0], names(api)[1], "the label alone changed nothing");
    stop.cancel();
    work.await.unwrap();
    let (_stop, _work) = cluster.lead(2);
    api.until("a new leader looks at it", |api| names(api).len() == 3).await;
    assert_eq!(names(api)[2], names(api)[1], "the API refuses the second event of one name");
    cluster.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn d15_token_secrets_are_filled_and_go_with_their_account() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    let account = api.create("serviceaccounts", json!({"metadata": {"name": "ci", "namespace": "ns"}}));
    let secret = |name: &str, account: &str| {
        json!({"metadata": {"name": name, "namespace": "ns", "annotations": {"kubernetes.io/service-account.name": account}},
            "type": "kubernetes.io/service-account-token"})
    };
    api.create("secrets", secret("ci-token", "ci"));
    api.create("secrets", secret("stray", "nobody"));
    api.until("it is filled", |api| !api.get("secrets", "ns", "ci-token").unwrap()["data"]["token"].is_null()).await;
    let filled = api.get("secrets", "ns", "ci-token").unwrap();
    let text = |key: &str| {
        use base64::Engine;
        let bytes = base64::prelude::BASE64_STANDARD.decode(filled["data"][key].as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let uid = account["metadata"]["uid"].as_str().unwrap();
    assert_eq!([text("token"), text("namespace"), text("ca.crt")], [format!("{uid}/ci-token"), "ns".to_owned(), "CA".to_owned()]);
    assert_eq!(filled["metadata"]["annotations"]["kubernetes.io/service-account.uid"], uid);
    api.until("that of nobody is deleted", |api| api.get("secrets", "ns", "stray").is_none()).await;
    api.delete("serviceaccounts", "ns", "ci", "Background");
    api.until("it goes with its account", |api| api.get("secrets", "ns", "ci-token").is_none()).await;
    cluster.cancel.cancel();
}
