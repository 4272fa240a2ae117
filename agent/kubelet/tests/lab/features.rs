//! Features that users ask for beside plain pods: each was once accepted and ignored, or failed on some hosts.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use serde_json::{Value, json};

use super::{IMAGE, Lab, PODS, client, condition, shell};

const FOREVER: &str = "while true; do sleep 1; done";

async fn finish(mut lab: Lab) {
    for pod in lab.api.find(PODS) {
        lab.api.delete_gracefully(&format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap()), 0);
    }
    lab.until("nothing runs", || lab.api.find(PODS).is_empty() && lab.tasks() == 0).await;
    lab.stop_kubelet().await;
}

/// The file mode mask of this process, put back at the end.
struct Umask(nix::sys::stat::Mode);

impl Umask {
    fn set(mask: u32) -> Umask {
        Umask(nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask)))
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        nix::sys::stat::umask(self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_02_a_pod_that_is_not_root_reads_its_files_under_the_units_umask() {
    let lab = Lab::start().await;
    let _umask = Umask::set(0o077);
    lab.api.put("/api/v1/namespaces/default/configmaps/cm", json!({"metadata": {"name": "cm"}, "data": {"b": "deep"}}));
    let script = "cat /etc/hosts /etc/resolv.conf /etc/hostname > /dev/null && cat /cm/d/b && echo && cat /var/run/token/token > /dev/null && echo last > /dev/termination-log && echo all";
    let path = lab.create(
        "user",
        json!({"restartPolicy": "Never", "securityContext": {"runAsUser": 1234, "runAsGroup": 1234},
            "volumes": [{"name": "cm", "configMap": {"name": "cm", "items": [{"key": "b", "path": "d/b"}]}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
            "containers": [{"name": "a", "image": IMAGE, "command": shell(script), "volumeMounts": [
                {"name": "cm", "mountPath": "/cm"}, {"name": "token", "mountPath": "/var/run/token"}]}]}),
    );
    lab.until("it ends", || lab.status(&path)["containerStatuses"][0]["state"]["terminated"]["exitCode"].is_number()).await;
    assert_eq!(lab.log(&path, "a", 0), "deep\nall\n");
    assert_eq!(lab.status(&path)["containerStatuses"][0]["state"]["terminated"]["message"], "last\n");
    let mode = std::fs::metadata(lab.containerd.path("kubelet/pods")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o750, "users of the host do not reach the pods' secrets");
    finish(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_28_a_container_with_a_sub_path_of_a_changed_configmap_starts_again() {
    let lab = Lab::start().await;
    let put = |text: &str| {
        lab.api.put("/api/v1/namespaces/default/configmaps/conf", json!({"metadata": {"name": "conf"}, "data": {"app.ini": text}}));
    };
    put("one");
    let path = lab.create(
        "sub",
        json!({"terminationGracePeriodSeconds": 0, "volumes": [{"name": "conf", "configMap": {"name": "conf"}}, {"name": "shared", "emptyDir": {}}],
            "containers": [{"name": "a", "image": IMAGE, "command": shell("cat /etc/app.ini; echo; while [ ! -f /shared/die ]; do sleep 0.1; done; rm /shared/die; exit 1"),
                "volumeMounts": [{"name": "conf", "mountPath": "/etc/app.ini", "subPath": "app.ini"}, {"name": "conf", "mountPath": "/whole"},
                    {"name": "shared", "mountPath": "/shared"}]}]}),
    );
    lab.until("it runs", || lab.log(&path, "a", 0) == "one\n").await;
    put("two");
    let uid = lab.api.get(&path).unwrap()["metadata"]["uid"].as_str().unwrap().to_string();
    let volumes = lab.containerd.path(&format!("kubelet/pods/{uid}/volumes"));
    lab.until("the volume follows", || {
        std::fs::read_to_string(volumes.join("kubernetes.io~configmap/conf/app.ini")).is_ok_and(|t| t == "two")
    })
    .await;
    std::fs::write(volumes.join("kubernetes.io~empty-dir/shared/die"), "").unwrap();
    lab.until("it runs again", || lab.log(&path, "a", 1) == "two\n").await;
    finish(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_takes_variables_from_a_file_of_another_one() {
    let lab = Lab::start().await;
    let from = |key: &str, optional: bool| json!({"fileKeyRef": {"volumeName": "v", "path": "conf/env", "key": key, "optional": optional}});
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let path = lab.create(
        "file",
        json!({"restartPolicy": "Never", "volumes": [{"name": "v", "emptyDir": {}}],
            "initContainers": [{"name": "i", "image": IMAGE, "volumeMounts": mounts,
                "command": shell("mkdir /v/conf && echo \"ADDRESS='db:5432' # found\" > /v/conf/env")}],
            "containers": [{"name": "a", "image": IMAGE, "command": shell("echo $A-$B-$C"), "env": [
                {"name": "A", "valueFrom": from("ADDRESS", false)}, {"name": "B", "valueFrom": from("OTHER", true)},
                {"name": "C", "value": "$(A)"}]}]}),
    );
    lab.until("it ends", || lab.status(&path)["containerStatuses"][0]["state"]["terminated"]["exitCode"].is_number()).await;
    assert_eq!(lab.log(&path, "a", 0), "db:5432--db:5432\n");
    finish(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d01_a_handler_that_the_runtime_lacks_is_an_event_and_nothing_runs() {
    let lab = Lab::start().await;
    lab.api.put("/apis/node.k8s.io/v1/runtimeclasses/kata", json!({"metadata": {"name": "kata"}, "handler": "kata-qemu"}));
    for (name, class) in [("lacks-handler", "kata"), ("lacks-class", "gvisor")] {
        lab.create(name, json!({"runtimeClassName": class, "containers": [{"name": "a", "image": IMAGE, "command": shell(FOREVER)}]}));
    }
    let told = |part: &str| lab.events().iter().any(|e| e.starts_with("FailedCreatePodSandBox") && e.contains(part));
    lab.until("both are told", || told("kata-qemu") && told("runtimeclass.node.k8s.io \"gvisor\" not found")).await;
    assert_eq!(lab.tasks(), 0);
    finish(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d11_an_ephemeral_container_sees_its_targets_processes() {
    let lab = Lab::start().await;
    let path = lab
        .create("p", json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "a", "image": IMAGE, "command": shell(FOREVER)}]}));
    lab.until("it is ready", || condition(&lab.status(&path), "Ready") == "True").await;
    let mut pod = lab.api.get(&path).unwrap();
    pod["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": IMAGE, "targetContainerName": "a", "command": shell("cat /proc/1/cmdline | tr '\\0' ' '; echo")}]);
    lab.api.put(&path, pod);
    let state = || lab.status(&path)["ephemeralContainerStatuses"][0]["state"].clone();
    lab.until("it has run", || state()["terminated"]["exitCode"] == 0).await;
    assert!(lab.log(&path, "debug", 0).contains("while true"), "{}", lab.log(&path, "debug", 0));
    let address = lab.kubelet.as_ref().unwrap().address().unwrap();
    let (code, log) = client::get(address, "/containerLogs/default/p/debug", "good").await;
    assert!(code == 200 && log.contains("while true"), "{code} {log}");
    assert_eq!((condition(&lab.status(&path), "Ready"), lab.tasks()), ("True", 2));
    finish(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d11_a_running_container_gets_other_limits() {
    let lab = Lab::start().await;
    let sized = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}});
    let path = lab.create(
        "p",
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "a", "image": IMAGE, "command": shell(FOREVER), "resources": sized("100m", "32Mi")}]}),
    );
    lab.until("it is ready", || condition(&lab.status(&path), "Ready") == "True").await;
    let container = || lab.status(&path)["containerStatuses"][0].clone();
    let id = container()["containerID"].as_str().unwrap().trim_start_matches("containerd://").to_string();
    let uid = lab.api.get(&path).unwrap()["metadata"]["uid"].as_str().unwrap().to_string();
    let read = |file: &str, controller: &str, below: &str| {
        let root = format!("/sys/fs/cgroup/{controller}{}/kubepods/pod{uid}{below}", lab.containerd.cgroup_root);
        std::fs::read_to_string(format!("{root}/{file}")).unwrap_or_default().trim().to_string()
    };
    for (cpu, memory, quota, bytes) in [("200m", "64Mi", "20000", 64 << 20), ("50m", "48Mi", "5000", 48 << 20)] {
        let mut pod = lab.api.get(&path).unwrap();
        pod["spec"]["containers"][0]["resources"] = sized(cpu, memory);
        lab.api.put(&path, pod);
        lab.until("the status has it", || container()["resources"]["limits"]["cpu"] == cpu).await;
        for below in ["", &format!("/{id}")] {
            assert_eq!(read("cpu.cfs_quota_us", "cpu", below), quota, "{below}");
            assert_eq!(read("memory.limit_in_bytes", "memory", below), bytes.to_string(), "{below}");
        }
    }
    assert_eq!((container()["restartCount"].as_i64(), container()["allocatedResources"]["cpu"].as_str()), (Some(0), Some("50m")));
    finish(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_exec_in_the_oldest_websocket_form_says_nothing_of_a_success() {
    let lab = Lab::start().await;
    let path = lab
        .create("p", json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "a", "image": IMAGE, "command": shell(FOREVER)}]}));
    lab.until("it is ready", || condition(&lab.status(&path), "Ready") == "True").await;
    let address = lab.kubelet.as_ref().unwrap().address().unwrap();
    let exec = |command: &str| format!("/exec/default/p/a?output=1&error=1&command=/bin/sh&command=-c&command={command}");
    let messages = client::messages(address, &exec("echo+remote"), "channel.k8s.io").await;
    let with_text: Vec<&(u8, String)> = messages.iter().filter(|(_, text)| !text.is_empty()).collect();
    assert_eq!(with_text, [&(1, "remote\n".to_string())]);
    let messages = client::messages(address, &exec("exit+7"), "channel.k8s.io").await;
    assert!(messages.iter().any(|(channel, text)| *channel == 3 && text.contains("exit code 7")), "{messages:?}");
    finish(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_17_idle_connections_of_one_peer_take_nothing_from_others() {
    let lab = Lab::start().await;
    let address = lab.kubelet.as_ref().unwrap().address().unwrap();
    let mut idle = Vec::new();
    for _ in 0..700 {
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let answer = tokio::time::timeout(Duration::from_secs(20), client::get(address, "/pods", "good")).await;
    assert_eq!(answer.expect("the API answers").0, 200);
    drop(idle);
    finish(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_many_configmap_volumes_start_as_fast_as_few() {
    let lab = Lab::start().await;
    let names: Vec<String> = (0..50).map(|i| format!("racey-{i}")).collect();
    for name in &names {
        lab.api.put(
            &format!("/api/v1/namespaces/default/configmaps/{name}"),
            json!({"metadata": {"name": name}, "data": {"data-1": "value-1"}}),
        );
    }
    let volumes: Vec<Value> =
        names.iter().map(|n| json!({"name": n, "configMap": {"name": n, "items": [{"key": "data-1", "path": "data-1"}]}})).collect();
    let mounts: Vec<Value> = names.iter().map(|n| json!({"name": n, "mountPath": format!("/etc/config-{n}")})).collect();
    let mut paths = Vec::new();
    let began = tokio::time::Instant::now();
    for pod in 0..5 {
        paths.push(lab.create(
            &format!("wrapped-{pod}"),
            json!({"terminationGracePeriodSeconds": 0, "volumes": volumes,
                "containers": [{"name": "a", "image": IMAGE, "command": shell(FOREVER), "volumeMounts": mounts}]}),
        ));
    }
    lab.until("all five are ready", || paths.iter().all(|p| condition(&lab.status(p), "Ready") == "True")).await;
    println!("five pods with fifty volumes each took {:?}", began.elapsed());
    finish(lab).await;
}
