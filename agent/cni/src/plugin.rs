//! The plugin process that containerd executes: the `trireme` binary under the name of a CNI plugin.
//!
//! Reads the request from its environment and standard input, asks the agent, prints the answer. Holds no state. Under
//! the name `loopback` it sets the pod's loopback link up by itself, which containerd asks for before anything else.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    Error, netlink,
    server::{Answer, MAX_MESSAGE, Request},
};

/// The plugin's name in the CNI configuration.
pub const PLUGIN: &str = "trireme-cni";
/// The name under which containerd looks for the loopback plugin.
pub const LOOPBACK: &str = "loopback";

/// Writes the CNI configuration and the plugin's links to this binary.
pub fn install(conf_dir: &Path, bin_dir: &Path, socket: &Path, binary: &Path) -> Result<(), Error> {
    for dir in [conf_dir, bin_dir] {
        std::fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))?;
    }
    for name in [PLUGIN, LOOPBACK] {
        let link = bin_dir.join(name);
        let fresh = bin_dir.join(format!(".{name}.new"));
        drop(std::fs::remove_file(&fresh));
        std::os::unix::fs::symlink(binary, &fresh).map_err(Error::io(format!("link {}", fresh.display())))?;
        std::fs::rename(&fresh, &link).map_err(Error::io(format!("link {}", link.display())))?;
    }
    let conf = json!({
        "cniVersion": "1.0.0",
        "name": "trireme",
        "plugins": [{"type": PLUGIN, "socket": socket, "capabilities": {}}],
    });
    let path = conf_dir.join("10-trireme.conflist");
    let fresh = conf_dir.join(".10-trireme.conflist.new");
    std::fs::write(&fresh, conf.to_string()).map_err(Error::io(format!("write {}", fresh.display())))?;
    std::fs::rename(&fresh, &path).map_err(Error::io(format!("write {}", path.display())))
}

/// The whole plugin process. `name` is what it was called as.
pub fn main(name: &str) -> ExitCode {
    let mut input = String::new();
    if let Err(error) = std::io::stdin().take(MAX_MESSAGE).read_to_string(&mut input) {
        return fail("0.3.1", 4, &error.to_string());
    }
    let config: Value = serde_json::from_str(&input).unwrap_or(Value::Null);
    let version = config["cniVersion"].as_str().unwrap_or("0.3.1").to_owned();
    match run(name, &config, &version) {
        Ok(Value::Null) => ExitCode::SUCCESS,
        Ok(result) => print(&result),
        Err(message) => fail(&version, 999, &message),
    }
}

fn run(name: &str, config: &Value, version: &str) -> Result<Value, String> {
    let var = |key: &str| std::env::var(key).ok().filter(|v| !v.is_empty());
    let command = var("CNI_COMMAND").ok_or("CNI_COMMAND is not set: this program is run by a container runtime")?;
    if command == "VERSION" {
        return Ok(json!({"cniVersion": version, "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0"]}));
    }
    let netns = var("CNI_NETNS").map(PathBuf::from);
    if name == LOOPBACK {
        return loopback(&command, netns, version);
    }
    let request = Request {
        command,
        container_id: var("CNI_CONTAINERID").ok_or("CNI_CONTAINERID is not set")?,
        netns,
        interface: var("CNI_IFNAME").unwrap_or_else(|| "eth0".into()),
        cni_version: version.to_owned(),
        args: var("CNI_ARGS").unwrap_or_default(),
    };
    let socket = config["socket"].as_str().ok_or("the CNI configuration names no socket")?;
    match ask(Path::new(socket), &request).map_err(|e| format!("trireme agent at {socket}: {e}"))? {
        Answer::Ok(result) => Ok(result),
        Answer::Err(message) => Err(message),
    }
}

fn ask(socket: &Path, request: &Request) -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(&serde_json::to_vec(request)?)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut body = Vec::new();
    stream.take(MAX_MESSAGE).read_to_end(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

fn loopback(command: &str, netns: Option<PathBuf>, version: &str) -> Result<Value, String> {
    if command != "ADD" {
        return Ok(Value::Null);
    }
    let netns = netns.ok_or("CNI_NETNS is not set")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let work = netlink::in_namespace(&netns, |netlink| async move { netlink.loopback_up().await });
    runtime.block_on(work).map_err(|e| e.to_string())?;
    Ok(
        json!({"cniVersion": version, "interfaces": [{"name": "lo", "sandbox": netns}], "ips": [{"version": "4", "address": "127.0.0.1/8", "interface": 0}]}),
    )
}

fn print(result: &Value) -> ExitCode {
    match writeln!(std::io::stdout(), "{result}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(version: &str, code: u32, message: &str) -> ExitCode {
    print(&json!({"cniVersion": version, "code": code, "msg": message}));
    ExitCode::FAILURE
}
