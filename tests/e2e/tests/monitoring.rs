//! Debian's Prometheus against three servers, two nodes and two balancers, with the configuration and the rules that we ship: every
//! target is found and answers, no series is shown twice, every metric that a rule or a panel names is there, and an alert fires when a
//! server dies and ends when it is back.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use trireme_harness::{Cluster, Host, eventually, repository};

/// Until something that must come has come. Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(90);
const PORT: u16 = 19090;

/// Counts of different callers under one name and the same labels, as upstream has them too.
const OF_EACH_COMPONENT: &[&str] = &["rest_client_requests_total", "rest_client_request_duration_seconds"];

fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {out}{err}");
    Ok(out.into_owned())
}

/// A Prometheus of this test; ends when dropped.
struct Prometheus {
    folder: TempDir,
    child: Child,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// The configuration that we ship, with this cluster's addresses and short intervals.
    fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let shipped = repository().join("ops/prometheus");
        cluster.kubectl(&["apply", "-f", path(&shipped.join("rbac.yaml"))?])?;
        let folder = tempfile::Builder::new().prefix("trireme-prometheus-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("token"), cluster.kubectl(&["-n", "monitoring", "create", "token", "prometheus"])?)?;
        std::fs::copy(Host::named("s1").directory().join("data/server/tls/server-ca.crt"), at("ca.crt"))?;
        for (from, to) in [("etcd/client.crt", "etcd-client.crt"), ("etcd/client.key", "etcd-client.key")] {
            std::fs::copy(Host::named("s1").directory().join("data/server/tls").join(from), at(to))?;
        }
        let config = std::fs::read_to_string(shipped.join("prometheus.yml"))?.replace("192.0.2.", "10.77.0.").replace(" 30s", " 1s");
        std::fs::write(at("prometheus.yml"), config.replace("\n    tls_config:", "\n    refresh_interval: 1s\n    tls_config:"))?;
        let rules = std::fs::read_to_string(shipped.join("rules.yml"))?;
        let hurried: Vec<String> =
            rules.lines().map(|line| if line.trim_start().starts_with("for: ") { "    for: 1s".into() } else { line.to_owned() }).collect();
        std::fs::write(at("rules.yml"), hurried.join("\n"))?;
        succeed(Command::new("promtool").args(["check", "config"]).arg(at("prometheus.yml")))?;
        let log = std::fs::File::create(at("log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", at("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", at("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{PORT}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("run prometheus")?;
        Ok(Self { folder, child })
    }

    fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = succeed(Command::new("curl").args(["-sS", "--max-time", "10"]).arg(format!("http://127.0.0.1:{PORT}/api/v1/{path}")))?;
        Ok(serde_json::from_str::<Value>(&answer)?["data"].take())
    }

    /// The end of its log.
    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// The targets: job, URL, and what is wrong with it.
    fn targets(&self) -> anyhow::Result<Vec<(String, String, String)>> {
        let found = self.get("targets?state=active")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let target = |t: &Value| {
            let trouble = if t["health"] == "up" { String::new() } else { format!("{} {}", t["health"], t["lastError"]) };
            (text(&t["labels"]["job"]), text(&t["scrapeUrl"]), trouble)
        };
        Ok(found["activeTargets"].as_array().context("no targets")?.iter().map(target).collect())
    }

    /// The alerts that fire.
    fn firing(&self) -> anyhow::Result<BTreeSet<String>> {
        let alerts = self.get("alerts")?;
        let firing = alerts["alerts"].as_array().context("no alerts")?.iter().filter(|a| a["state"] == "firing");
        Ok(firing.map(|a| a["labels"]["alertname"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// What a target shows, as Prometheus reads it.
    fn exposition(&self, url: &str) -> anyhow::Result<String> {
        let token = std::fs::read_to_string(self.folder.path().join("token"))?;
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "--max-time", "10", "--cacert"]).arg(self.folder.path().join("ca.crt")).arg(url);
        if url.contains(":2379/") {
            for (option, name) in [("--cert", "etcd-client.crt"), ("--key", "etcd-client.key")] {
                curl.arg(option).arg(self.folder.path().join(name));
            }
        } else if url.starts_with("https:") {
            curl.args(["-H", &format!("Authorization: Bearer {}", token.trim())]);
        }
        succeed(&mut curl)
    }
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// How many targets each job must have.
fn expected() -> BTreeMap<String, usize> {
    let jobs = [
        ("kube-apiserver", 3),
        ("kube-controller-manager", 3),
        ("kube-scheduler", 3),
        ("kubelet", 2),
        ("kubelet-cadvisor", 2),
        ("kubelet-resource", 2),
        ("kubelet-probes", 2),
        ("etcd", 3),
        ("haproxy", 2),
    ];
    jobs.map(|(job, count)| (job.to_owned(), count)).into()
}

fn all_up(prometheus: &Prometheus) -> anyhow::Result<Vec<(String, String, String)>> {
    let targets = prometheus.targets()?;
    let mut found = BTreeMap::new();
    for (job, url, trouble) in &targets {
        ensure!(trouble.is_empty(), "{job} {url}: {trouble}");
        *found.entry(job.clone()).or_insert(0) += 1;
    }
    ensure!(found == expected(), "{found:?}");
    Ok(targets)
}

/// Parses every endpoint's text, and finds no fault of ours. Upstream's names break some of the linter's habits; they are not ours to change.
fn check_metrics(url: &str, text: &str) -> anyhow::Result<()> {
    let mut child =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("stdin of promtool")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    // 3: it was read, and some names are unusual.
    ensure!(matches!(output.status.code(), Some(0 | 3)), "{url}: {said}");
    ensure!(!said.lines().any(|line| line.starts_with("trireme_")), "{url}: {said}");
    Ok(())
}

/// The series of an exposition, names with labels, but not those that each component has of its own.
fn series(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series).filter(|series| {
        let name = series.split('{').next().unwrap_or_default();
        !OF_EACH_COMPONENT.iter().any(|allowed| name.starts_with(allowed))
    })
}

/// The metrics of an exposition.
fn families(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned()))
}

/// Every expression of the rules and the dashboard.
fn expressions() -> anyhow::Result<Vec<String>> {
    fn of(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                out.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| of(value, out));
            }
            Value::Array(list) => list.iter().for_each(|value| of(value, out)),
            _ => {}
        }
    }
    let rules = std::fs::read_to_string(repository().join("ops/prometheus/rules.yml"))?;
    let mut all: Vec<String> = Vec::new();
    let mut within = false;
    for line in rules.lines() {
        let field = line.trim_start();
        if let Some(expression) = field.strip_prefix("expr: ") {
            within = expression == "|";
            all.push(if within { String::new() } else { expression.to_owned() });
        } else if within && line.starts_with("      ") {
            all.last_mut().context("an expression")?.push_str(field);
        } else {
            within = false;
        }
    }
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(repository().join("ops/grafana/trireme.json"))?)?;
    let before = all.len();
    of(&dashboard, &mut all);
    ensure!(before > 5 && all.len() > before + 5, "{before} rules and {} panels", all.len() - before);
    Ok(all)
}

