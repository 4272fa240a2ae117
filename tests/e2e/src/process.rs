//! The `trireme` binary as a process of a test's own.
//!
//! Owns that such a process cannot touch what others run on this host: every option that has a place outside the test's folder as
//! its default is set through the environment, so a test that forgets a flag still stays in its folder.

use std::{
    fs::File,
    io::Read,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

/// Nothing in these tests takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test: `TRIREME_BINARY`, else the one that cargo built.
pub fn binary() -> anyhow::Result<PathBuf> {
    let path = match (std::env::var_os("TRIREME_BINARY"), std::env::var_os("CARGO_TARGET_DIR")) {
        (Some(binary), _) => PathBuf::from(binary),
        (None, Some(target)) => PathBuf::from(target).join("debug/trireme"),
        (None, None) => trireme_harness::repository().join("target/debug/trireme"),
    };
    ensure!(path.exists(), "{} is missing: build it with `cargo build -p trireme`, or set TRIREME_BINARY", path.display());
    Ok(path)
}

/// A folder, three ports and a binary: where a test's processes live.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    /// For the API.
    pub https_port: u16,
    /// For the store.
    pub peer_port: u16,
    /// The address of a server here, on which it listens.
    pub address: String,
    /// Its name.
    pub name: String,
    /// For etcd's clients.
    pub etcd_port: u16,
    /// The network namespace it is in, if not this process's.
    pub network: Option<String>,
    /// More of its processes' environment.
    pub environment: Vec<(String, String)>,
}

/// What a process said and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// The one line meant for a person: there must be exactly one.
    pub fn complaint(&self) -> anyhow::Result<&str> {
        let mut lines = self.stderr.lines().filter_map(|l| l.strip_prefix("trireme: "));
        let line = lines.next().with_context(|| format!("no line begins with `trireme:`: {self:?}"))?;
        ensure!(lines.next().is_none() && self.stderr.ends_with(&format!("trireme: {line}\n")), "more than one line: {self:?}");
        ensure!(!self.stderr.contains("panicked"), "a panic: {self:?}");
        Ok(line)
    }

    /// Holds a failed start against what it must be: this exit code, and a line that contains all of `words`.
    pub fn must_say(&self, code: i32, words: &[&str]) -> anyhow::Result<()> {
        let line = self.complaint()?;
        ensure!(self.code == Some(code), "exit code {:?} instead of {code}: {line}", self.code);
        match words.iter().find(|word| !line.contains(**word)) {
            Some(word) => bail!("{line:?} does not say {word:?}"),
            None => Ok(()),
        }
    }
}

impl Place {
    /// A new one.
    pub fn new() -> anyhow::Result<Self> {
        // All are held while all are chosen, so that they differ.
        let held: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let ports: Vec<u16> = held.iter().map(|socket| Ok(socket.local_addr()?.port())).collect::<std::io::Result<_>>()?;
        let (https_port, peer_port, etcd_port) = (ports[0], ports[1], ports[2]);
        let folder = tempfile::Builder::new().prefix("trireme-test-").tempdir()?;
        Ok(Self {
            folder,
            https_port,
            peer_port,
            etcd_port,
            address: "127.0.0.1".into(),
            name: "test".into(),
            network: None,
            environment: Vec::new(),
        })
    }

    /// A new one for a server of this name at this address, one of the loopback network's.
    pub fn at(name: &str, address: &str) -> anyhow::Result<Self> {
        Ok(Self { address: address.into(), name: name.into(), ..Self::new()? })
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// The binary with these arguments, kept inside this place.
    pub fn command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = match &self.network {
            None => Command::new(binary()?),
            // Becomes the binary, under the same pid.
            Some(network) => {
                let mut entering = Command::new("nsenter");
                entering.arg(format!("--net=/run/netns/{network}")).arg(binary()?);
                entering
            }
        };
        // The planted bug stays set, in builds that have some.
        let ours = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("TRIREME_") && name != "TRIREME_MUTANT";
        for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
            command.env_remove(name);
        }
        let nowhere = self.path("empty.yaml");
        std::fs::write(&nowhere, "")?;
        command
            .env("TRIREME_DATA_DIR", self.data())
            .env("TRIREME_CONFIG_FILE", nowhere)
            .env("TRIREME_KUBECONFIG_OUTPUT", self.path("kubeconfig.yaml"))
            .env("TRIREME_CONTAINER_RUNTIME_ENDPOINT", self.path("no-runtime.sock"))
            .env("TRIREME_HTTPS_LISTEN_PORT", self.https_port.to_string())
            .env("TRIREME_PEER_PORT", self.peer_port.to_string())
            .env("TRIREME_ETCD_PORT", self.etcd_port.to_string())
            .env("TRIREME_BIND_ADDRESS", &self.address)
            .env("TRIREME_NODE_IP", &self.address)
            .env("TRIREME_NODE_NAME", &self.name)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(args)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<Ended> {
        self.run_command(self.command(args)?)
    }

    /// Runs a command to its end; one that does not end is killed, and an error.
    pub fn run_command(&self, mut command: Command) -> anyhow::Result<Ended> {
        let (out, err) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut child = command.stdout(out.try_clone()?).stderr(err.try_clone()?).spawn()?;
        let status = wait(&mut child);
        let ended = |code| -> anyhow::Result<Ended> { Ok(Ended { code, stdout: text(&out)?, stderr: text(&err)? }) };
        match status? {
            Some(status) => ended(status.code()),
            None => {
                child.kill()?;
                child.wait()?;
                bail!("did not end within {} s: {:?}", PATIENCE.as_secs(), ended(None)?)
            }
        }
    }

