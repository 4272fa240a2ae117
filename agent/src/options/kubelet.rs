//! Flags of upstream's kubelet (`--kubelet-arg`), under upstream's names and with upstream's meaning.
//!
//! Invariant: what is not acted upon is refused, in words that name the flag and what is possible.
//! Answers to <https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/>.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::Taint;
use trireme_kubelet::{EvictionThresholds, ImagePolicy, KubeletOptions, SoftThresholds};

use super::kubelet_config;

/// What was given; nothing stands for upstream's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KubeletFlags {
    max_pods: Option<u32>,
    cluster_dns: Vec<IpAddr>,
    cluster_domain: Option<String>,
    resolv_conf: Option<PathBuf>,
    node_labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    kube_reserved: BTreeMap<String, String>,
    system_reserved: BTreeMap<String, String>,
    container_log_max_bytes: Option<u64>,
    container_log_max_files: Option<usize>,
    eviction_hard: Option<EvictionThresholds>,
    eviction_soft: String,
    eviction_soft_grace: String,
    eviction_pod_grace_secs: u32,
    /// What the three say together.
    soft: SoftThresholds,
    image_gc_high_percent: Option<u8>,
    image_gc_low_percent: Option<u8>,
    image_min_age: Option<Duration>,
    image_max_age: Option<Duration>,
    provider_id: Option<String>,
    healthz_address: Option<IpAddr>,
    healthz_port: Option<u16>,
    port: Option<u16>,
    address: Option<IpAddr>,
    pod_manifest_path: Option<PathBuf>,
    /// Where pods, volumes and the sockets of drivers are; nothing stands for the node's own folder.
    pub root_dir: Option<PathBuf>,
}

/// The flags that name configuration files.
const FILES: [&str; 2] = ["config", "config-dir"];

/// The flags that are acted upon, in the order of the alphabet.
pub const KNOWN: &[&str] = &[
    "address",
    "cluster-dns",
    "cluster-domain",
    "config",
    "config-dir",
    "container-log-max-files",
    "container-log-max-size",
    "eviction-hard",
    "eviction-max-pod-grace-period",
    "eviction-soft",
    "eviction-soft-grace-period",
    "healthz-bind-address",
    "healthz-port",
    "image-gc-high-threshold",
    "image-gc-low-threshold",
    "image-maximum-gc-age",
    "kube-reserved",
    "max-pods",
    "minimum-image-ttl-duration",
    "node-labels",
    "pod-manifest-path",
    "port",
    "provider-id",
    "register-with-taints",
    "resolv-conf",
    "root-dir",
    "system-reserved",
];

