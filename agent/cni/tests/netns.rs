//! Real links and routes in network namespaces made for it. Needs root.
#![allow(clippy::unwrap_used)]

// The same API server of fixed objects as the service proxy's tests have.
#[path = "../../proxy/tests/netns/api.rs"]
mod api;

use std::{process::Command, time::Duration};

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_client::{Informer, InformerOptions};
use trireme_cni::{
    Backend, Network, NetworkOptions,
    netlink::{Netlink, PodLink},
};

/// Runs a test on a thread with an empty network namespace of its own, which ends with the thread.
fn in_new_namespace(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    thread.join().unwrap();
}

fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn until(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), met).await.expect("the condition is met in time");
}

#[test]
fn vm_11_a_host_without_a_default_route_reaches_services() {
    in_new_namespace(async || {
        sh("ip link set lo up; ip link add eth0 type bridge; ip addr add 192.0.2.10/24 dev eth0; ip link set eth0 up");
        sh("nft add table ip t; nft add chain ip t o '{ type nat hook output priority -100; }'
            nft add rule ip t o ip daddr 10.43.0.9 tcp dport 80 dnat to 192.0.2.10:8080");
        let listener = tokio::net::TcpListener::bind("192.0.2.10:8080").await.unwrap();
        let connect = || tokio::net::TcpStream::connect("10.43.0.9:80");
        let error = connect().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable, "{error}");
        let (netlink, services) = (Netlink::connect().unwrap(), "10.43.0.0/16".parse().unwrap());
        for _ in 0..2 {
            netlink.ensure_fallback_route(services, [192, 0, 2, 10].into()).await.unwrap();
        }
        let (connected, _) = tokio::join!(connect(), listener.accept());
        assert_eq!(connected.unwrap().local_addr().unwrap().ip().to_string(), "192.0.2.10");
        for _ in 0..2 {
            netlink.delete_fallback_route(services).await.unwrap();
        }
        assert_eq!(sh("ip route show table default 2>/dev/null || true"), "");
    });
}

#[test]
fn addresses_of_links_that_are_there_are_added_and_removed() {
    in_new_namespace(async || {
        sh("ip link set lo up");
        let (netlink, dns) = (Netlink::connect().unwrap(), "10.43.0.10/32".parse().unwrap());
        netlink.add_address("lo", dns).await.unwrap();
        netlink.add_address("lo", dns).await.unwrap();
        assert!(netlink.has_address("lo", dns).await.unwrap());
        netlink.delete_address("lo", dns).await.unwrap();
        netlink.delete_address("lo", dns).await.unwrap();
        assert!(!netlink.has_address("lo", dns).await.unwrap());
        netlink.delete_address("no-such-link", dns).await.unwrap();
    });
}

/// A named network namespace, which ends with the test.
struct Pod(String);

impl Pod {
    fn new(name: &str) -> Pod {
        let name = format!("trc{}{name}", std::process::id());
        sh(&format!("ip netns add {name}"));
        Pod(name)
    }

    fn sh(&self, command: &str) -> String {
        sh(&format!("ip netns exec {} {command}", self.0))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        sh(&format!("ip netns del {}", self.0));
    }
}

/// Without a fixed one, the bridge's MAC is the least of its ports': when it changes, what pods send to the node is lost for half a minute.
#[test]
fn the_mac_of_the_bridge_stays_while_pods_come_and_go() {
    in_new_namespace(async || {
        sh("ip link set lo up");
        let netlink = Netlink::connect().unwrap();
        let (mac, gateway) = (|link: &str| sh(&format!("ip -br link show {link} | awk '{{print $3}}'")), "10.42.0.1/24".parse().unwrap());
        let bridge = netlink.ensure_bridge("cni0", gateway, 1500).await.unwrap();
        let first = mac("cni0");
        let pod = Pod::new("a");
        let link = PodLink {
            host_name: "vetha".into(),
            pod_name: "eth0".into(),
            address: [10, 42, 0, 9].into(),
            prefix_len: 24,
            gateway: [10, 42, 0, 1].into(),
            mtu: 1500,
        };
        let namespace = format!("/run/netns/{}", pod.0);
        netlink.attach_pod(bridge, namespace.as_ref(), &link).await.unwrap();
        let reach_node = "timeout 5 bash -c 'exec 3<>/dev/tcp/10.42.0.1/7000'";
        let _node = std::net::TcpListener::bind("10.42.0.1:7000").unwrap();
        pod.sh(reach_node);
        sh("ip link add low type veth peer name low-peer; ip link set low address 02:00:00:00:00:01 master cni0 up");
        assert_eq!(mac("cni0"), first, "a port with a lower MAC came");
        sh("ip link del low");
        assert_eq!(mac("cni0"), first, "it went");
        pod.sh(reach_node);
        assert!(pod.sh("ip -br link show eth0").contains("0a:58:0a:2a:00:09"), "the MAC is derived from the address");

        // A bridge of an earlier release keeps the MAC that its pods know.
        sh(
            "ip link del cni0; ip link add cni0 type bridge; ip link add port type veth peer name port-peer; ip link set port master cni0 up",
        );
        let known = mac("cni0");
        netlink.ensure_bridge("cni0", gateway, 1500).await.unwrap();
        sh("ip link del port; ip link add low type veth peer name low-peer; ip link set low address 02:00:00:00:00:01 master cni0 up");
        assert_eq!(mac("cni0"), known);
    });
}

fn node(name: &str, cidr: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "resourceVersion": "5"}, "spec": {"podCIDR": cidr},
        "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
    })
}

#[test]
fn d09_a_peer_in_another_subnet_keeps_no_other_from_being_routed_to_and_is_tried_again() {
    in_new_namespace(async || {
        sh("ip link set lo up; ip link add eth0 type bridge; ip addr add 192.0.2.10/24 dev eth0; ip link set eth0 up");
        let api = api::Api::with([
            ("/api/v1/nodes/a-me", node("a-me", "10.42.0.0/24", "192.0.2.10")),
            ("/api/v1/nodes/b-far", node("b-far", "10.42.1.0/24", "198.51.100.1")),
            ("/api/v1/nodes/c-near", node("c-near", "10.42.2.0/24", "192.0.2.12")),
        ]);
        let cancel = CancellationToken::new();
        let nodes = Informer::<Node>::start(api.client(), InformerOptions::default(), cancel.clone());
        let folder = tempfile::tempdir().unwrap();
        let options = NetworkOptions {
            node_name: "a-me".into(),
            node_ip: [192, 0, 2, 10].into(),
            backend: Backend::HostGw,
            folder: folder.path().to_owned(),
            owns_links: false,
        };
        let network = Network::new(options, None).await.unwrap();
        let running = tokio::spawn(async move { network.run(nodes, cancel).await });
        until(|| sh("ip route show 10.42.2.0/24").contains("via 192.0.2.12")).await;
        assert_eq!(sh("ip route show 10.42.1.0/24"), "");
        // The network between them changes; no Node object does.
        sh("ip addr add 198.51.100.2/24 dev eth0");
        until(|| sh("ip route show 10.42.1.0/24").contains("via 198.51.100.1")).await;
        running.abort();
    });
}
