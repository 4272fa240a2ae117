//! Real rules and real traffic in network namespaces made for it. Needs root.
#![allow(clippy::unwrap_used)]

#[path = "netns/api.rs"]
mod api;
#[path = "netns/lab.rs"]
mod lab;

use std::time::Duration;

use lab::{Lab, sh};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use trireme_client::{Informer, InformerOptions};
use trireme_proxy::{
    Proxier, ProxyOptions,
    host_ports::{HostPorts, Mapping},
    services::Protocol,
};

const SERVICE: &str = "/api/v1/namespaces/default/services/web";
const EMPTY: &str = "/api/v1/namespaces/default/services/empty";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web-1";

fn proxier(api: &api::Api, cancel: &CancellationToken) -> Proxier {
    let services = Informer::start(api.client(), InformerOptions::default(), cancel.clone());
    let slices = Informer::start(api.client(), InformerOptions::default(), cancel.clone());
    let options = ProxyOptions {
        node_name: "n1".into(),
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        service_cidr: Some("10.43.0.0/16".parse().unwrap()),
        node_port_networks: Vec::new(),
        translated: None,
    };
    let nodes = Informer::start(api.client(), InformerOptions::default(), cancel.clone());
    Proxier::new(options, services, slices, nodes)
}

fn web(endpoint: &str) -> [(&'static str, serde_json::Value); 3] {
    let empty = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": "empty", "resourceVersion": "4"},
        "spec": {"clusterIP": "10.43.0.8", "ports": [{"port": 80, "protocol": "TCP"}]},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": "web", "resourceVersion": "5"},
        "spec": {"type": "NodePort", "clusterIP": "10.43.0.9", "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": "web-1", "resourceVersion": "6", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [endpoint], "conditions": {"ready": true}}],
    });
    [(EMPTY, empty), (SERVICE, service), (SLICE, slice)]
}

#[test]
fn vm_04_services_work_again_after_somebody_flushes_the_ruleset_and_health_says_so() {
    Lab::run(async |lab| {
        let pod = lab.pod("a", "10.42.0.5");
        pod.serve_tcp(8080);
        let cancel = CancellationToken::new();
        let proxier = proxier(&api::Api::with(web("10.42.0.5")), &cancel);
        let mut health = proxier.health();
        let stop = cancel.clone();
        let running = tokio::spawn(async move { proxier.run(stop).await });
        health.wait_for(|healthy| *healthy).await.unwrap();
        assert_eq!(lab.ask("10.43.0.9:80").await.unwrap(), "10.42.0.1", "from the host, by cluster IP");
        lab.ask(&format!("{}:30080", lab.node_ip())).await.unwrap();
        for address in ["10.43.0.9:80".to_owned(), format!("{}:30080", lab.node_ip())] {
            assert_eq!(pod.ask(&address).unwrap(), "10.42.0.1", "a pod reaches itself at {address}, and sees the node");
        }
        for (address, what) in [("10.43.0.9:81", "another port of a cluster IP"), ("10.43.0.8:80", "a Service without endpoints")] {
            let refused = lab.ask(address).await.unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{what} is rejected at once");
            assert!(pod.ask(address).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused), "{what}, from a pod");
        }
        for harm in ["nft flush ruleset", "nft delete table ip trireme", "nft flush chain ip trireme services"] {
            health.mark_unchanged();
            sh(harm);
            health.changed().await.unwrap();
            health.wait_for(|healthy| *healthy).await.unwrap();
            lab.ask("10.43.0.9:80").await.unwrap();
        }
        cancel.cancel();
        running.await.unwrap().unwrap();
    });
}

/// Few endpoints are chosen among by rules, many by a map.
#[test]
fn every_endpoint_of_few_and_of_many_takes_connections() {
    Lab::run(async |lab| {
        let pod = lab.pod("a", "10.42.0.5");
        for port in 8000..8012 {
            pod.serve_port(port);
        }
        let service = |name: &str, ip: &str| {
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": name, "resourceVersion": "5"},
                "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
            })
        };
        let slice = |service: &str, port: u16| {
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"namespace": "default", "name": format!("{service}-{port}"), "resourceVersion": "6",
                    "labels": {"kubernetes.io/service-name": service}},
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
                "endpoints": [{"addresses": ["10.42.0.5"], "conditions": {"ready": true}}],
            })
        };
        let path = |kind: &str, name: &str| format!("{kind}/{name}");
        let (services, slices) = ("/api/v1/namespaces/default/services", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices");
        let mut objects =
            vec![(path(services, "few"), service("few", "10.43.0.10")), (path(services, "many"), service("many", "10.43.0.11"))];
        objects.extend((8000..8003).map(|port| (path(slices, &format!("few-{port}")), slice("few", port))));
        objects.extend((8000..8012).map(|port| (path(slices, &format!("many-{port}")), slice("many", port))));
        let api = api::Api::with(objects.iter().map(|(path, object)| (path.as_str(), object.clone())));
        let cancel = CancellationToken::new();
        let proxier = proxier(&api, &cancel);
        let mut health = proxier.health();
        let stop = cancel.clone();
        let running = tokio::spawn(async move { proxier.run(stop).await });
        health.wait_for(|healthy| *healthy).await.unwrap();
        for (address, endpoints) in [("10.43.0.10:80", 3), ("10.43.0.11:80", 12)] {
            let mut answered = std::collections::BTreeSet::new();
            // One of twelve stays unseen with a chance below one in a million of a million.
            for _ in 0..400 {
                answered.insert(lab.ask(address).await.unwrap());
            }
            assert_eq!(answered.len(), endpoints, "{address}: {answered:?}");
        }
        cancel.cancel();
        running.await.unwrap().unwrap();
    });
}