impl KubeletFlags {
    /// Reads flags without their dashes. The error is one line that names the flag.
    pub fn parse<'a>(arguments: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut flags = Self::default();
        let arguments: Vec<(&str, &str)> = arguments.map(|(name, value)| (name.trim_start_matches('-'), value)).collect();
        flags.read_files(&arguments)?;
        // A flag wins over the files, wherever it stands.
        for (name, value) in arguments.into_iter().filter(|(name, _)| !FILES.contains(name)) {
            flags.set(name, value).map_err(|why| format!("--kubelet-arg {name}={value}: {why}"))?;
        }
        flags.read_soft_thresholds()?;
        flags.check_image_policy()?;
        Ok(flags)
    }

    /// Reads the three flags that belong together.
    fn read_soft_thresholds(&mut self) -> Result<(), String> {
        let soft = SoftThresholds::parse(&self.eviction_soft, &self.eviction_soft_grace, self.eviction_pod_grace_secs);
        let given = || format!("eviction-soft={} and eviction-soft-grace-period={}", self.eviction_soft, self.eviction_soft_grace);
        self.soft = soft.map_err(|why| format!("--kubelet-arg {}: {why}", given()))?;
        Ok(())
    }

    fn image_policy(&self, usual: ImagePolicy) -> ImagePolicy {
        ImagePolicy {
            high_percent: self.image_gc_high_percent.unwrap_or(usual.high_percent),
            low_percent: self.image_gc_low_percent.unwrap_or(usual.low_percent),
            min_age: self.image_min_age.unwrap_or(usual.min_age),
            // As upstream, 0 is no limit.
            max_age: self.image_max_age.filter(|age| !age.is_zero()).or(usual.max_age),
        }
    }

    fn check_image_policy(&self) -> Result<(), String> {
        let policy = self.image_policy(ImagePolicy::default());
        let (high, low) = (policy.high_percent, policy.low_percent);
        if low >= high {
            return Err(format!("--kubelet-arg image-gc-high-threshold={high}: expected more than image-gc-low-threshold, which is {low}"));
        }
        if policy.max_age.is_some_and(|age| age <= policy.min_age) {
            return Err("--kubelet-arg image-maximum-gc-age: expected more than minimum-image-ttl-duration".to_owned());
        }
        Ok(())
    }

    /// Carries out what configuration files say.
    fn read_files(&mut self, arguments: &[(&str, &str)]) -> Result<(), String> {
        let last = |wanted: &str| arguments.iter().rev().find(|(name, _)| *name == wanted).map(|(_, value)| Path::new(*value));
        let (file, folder) = (last(FILES[0]), last(FILES[1]));
        let shown = match (file, folder) {
            (Some(file), _) => format!("config={}", file.display()),
            (None, Some(folder)) => format!("config-dir={}", folder.display()),
            (None, None) => return Ok(()),
        };
        let at = |why: String| format!("--kubelet-arg {shown}: {why}");
        for (name, value) in kubelet_config::flags(file, folder).map_err(at)? {
            self.set(name, &value).map_err(|why| at(format!("{name}={value}: {why}")))?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "address" => self.address = Some(parsed(value, "an IP address")?),
            "cluster-dns" => {
                self.cluster_dns = list(value).map(|ip| parsed(ip, "IP addresses, separated by commas")).collect::<Result<_, _>>()?
            }
            "cluster-domain" => self.cluster_domain = Some(value.trim_end_matches('.').to_owned()),
            "container-log-max-files" => self.container_log_max_files = Some(at_least(parsed(value, "a number of at least 2")?, 2)?),
            "container-log-max-size" => self.container_log_max_bytes = Some(at_least(bytes(value)?, 1)?),
            "eviction-hard" => self.eviction_hard = Some(EvictionThresholds::parse(value)?),
            "eviction-max-pod-grace-period" => self.eviction_pod_grace_secs = parsed(value, "a number of seconds")?,
            "eviction-soft" => value.clone_into(&mut self.eviction_soft),
            "eviction-soft-grace-period" => value.clone_into(&mut self.eviction_soft_grace),
            "healthz-bind-address" => self.healthz_address = Some(parsed(value, "an IP address")?),
            "healthz-port" => self.healthz_port = Some(parsed(value, "a port, or 0 for none")?),
            "image-gc-high-threshold" => self.image_gc_high_percent = Some(percent(value)?),
            "image-gc-low-threshold" => self.image_gc_low_percent = Some(percent(value)?),
            "image-maximum-gc-age" => self.image_max_age = Some(duration(value)?),
            "kube-reserved" => self.kube_reserved = reserved(value)?,
            "max-pods" => self.max_pods = Some(at_least(parsed(value, "a number")?, 1)?),
            "minimum-image-ttl-duration" => self.image_min_age = Some(duration(value)?),
            "node-labels" => self.node_labels = pairs(value)?,
            "pod-manifest-path" => self.pod_manifest_path = Some(absolute(value)?),
            "port" => self.port = Some(at_least(parsed(value, "a port")?, 1)?),
            "provider-id" => self.provider_id = Some(value.to_owned()),
            "register-with-taints" => self.taints = list(value).map(taint).collect::<Result<_, _>>()?,
            "resolv-conf" => self.resolv_conf = Some(PathBuf::from(value)),
            "root-dir" => self.root_dir = Some(absolute(value)?),
            "system-reserved" => self.system_reserved = reserved(value)?,
            _ => return Err(format!("this kubelet flag is not supported; supported are {}", KNOWN.join(", "))),
        }
        Ok(())
    }

    /// Where the kubelet API listens, if not at the usual place.
    pub fn listen(&self, usual: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.address.unwrap_or(usual.ip()), self.port.unwrap_or(usual.port()))
    }

    /// Puts what was given into the kubelet's options.
    pub fn apply(&self, options: &mut KubeletOptions) {
        if let Some(max) = self.max_pods {
            options.max_pods = max;
        }
        if !self.cluster_dns.is_empty() {
            options.cluster_dns = self.cluster_dns.clone();
        }
        if let Some(domain) = &self.cluster_domain {
            options.cluster_domain = domain.clone();
        }
        if let Some(path) = &self.resolv_conf {
            options.resolv_conf = path.clone();
        }
        if let Some(path) = &self.root_dir {
            options.data_dir.clone_from(path);
        }
        if let Some(path) = &self.pod_manifest_path {
            options.static_pods_dir = path.clone();
        }
        options.labels.extend(self.node_labels.clone());
        options.taints.extend(self.taints.iter().cloned());
        // kube-reserved and system-reserved are kept from pods together.
        for (resource, amount) in self.system_reserved.iter().chain(&self.kube_reserved) {
            let sum = options.reserved.get(resource).and_then(|before| sum(before, amount)).unwrap_or_else(|| amount.clone());
            options.reserved.insert(resource.clone(), sum);
        }
        options.container_log_max_bytes = self.container_log_max_bytes.unwrap_or(options.container_log_max_bytes);
        options.container_log_max_files = self.container_log_max_files.unwrap_or(options.container_log_max_files);
        options.eviction_hard = self.eviction_hard.unwrap_or(options.eviction_hard);
        options.eviction_soft = self.soft;
        options.image_policy = self.image_policy(options.image_policy);
        options.provider_id = self.provider_id.clone().or_else(|| options.provider_id.take());
        options.listen = self.listen(options.listen);
        let usual = options.healthz_listen.unwrap_or(([127, 0, 0, 1], 10248).into());
        options.healthz_listen = match self.healthz_port {
            Some(0) => None,
            port => Some(SocketAddr::new(self.healthz_address.unwrap_or(usual.ip()), port.unwrap_or(usual.port()))),
        };
    }
}

