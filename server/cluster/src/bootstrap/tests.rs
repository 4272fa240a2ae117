use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;

use super::*;
use trireme_apiserver::storage::fake_reader::FakeReader;

/// A writer into a fake: what is written there can be read back, and every write is noted.
fn writer(reader: &Arc<FakeReader>) -> (Writer, Arc<Mutex<Vec<String>>>) {
    let (reader, log) = (reader.clone(), Arc::new(Mutex::new(Vec::new())));
    let notes = log.clone();
    let call: writer::Call = Arc::new(move |request| {
        let (reader, notes) = (reader.clone(), notes.clone());
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            notes.lock().push(format!("{} {path}", request.method()));
            let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
            let (group, rest) = if parts[0] == "api" { ("", &parts[2..]) } else { (parts[1], &parts[3..]) };
            let (namespace, rest) = match rest {
                ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
                rest => ("", rest),
            };
            if request.method() == "DELETE" {
                reader.remove(group, rest[0], namespace, rest[1]);
            } else {
                reader.put(group, rest[0], serde_json::from_slice(request.body()).unwrap());
            }
            Ok((201, bytes::Bytes::new()))
        })
    });
    (Writer::new(call), log)
}

fn bootstrap(reader: &Arc<FakeReader>) -> (Bootstrap, Arc<Mutex<Vec<String>>>) {
    let (writer, log) = writer(reader);
    let bootstrap = Bootstrap {
        writer,
        reader: reader.clone(),
        service_ip: "10.43.0.1".parse().unwrap(),
        https_port: 6443,
        service_cidr: "10.43.0.0/16".into(),
    };
    (bootstrap, log)
}

#[tokio::test]
async fn everything_is_made_once_and_repaired_without_taking_anything_away() {
    let keys = ClusterKeys::generate(jiff::Timestamp::from_second(1_800_000_000).unwrap()).unwrap();
    let reader = Arc::new(FakeReader::default());
    let (bootstrap, log) = bootstrap(&reader);
    bootstrap.run(&keys).await.unwrap();
    let written = std::mem::take(&mut *log.lock());
    assert!(written.iter().all(|line| line.starts_with("POST ")), "only creations at first");
    assert_eq!(written.iter().collect::<HashSet<_>>().len(), 13, "collections");
    assert!(reader.list("rbac.authorization.k8s.io", "clusterroles", None).len() > 60);
    assert!(reader.get("", "services", "default", "kubernetes").is_some());
    assert!(reader.get("", "configmaps", "kube-system", "extension-apiserver-authentication").is_some());

    bootstrap.run(&keys).await.unwrap();
    assert_eq!(*log.lock(), Vec::<String>::new(), "a second run has nothing to do");

    let group = "rbac.authorization.k8s.io";
    let change = |plural: &str, name: &str, change: &dyn Fn(&mut Value)| {
        let mut object = (*reader.get(group, plural, "", name).unwrap().object).clone();
        change(&mut object);
        reader.put(group, plural, object);
    };
    let own = json!({"apiGroups": ["x"], "resources": ["y"], "verbs": ["get"]});
    change("clusterroles", "view", &|role| role["rules"] = json!([own.clone()]));
    change("clusterroles", "edit", &|role| {
        role["rules"] = json!([]);
        meta::set_annotation(role, "rbac.authorization.kubernetes.io/autoupdate", "false");
    });
    let extra = json!({"kind": "Group", "name": "mine"});
    change("clusterrolebindings", "cluster-admin", &|binding| binding["subjects"] = json!([extra.clone()]));
    change("clusterrolebindings", "system:basic-user", &|binding| binding["roleRef"]["name"] = json!("other"));
    bootstrap.run(&keys).await.unwrap();
    let view = reader.get(group, "clusterroles", "", "view").unwrap().object;
    assert!(meta::list_at(&view, &["rules"]).contains(&own));
    assert!(meta::list_at(&view, &["rules"]).len() > 1);
    assert_eq!(reader.get(group, "clusterroles", "", "edit").unwrap().object["rules"], json!([]));
    let admin = reader.get(group, "clusterrolebindings", "", "cluster-admin").unwrap().object;
    assert_eq!(meta::list_at(&admin, &["subjects"]).len(), 2);
    let basic = reader.get(group, "clusterrolebindings", "", "system:basic-user").unwrap().object;
    assert_eq!(basic["roleRef"]["name"], "system:basic-user");
    assert_eq!(log.lock().len(), 4, "{:?}", log.lock());
}

#[tokio::test]
async fn dead_servers_leave_the_endpoints() {
    let reader = Arc::new(FakeReader::default());
    let (writer, log) = writer(&reader);
    let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
    let addresses = || {
        let slice = reader.get("discovery.k8s.io", "endpointslices", "default", "kubernetes").unwrap().object;
        let slice: Vec<_> = meta::list_at(&slice, &["endpoints"]).iter().map(|e| e["addresses"][0].as_str().unwrap().to_owned()).collect();
        let endpoints = reader.get("", "endpoints", "default", "kubernetes").unwrap().object;
        let endpoints: Vec<_> =
            meta::list_at(&endpoints["subsets"][0], &["addresses"]).iter().map(|a| a["ip"].as_str().unwrap().to_owned()).collect();
        assert_eq!(slice, endpoints);
        slice
    };
    // living servers, writes that this must cost
    let steps: &[(&[u8], usize)] = &[(&[2, 1, 3], 2), (&[1, 2, 3, 3], 0), (&[3, 1], 2), (&[], 0), (&[1, 2, 3], 2)];
    for (alive, writes) in steps {
        let alive: Vec<_> = alive.iter().map(|last| ip(*last)).collect();
        log.lock().clear();
        reconcile_endpoints(&writer, &*reader, &alive, 6443).await.unwrap();
        assert_eq!(log.lock().len(), *writes, "{alive:?}");
        if !alive.is_empty() {
            let mut wanted: Vec<_> = alive.iter().map(IpAddr::to_string).collect();
            wanted.sort();
            wanted.dedup();
            assert_eq!(addresses(), wanted);
        }
    }
}