fn mapping(protocol: Protocol, host_ip: Option<&str>, host_port: u16, container_port: u16) -> Mapping {
    Mapping { protocol, host_ip: host_ip.map(|ip| ip.parse().unwrap()), host_port, container_port }
}

#[test]
fn d04_security_25_vm_08_a_host_port_reaches_the_pod_from_everywhere_and_ends_with_it() {
    Lab::run(async |lab| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("host-ports.json");
        let (pod, other) = (lab.pod("a", "10.42.0.5"), lab.pod("b", "10.42.0.6"));
        pod.serve_tcp(8080);
        pod.serve_udp(53);
        let ports = HostPorts::open("cni0", &file).unwrap();
        let wanted = [mapping(Protocol::Tcp, None, 8088, 8080), mapping(Protocol::Udp, None, 5353, 53)];
        ports.set("uid-a", "10.42.0.5".parse().unwrap(), &wanted).await.unwrap();
        let node = lab.node_ip();
        assert_eq!(lab.ask("127.0.0.1:8088").await.unwrap(), "10.42.0.1", "from the host, on loopback");
        lab.ask(&format!("{node}:8088")).await.unwrap();
        lab.ask_udp(&format!("{node}:5353")).await.unwrap();
        lab.ask_udp("127.0.0.1:5353").await.unwrap();
        assert_eq!(lab.outside().ask(&format!("{node}:8088")).unwrap(), lab.outside_ip(), "a client outside keeps its address");
        other.ask(&format!("{node}:8088")).unwrap();
        pod.ask(&format!("{node}:8088")).unwrap();

        // Loopback services of the host are not open to pods.
        lab.serve_loopback(9999);
        assert!(other.ask_via("10.42.0.1", "127.0.0.1:9999").is_err());

        let clash = ports.set("uid-b", "10.42.0.6".parse().unwrap(), &wanted[..1]).await.unwrap_err();
        assert_eq!(clash, "host port 8088/tcp is in use by the pod with UID uid-a");

        // After a restart of the agent the mapping is still known; it is put back when another program removes it.
        drop(ports);
        let ports = std::sync::Arc::new(HostPorts::open("cni0", &file).unwrap());
        let cancel = CancellationToken::new();
        let (running, stop) = (ports.clone(), cancel.clone());
        let running = tokio::spawn(async move { running.run(stop).await });
        sh("nft flush ruleset");
        lab.until(Duration::from_secs(30), async || lab.ask(&format!("{node}:8088")).await.is_ok()).await;
        ports.set("uid-b", "10.42.0.6".parse().unwrap(), &wanted[..1]).await.unwrap();
        ports.clear("uid-a").await.unwrap();
        assert!(lab.ask_udp(&format!("{node}:5353")).await.is_err(), "the pod whose mapping was of old has lost it");
        ports.clear("uid-b").await.unwrap();
        assert!(!sh("nft list tables").contains("trireme_host_ports"), "without mappings there is no table");
        cancel.cancel();
        running.await.unwrap().unwrap();
    });
}

#[test]
fn d04_a_host_ip_is_honoured() {
    Lab::run(async |lab| {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (lab.pod("a", "10.42.0.5"), lab.pod("b", "10.42.0.6"));
        a.serve_tcp(8080);
        b.serve_tcp(8080);
        let ports = HostPorts::open("cni0", &folder.path().join("host-ports.json")).unwrap();
        let node = lab.node_ip();
        ports.set("uid-a", "10.42.0.5".parse().unwrap(), &[mapping(Protocol::Tcp, Some("127.0.0.1"), 8088, 8080)]).await.unwrap();
        lab.ask("127.0.0.1:8088").await.unwrap();
        assert!(lab.ask(&format!("{node}:8088")).await.is_err());
        ports.set("uid-b", "10.42.0.6".parse().unwrap(), &[mapping(Protocol::Tcp, Some(node), 8088, 8080)]).await.unwrap();
        lab.ask(&format!("{node}:8088")).await.unwrap();
    });
}