fn parsed<T: std::str::FromStr>(value: &str, expected: &str) -> Result<T, String> {
    value.trim().parse().map_err(|_| format!("expected {expected}"))
}

fn at_least<T: PartialOrd + std::fmt::Display>(value: T, least: T) -> Result<T, String> {
    if value >= least { Ok(value) } else { Err(format!("expected at least {least}")) }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn pairs(value: &str) -> Result<BTreeMap<String, String>, String> {
    let pair = |item: &str| item.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or("expected KEY=VALUE,...".to_owned());
    list(value).map(pair).collect()
}

/// Amounts of cpu, memory and ephemeral-storage.
fn reserved(value: &str) -> Result<BTreeMap<String, String>, String> {
    let amounts = pairs(value)?;
    for (resource, amount) in &amounts {
        if !matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            return Err(format!("{resource} cannot be reserved; cpu, memory and ephemeral-storage can"));
        }
        let quantity: trireme_api::quantity::Quantity = amount.parse().map_err(|_| format!("{amount} is no quantity"))?;
        if quantity.sign() < 0 {
            return Err(format!("{resource} {amount} is negative"));
        }
    }
    Ok(amounts)
}

fn sum(a: &str, b: &str) -> Option<String> {
    let (a, b): (trireme_api::quantity::Quantity, trireme_api::quantity::Quantity) = (a.parse().ok()?, b.parse().ok()?);
    Some((a + b).to_string())
}

fn bytes(value: &str) -> Result<u64, String> {
    let quantity: trireme_api::quantity::Quantity = value.parse().map_err(|_| "expected a quantity such as 10Mi".to_owned())?;
    u64::try_from(quantity.value()).map_err(|_| "expected a quantity such as 10Mi".to_owned())
}