/// The metrics that an expression names: words with an underscore that are no label and no function.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let mut bare = String::new();
    let (mut braces, mut quoted) = (0, false);
    for letter in expression.chars() {
        match letter {
            '"' => quoted = !quoted,
            '{' if !quoted => braces += 1,
            '}' if !quoted => braces -= 1,
            _ => {}
        }
        bare.push(if braces > 0 || quoted || letter == '}' || letter == '"' { ' ' } else { letter });
    }
    // Names in a grouping clause are labels.
    while let Some(at) = bare.find(" by (") {
        let end = bare[at..].find(')').map_or(bare.len(), |end| at + end + 1);
        bare.replace_range(at..end, " ");
    }
    let mut names = BTreeSet::new();
    for word in bare.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_' || letter == '(')) {
        let word = word.rsplit('(').next().unwrap_or_default();
        let called = bare.contains(&format!("{word}("));
        if word.contains('_') && !called {
            names.insert(word.to_owned());
        }
    }
    names
}

#[test]
fn prometheus_finds_all_sees_nothing_twice_and_tells_of_a_dead_server() -> anyhow::Result<()> {
    let cluster = Cluster::lab()?;
    let prometheus = Prometheus::start(&cluster)?;
    let targets = eventually("every target to be up", LIMIT, || all_up(&prometheus)).with_context(|| prometheus.log())?;

    // Each endpoint by itself, and the proxies' on their hosts.
    let mut expositions: Vec<(String, String, String)> = Vec::new();
    for (job, url, _) in targets {
        let text = prometheus.exposition(&url)?;
        expositions.push((job, url, text));
    }
    for name in ["a1", "a2"] {
        let host = Host::named(name);
        let text = host.run("curl -sSf --max-time 10 http://127.0.0.1:10249/metrics")?;
        expositions.push(("kube-proxy".into(), format!("http://{}:10249/metrics", host.address()?), text));
    }
    let mut exposed = BTreeSet::new();
    let mut shown_at: BTreeMap<(String, String), String> = BTreeMap::new();
    for (job, url, text) in &expositions {
        check_metrics(url, text)?;
        exposed.extend(families(text));
        // One machine is one process here; the port is what tells its endpoints apart.
        let host = url.split("://").nth(1).and_then(|rest| rest.split(':').next()).context("a host")?;
        for series in series(text) {
            if let Some(other) = shown_at.insert((host.to_owned(), series.to_owned()), url.clone()) {
                bail!("{series} is shown at {other} and at {url} ({job})");
            }
        }
    }
    for expression in expressions()? {
        for name in metrics_of(&expression) {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name.as_str());
            ensure!(exposed.contains(&name) || exposed.contains(family), "{name} is nowhere exposed, and used in: {expression}");
        }
    }

    let quiet = |what: &str| {
        eventually(what, LIMIT, || {
            let firing = prometheus.firing()?;
            ensure!(!firing.contains("TriremeServerDown") && !firing.contains("TriremeQuorumAtRisk"), "{firing:?}");
            Ok(())
        })
    };
    quiet("no alert while all is well")?;
    let victim = Host::named("s3");
    victim.power_off()?;
    let told = eventually("the alerts of a dead server", LIMIT, || {
        let firing = prometheus.firing()?;
        ensure!(firing.contains("TriremeServerDown") && firing.contains("TriremeQuorumAtRisk"), "{firing:?}");
        Ok(firing)
    });
    victim.power_on()?;
    told?;
    quiet("the end of the alerts")?;
    eventually("every target to be up again", LIMIT, || all_up(&prometheus)).map(drop)
}

#[test]
fn the_rules_are_well_formed() -> anyhow::Result<()> {
    let rules: PathBuf = repository().join("ops/prometheus/rules.yml");
    let said = succeed(Command::new("promtool").args(["check", "rules"]).arg(rules))?;
    ensure!(said.contains("SUCCESS"), "{said}");
    ensure!(
        metrics_of("sum by (le, x_y) (rate(a_bucket{b_c=\"d_e\"}[5m])) > floor(f_g / 2)") == ["a_bucket", "f_g"].map(str::to_owned).into(),
        "names of metrics are not found"
    );
    Ok(())
}
