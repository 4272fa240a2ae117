//! Controllers and scheduler that are left to others.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use trireme_e2e::process::{Place, Server};
use trireme_harness::eventually;

const LONG: Duration = Duration::from_secs(60);

fn post(server: &Server<'_>, path: &str, object: &Value) -> anyhow::Result<()> {
    let answer = server.admin(&["--header", "Content-Type: application/json", "--data", &object.to_string(), path])?;
    ensure!(answer.code == 201, "{path}: {answer:?}");
    Ok(())
}

fn deployment() -> Value {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "example.com/web:1"}]}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}})
}

/// The state and reason of each controller.
fn listed(server: &Server<'_>) -> anyhow::Result<Vec<(String, String, String)>> {
    let answer = server.admin(&["/trireme/v1/controllers"])?;
    let list: Value = serde_json::from_str(&answer.body).with_context(|| format!("{answer:?}"))?;
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    let all = list["controllers"].as_array().context("a list")?;
    Ok(all.iter().map(|one| (text(one, "name"), text(one, "state"), text(one, "reason"))).collect())
}

fn state_of(server: &Server<'_>, name: &str) -> anyhow::Result<(String, String)> {
    let all = listed(server)?;
    all.into_iter().find(|(known, ..)| known == name).map(|(_, state, reason)| (state, reason)).with_context(|| format!("no {name}"))
}

fn exists(server: &Server<'_>, path: &str) -> anyhow::Result<bool> {
    Ok(server.admin(&[path])?.code == 200)
}

#[test]
fn one_controller_is_left_out_and_the_others_work() -> anyhow::Result<()> {
    let place = Place::new()?;
    let server = place.server(&[
        "--disable-controller",
        "replicaset-controller",
        "--kube-controller-manager-arg",
        "controllers=*,-job-controller",
    ])?;
    let off = |flag: &str| ("off".to_owned(), flag.to_owned());
    ensure!(state_of(&server, "replicaset-controller")? == off("--disable-controller replicaset-controller"));
    ensure!(state_of(&server, "job-controller")?.0 == "off" && state_of(&server, "deployment-controller")?.0 == "on");
    ensure!(state_of(&server, "kube-scheduler")?.0 == "on" && state_of(&server, "resourceclaim-controller")?.0 == "off");
    post(&server, "/apis/apps/v1/namespaces/default/deployments", &deployment())?;
    eventually("the deployment's replica set", LONG, || {
        ensure!(server.admin(&["/apis/apps/v1/namespaces/default/replicasets"])?.body.contains("\"web-"));
        Ok(())
    })?;
    ensure!(!server.admin(&["/api/v1/namespaces/default/pods"])?.body.contains("\"web-"), "nobody makes its pods");
    server.stop()?;
    Ok(())
}

#[test]
fn without_manager_and_scheduler_their_leases_and_ports_are_free() -> anyhow::Result<()> {
    let place = Place::new()?;
    let server = place.server(&["--disable-controller-manager", "--disable-scheduler"])?;
    ensure!(state_of(&server, "deployment-controller")? == ("off".to_owned(), "--disable-controller-manager".to_owned()));
    ensure!(state_of(&server, "kube-scheduler")? == ("off".to_owned(), "--disable-scheduler".to_owned()));
    ensure!(state_of(&server, "customresourcedefinition-controller")?.0 == "on", "a part of kube-apiserver");
    // What works in any case has worked: a definition is established.
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    post(&server, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition)?;
    eventually("the new resource", LONG, || {
        ensure!(exists(&server, "/apis/example.com/v1/namespaces/default/things")?);
        Ok(())
    })?;
    for lease in ["kube-controller-manager", "kube-scheduler"] {
        ensure!(!exists(&server, &format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{lease}"))?, "{lease}");
    }
    post(&server, "/apis/apps/v1/namespaces/default/deployments", &deployment())?;
    ensure!(!server.admin(&["/apis/apps/v1/namespaces/default/replicasets"])?.body.contains("\"web-"));
    server.stop()?;
    Ok(())
}