fn percent(value: &str) -> Result<u8, String> {
    value.trim().parse().ok().filter(|percent| *percent <= 100).ok_or_else(|| "expected a percentage from 0 to 100".to_owned())
}

fn duration(value: &str) -> Result<Duration, String> {
    trireme_api::time::go_duration(value).ok_or_else(|| "expected a duration such as 2m or 168h".to_owned())
}

fn absolute(value: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    if path.is_absolute() && !value.contains(char::is_control) {
        Ok(path)
    } else {
        Err("expected the absolute path of a folder".to_owned())
    }
}

fn taint(text: &str) -> Result<Taint, String> {
    let wrong = || "expected KEY=VALUE:EFFECT with EFFECT one of NoSchedule, PreferNoSchedule, NoExecute".to_owned();
    let (front, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (key, value) = front.split_once('=').unwrap_or((front, ""));
    if key.is_empty() || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(wrong());
    }
    let value = Some(value.to_owned()).filter(|v| !v.is_empty());
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(arguments: &[(&str, &str)]) -> Result<KubeletFlags, String> {
        KubeletFlags::parse(arguments.iter().copied())
    }

    #[test]
    fn d16_a_flag_that_nothing_acts_upon_is_refused_and_named() {
        let refused = parse(&[("fail-swap-on", "false")]).unwrap_err();
        assert!(
            refused.starts_with("--kubelet-arg fail-swap-on=false: this kubelet flag is not supported; supported are address, "),
            "{refused}"
        );
        for (name, value) in [
            ("max-pods", "0"),
            ("max-pods", "many"),
            ("cluster-dns", "10.43.0"),
            ("register-with-taints", "a=b:Never"),
            ("system-reserved", "gpu=1"),
            ("system-reserved", "memory=lots"),
            ("node-labels", "a"),
            ("eviction-hard", "memory.available"),
            ("eviction-hard", "memory.available<much"),
            ("eviction-max-pod-grace-period", "-1"),
            ("image-gc-high-threshold", "101"),
            ("image-gc-high-threshold", "80"),
            ("minimum-image-ttl-duration", "2"),
            ("pod-manifest-path", "manifests"),
            ("root-dir", "kubelet"),
        ] {
            let refused = parse(&[(name, value)]).unwrap_err();
            assert!(refused.starts_with(&format!("--kubelet-arg {name}={value}: ")), "{refused}");
        }
    }

    #[test]
    fn soft_thresholds_come_with_their_grace_periods() {
        let refused = parse(&[("eviction-soft", "memory.available<1Gi")]).unwrap_err();
        assert!(
            refused.starts_with("--kubelet-arg eviction-soft=memory.available<1Gi and ") && refused.contains("expected a grace period"),
            "{refused}"
        );
        let both = [("eviction-soft", "memory.available<1Gi"), ("eviction-soft-grace-period", "memory.available=1m")];
        assert_ne!(parse(&both).unwrap().soft, SoftThresholds::default());
    }

    #[test]
    fn d16_every_flag_that_is_said_to_be_known_is() {
        for name in KNOWN {
            let known = parse(&[(name, "")]);
            assert!(!known.is_err_and(|e| e.contains("not supported")), "{name}");
        }
    }

    #[test]
    fn d16_flags_do_what_upstreams_do() {
        let flags = parse(&[
            ("max-pods", "7"),
            ("--node-labels", "disk=ssd,zone=a"),
            ("register-with-taints", "dedicated=db:NoSchedule"),
            ("container-log-max-size", "1Mi"),
            ("healthz-port", "0"),
            ("system-reserved", "cpu=100m,memory=1Gi"),
            ("kube-reserved", "memory=1Gi"),
        ])
        .unwrap();
        assert_eq!((flags.max_pods, flags.container_log_max_bytes, flags.healthz_port), (Some(7), Some(1 << 20), Some(0)));
        assert_eq!(flags.node_labels["zone"], "a");
        assert_eq!((flags.taints[0].key.as_str(), flags.taints[0].value.as_deref()), ("dedicated", Some("db")));
        assert_eq!(sum("1Gi", "1Gi").as_deref(), Some("2Gi"));
    }
}
