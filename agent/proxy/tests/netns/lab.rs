//! A node in a network namespace: a bridge `cni0`, pods on it, and a machine outside.
//!
//! The node is the namespace of the test's thread and ends with it. Pods and the machine outside have named namespaces, which are
//! removed when the lab is dropped.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(2);
static NUMBER: AtomicU32 = AtomicU32::new(0);

pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A named network namespace.
#[derive(Clone)]
pub struct Namespace(String);

impl Namespace {
    /// Runs on a thread that is inside.
    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let path = format!("/run/netns/{}", self.0);
        let thread = std::thread::spawn(move || {
            nix::sched::setns(std::fs::File::open(path).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    /// Answers each connection with the client's address.
    pub fn serve_tcp(&self, port: u16) {
        let listener = self.inside(move || TcpListener::bind(("0.0.0.0", port)).unwrap());
        serve(listener);
    }

    /// A server that answers with its own port.
    pub fn serve_port(&self, port: u16) {
        let listener = self.inside(move || TcpListener::bind(("0.0.0.0", port)).unwrap());
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(port.to_string().as_bytes());
            }
        });
    }

    pub fn serve_udp(&self, port: u16) {
        let socket = self.inside(move || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, client)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(client.ip().to_string().as_bytes(), client);
            }
        });
    }

    /// The address that the server saw.
    pub fn ask(&self, address: &str) -> io::Result<String> {
        let address: SocketAddr = address.parse().unwrap();
        self.inside(move || ask(address))
    }

    /// As `ask`, with a host route to the address through a gateway.
    pub fn ask_via(&self, gateway: &str, address: &str) -> io::Result<String> {
        let ip = address.parse::<SocketAddr>().unwrap().ip();
        let ns = &self.0;
        // Even with loopback off inside, and martians let out.
        sh(&format!(
            "ip netns exec {ns} sysctl -qw net.ipv4.conf.all.route_localnet=1; ip -n {ns} addr del 127.0.0.1/8 dev lo; ip -n {ns} route del local {ip} table local 2>/dev/null; ip -n {ns} route add {ip} via {gateway}"
        ));
        self.ask(address)
    }
}

fn serve(listener: TcpListener) {
    std::thread::spawn(move || {
        while let Ok((mut stream, client)) = listener.accept() {
            let _ = stream.write_all(client.ip().to_string().as_bytes());
        }
    });
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub struct Lab {
    id: String,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let prefix = format!("{}-", self.id);
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) {
                let _ = Command::new("ip").args(["netns", "del", &name]).status();
            }
        }
    }
}

impl Lab {
    /// Runs a test on a thread with a node of its own.
    pub fn run(test: impl AsyncFnOnce(&Lab) + Send + 'static) {
        let thread = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let lab = Lab { id: format!("trt{}n{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)) };
            sh("ip link set lo up; ip link add cni0 type bridge; ip addr add 10.42.0.1/24 dev cni0; ip link set cni0 up
                echo 1 > /proc/sys/net/ipv4/ip_forward");
            // Not there on kernels without br_netfilter: then nothing on the bridge passes the rules.
            sh("[ ! -e /proc/sys/net/bridge ] || echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables");
            let outside = lab.namespace("out");
            lab.link(&outside, "eth0", lab.outside_ip(), lab.node_ip());
            sh(&format!("ip addr add {}/24 dev eth0; ip link set eth0 up; ip route add default via {}", lab.node_ip(), lab.outside_ip()));
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test(&lab));
        });
        thread.join().unwrap();
    }

    pub fn node_ip(&self) -> &'static str {
        "192.0.2.10"
    }

    pub fn outside_ip(&self) -> &'static str {
        "192.0.2.1"
    }

    pub fn outside(&self) -> Namespace {
        Namespace(format!("{}-out", self.id))
    }

    fn namespace(&self, name: &str) -> Namespace {
        let name = format!("{}-{name}", self.id);
        sh(&format!("ip netns add {name}; ip -n {name} link set lo up"));
        Namespace(name)
    }

    /// A link between the node (`host_link`) and a namespace, whose end gets an address and a default route.
    fn link(&self, namespace: &Namespace, host_link: &str, address: &str, gateway: &str) {
        let ns = &namespace.0;
        sh(&format!(
            "ip link add {host_link} type veth peer name eth0 netns {ns}
            ip -n {ns} addr add {address}/24 dev eth0; ip -n {ns} link set eth0 up; ip -n {ns} route add default via {gateway}"
        ));
    }

    pub fn pod(&self, name: &str, address: &str) -> Namespace {
        let namespace = self.namespace(name);
        self.link(&namespace, &format!("veth{name}"), address, "10.42.0.1");
        sh(&format!("ip link set veth{name} master cni0 up; bridge link set dev veth{name} hairpin on"));
        namespace
    }

    /// The address that the server saw, asked from the node.
    pub async fn ask(&self, address: &str) -> io::Result<String> {
        let address: SocketAddr = address.parse().unwrap();
        let connect = async {
            use tokio::io::AsyncReadExt;
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer)
        };
        tokio::time::timeout(TIMEOUT, connect).await?
    }

    pub async fn ask_udp(&self, address: &str) -> io::Result<()> {
        let address: SocketAddr = address.parse().unwrap();
        let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await?;
        socket.connect(address).await?;
        socket.send(b"x").await?;
        tokio::time::timeout(TIMEOUT, socket.recv(&mut [0; 64])).await??;
        Ok(())
    }

    /// A service of the node that listens on loopback only.
    pub fn serve_loopback(&self, port: u16) {
        serve(TcpListener::bind(("127.0.0.1", port)).unwrap());
    }

    pub async fn until(&self, patience: Duration, condition: impl AsyncFn() -> bool) {
        let met = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(patience, met).await.expect("the condition is met in time");
    }
}