    /// Starts a server without a node, which tells this socket how it gets on (sd_notify).
    pub fn server_told(&self, args: &[&str], notify: &Path) -> anyhow::Result<Server<'_>> {
        let mut command = self.server_command(args)?;
        Ok(Server { place: self, child: command.env("NOTIFY_SOCKET", notify).spawn()? })
    }

    fn server_command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut all = vec!["server", "--disable-agent"];
        all.extend(args);
        let file = File::options().create(true).append(true).open(self.path("server.log"))?;
        let mut command = self.command(&all)?;
        command.stdout(file.try_clone()?).stderr(file);
        Ok(command)
    }

    /// Starts a server without a node.
    pub fn start(&self, args: &[&str]) -> anyhow::Result<Server<'_>> {
        let child = self.server_command(args)?.spawn()?;
        Ok(Server { place: self, child })
    }

    /// Starts a server without a node, and waits until it is ready.
    pub fn server(&self, args: &[&str]) -> anyhow::Result<Server<'_>> {
        let log = self.path("server.log");
        let mut server = self.start(args)?;
        let end = Instant::now() + PATIENCE;
        while !server.is_ready() {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended ({status}): {}", std::fs::read_to_string(&log)?);
            }
            ensure!(Instant::now() < end, "the server is not ready: {}", std::fs::read_to_string(&log)?);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server<'a> {
    place: &'a Place,
    child: Child,
}

impl Server<'_> {
    /// Whether `/readyz` says ok.
    pub fn is_ready(&self) -> bool {
        self.curl(&["/readyz"]).is_ok_and(|answer| answer.body == "ok")
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.place.address, self.place.https_port)
    }

    /// A file of the server's folder `<data-dir>/server`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.place.data().join("server").join(name)
    }

    /// Where it lives.
    pub fn place(&self) -> &Place {
        self.place
    }

    /// What it has said so far.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.place.path("server.log"))?)
    }

    /// Whether its process has ended, and how.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in KiB.
    pub fn rss_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// Sends a request without credentials. The last argument is the path.
    pub fn curl(&self, args: &[&str]) -> anyhow::Result<Answer> {
        self.send(args)?.answer()
    }

    /// Sends a request without credentials, whose answer is waited for later.
    fn send(&self, args: &[&str]) -> anyhow::Result<Pending> {
        let (path, options) = args.split_last().context("a path")?;
        let child = Command::new("curl")
            .args(["--silent", "--show-error", "--insecure", "--max-time", "60", "--write-out", "\n%{http_code}"])
            .args(options)
            .arg(format!("{}{path}", self.url()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run curl")?;
        Ok(Pending { child, path: (*path).to_owned() })
    }

    /// Sends a request as the administrator.
    pub fn admin(&self, args: &[&str]) -> anyhow::Result<Answer> {
        self.admin_later(args)?.answer()
    }

    /// Sends a request as the administrator, whose answer is waited for later.
    pub fn admin_later(&self, args: &[&str]) -> anyhow::Result<Pending> {
        let (certificate, key) = (self.file("tls/admin.crt"), self.file("tls/admin.key"));
        let mut all = vec!["--cert", path(&certificate)?, "--key", path(&key)?];
        all.extend(args);
        self.send(&all)
    }

    /// SIGKILL, and no waiting for its end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill()?)
    }

    /// SIGTERM.
    pub fn interrupt(&mut self) -> anyhow::Result<()> {
        trireme_harness::signal(self.child.id(), "TERM")
    }

    /// SIGTERM, and its end.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.interrupt()?;
        wait(&mut self.child)?.context("the server does not stop")
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // Its folder goes with the place.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request on its way.
#[derive(Debug)]
pub struct Pending {
    child: Child,
    path: String,
}

impl Pending {
    /// Waits for the answer.
    pub fn answer(self) -> anyhow::Result<Answer> {
        let output = self.child.wait_with_output()?;
        ensure!(output.status.success(), "curl {}: {}", self.path, String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = said.rsplit_once('\n').context("no code")?;
        Ok(Answer { code: code.parse()?, body: body.to_owned() })
    }
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status code.
    pub code: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Holds a refusal against upstream's: a `Status` with this code, reason and message (a part of it).
    pub fn must_refuse(&self, what: &str, code: u16, reason: &str, message: &str) -> anyhow::Result<()> {
        let status: serde_json::Value = serde_json::from_str(&self.body).with_context(|| format!("{what}: no Status: {self:?}"))?;
        let said = status["message"].as_str().unwrap_or_default();
        ensure!(self.code == code && status["code"] == code, "{what}: code {} instead of {code}: {}", self.code, self.body);
        ensure!(status["kind"] == "Status" && status["status"] == "Failure", "{what}: {}", self.body);
        ensure!(status["reason"].as_str().unwrap_or_default() == reason, "{what}: reason {} instead of {reason}", status["reason"]);
        ensure!(said.contains(message), "{what}: {said:?} does not contain {message:?}");
        Ok(())
    }
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// The end of a process, or None when it does not come.
fn wait(child: &mut Child) -> anyhow::Result<Option<ExitStatus>> {
    let end = Instant::now() + PATIENCE;
    loop {
        match child.try_wait()? {
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            status => return Ok(status),
        }
    }
}

fn text(file: &File) -> anyhow::Result<String> {
    use std::io::Seek;
    let mut file = file.try_clone()?;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
