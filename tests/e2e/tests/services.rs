//! Services of type LoadBalancer, through kubectl and a client on the host.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::ensure;
use trireme_harness::{Cluster, eventually};

const BOX: &str = "localhost/trireme/box:1";
const LONG: Duration = Duration::from_secs(90);
const SHORT: Duration = Duration::from_secs(2);

fn get(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, SHORT)?;
    stream.set_read_timeout(Some(SHORT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_load_balancer_is_the_nodes_addresses_its_port_is_one_service_s_and_its_ranges_limit_clients() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("balanced")?;
    ns.kubectl(&["run", "web", "--image", BOX])?;
    ns.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"])?;
    ns.kubectl(&["expose", "pod", "web", "--type=LoadBalancer", "--port=18088", "--target-port=8080"])?;
    let shown = |name: &str| ns.kubectl(&["get", "service", name, "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"]);
    let ip = eventually("the Service to have an address", LONG, || {
        let ip = shown("web")?;
        ensure!(!ip.is_empty(), "none yet");
        Ok(ip)
    })?;
    let node = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}"])?;
    ensure!(ip == node, "{ip} is not the node's address {node}");
    let address: SocketAddr = format!("{ip}:18088").parse()?;
    eventually("the Service to answer there", LONG, || {
        ensure!(get(address)?.contains("200 OK"));
        Ok(())
    })?;
    ns.kubectl(&["expose", "pod", "web", "--name=second", "--type=LoadBalancer", "--port=18088", "--target-port=8080"])?;
    eventually("the second Service to be told why it has none", LONG, || {
        let events = ns.kubectl(&["get", "events", "--field-selector=involvedObject.name=second"])?;
        ensure!(events.contains("PortInUse") && events.contains("/web"), "{events}");
        Ok(())
    })?;
    ensure!(shown("second")?.is_empty());
    ns.kubectl(&["patch", "service", "web", "-p", r#"{"spec":{"loadBalancerSourceRanges":["203.0.113.0/24"]}}"#])?;
    eventually("other clients to be turned away", LONG, || {
        ensure!(get(address).is_err());
        Ok(())
    })?;
    ns.kubectl(&["patch", "service", "web", "-p", &format!(r#"{{"spec":{{"loadBalancerSourceRanges":["{ip}/32"]}}}}"#)])?;
    eventually("a client of the ranges to be served", LONG, || {
        ensure!(get(address)?.contains("200 OK"));
        Ok(())
    })?;
    ns.kubectl(&["delete", "service", "web"])?;
    eventually("the next one to get the port", LONG, || {
        ensure!(shown("second")? == ip && get(address)?.contains("200 OK"));
        Ok(())
    })
}
