//! An image registry of a test's own: Debian's `docker-registry` on a loopback port, filled by `skopeo`.

use std::{
    fs::File,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

/// The user that may push to and pull from a private registry.
pub const USER: &str = "anna";
/// The user's password.
pub const PASSWORD: &str = "open sesame";
/// The user's line in a password file (bcrypt, which nothing on a plain machine can make).
const HTPASSWD: &str = "anna:$2b$05$U0irL9ZW4ZbsuPpcQ2/J/ucwiwWl55yM08he.2YonVL0erKkv3f1q\n";
const PATIENCE: Duration = Duration::from_secs(60);

/// A running registry; ended when dropped.
#[derive(Debug)]
pub struct Registry {
    folder: TempDir,
    address: String,
    is_private: bool,
    child: Child,
}

impl Registry {
    /// A registry without a password.
    pub fn open() -> anyhow::Result<Self> {
        Self::start(false)
    }

    /// A registry that wants a password.
    pub fn private() -> anyhow::Result<Self> {
        Self::start(true)
    }

    fn start(is_private: bool) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("trireme-registry-").tempdir()?;
        // By the loopback address: containerd then speaks plain HTTP without being told to.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (data, users) = (folder.path().join("data"), folder.path().join("htpasswd"));
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            data.display()
        );
        if is_private {
            std::fs::write(&users, HTPASSWD)?;
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display()));
        }
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config)?;
        let log = File::create(folder.path().join("log"))?;
        let child = Command::new("docker-registry").arg("serve").arg(&file).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.context("run docker-registry (apt-get install docker-registry)")?;
        let mut registry = Self { folder, address, is_private, child };
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(&registry.address).is_err() {
            if registry.child.try_wait()?.is_some() || Instant::now() > end {
                bail!("the registry does not start: {}", std::fs::read_to_string(registry.folder.path().join("log"))?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Pushes the box image under this name and tag; the whole name.
    pub fn push_box(&self, name: &str) -> anyhow::Result<String> {
        let image = format!("{}/{name}", self.address);
        let mut copy = vec!["--dest-tls-verify=false".to_owned()];
        if self.is_private {
            copy.push(format!("--dest-creds={USER}:{PASSWORD}"));
        }
        skopeo(&copy, &format!("docker://{image}"))?;
        Ok(image)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies the box image to wherever skopeo can put it.
pub fn skopeo(options: &[String], to: &str) -> anyhow::Result<()> {
    let from = "docker-archive:/var/lib/trireme-lab/images/box.tar";
    let output = Command::new("skopeo").args(["copy", "--quiet", "--insecure-policy"]).args(options).args([from, to]).output();
    let output = output.context("run skopeo (apt-get install skopeo)")?;
    ensure!(output.status.success(), "skopeo copy to {to}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
