//! The Pod Security Standards: which settings of a pod each level refuses. Pure.
//!
//! Answers to <https://kubernetes.io/docs/concepts/security/pod-security-standards/>.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;
use trireme_api::meta;

/// A level, the strictest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// What a level refuses of a pod: reasons and details.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Violations(Vec<(String, String)>);

impl Violations {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn reasons(&self) -> String {
        self.0.iter().map(|(reason, _)| reason.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn add(&mut self, reason: &str, detail: impl Into<String>) {
        self.0.push((reason.to_owned(), detail.into()));
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(|(reason, detail)| format!("{reason} ({detail})")).collect();
        f.write_str(&all.join(", "))
    }
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const VOLUMES: [&str; 9] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"];
const SECCOMP: [&str; 2] = ["RuntimeDefault", "Localhost"];
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Everything that `level` refuses of `pod` (a pod or a template of one).
pub(super) fn evaluate(level: Level, pod: &Value) -> Violations {
    let mut found = Violations::default();
    if level == Level::Privileged {
        return found;
    }
    let pod = Pod::new(pod);
    let restricted = level == Level::Restricted;
    app_armor(&pod, &mut found);
    if !restricted {
        capabilities(&pod, &mut found);
    }
    host_namespaces(&pod, &mut found);
    if !restricted {
        host_paths(&pod, &mut found);
    }
    host_ports(&pod, &mut found);
    host_probes(&pod, &mut found);
    privileged(&pod, &mut found);
    proc_mount(&pod, &mut found);
    selinux(&pod, &mut found);
    if !restricted {
        seccomp(&pod, false, &mut found);
    }
    sysctls(&pod, &mut found);
    windows_host_process(&pod, &mut found);
    if restricted {
        if !pod.windows {
            privilege_escalation(&pod, &mut found);
            restricted_capabilities(&pod, &mut found);
        }
        volume_types(&pod, &mut found);
        if !pod.own_users {
            run_as_non_root(&pod, &mut found);
            run_as_user(&pod, &mut found);
        }
        if !pod.windows {
            seccomp(&pod, true, &mut found);
        }
    }
    found
}

/// A pod, as the checks look at it.
struct Pod<'a> {
    object: &'a Value,
    spec: &'a Value,
    containers: Vec<&'a Value>,
    windows: bool,
    own_users: bool,
}

impl<'a> Pod<'a> {
    fn new(object: &'a Value) -> Pod<'a> {
        let spec = &object["spec"];
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let containers = lists.iter().flat_map(|list| meta::list_at(spec, &[list])).collect();
        let windows = meta::str_at(spec, &["os", "name"]) == "windows";
        Pod { object, spec, containers, windows, own_users: spec["hostUsers"] == false }
    }

    /// Quoted names of the containers of which `is_bad` holds.
    fn bad(&self, mut is_bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|container| is_bad(container)).map(|container| meta::str_at(container, &["name"])).collect()
    }
}

fn security<'a>(of: &'a Value, path: &[&str]) -> Option<&'a Value> {
    let whole: Vec<&str> = std::iter::once("securityContext").chain(path.iter().copied()).collect();
    meta::get(of, &whole).filter(|value| !value.is_null())
}

fn quoted<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// "pod and containers ..."
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (false, false) => Some(containers(names)),
        (true, false) => Some(format!("pod and {}", containers(names))),
    }
}

// === baseline ===

fn app_armor(pod: &Pod<'_>, found: &mut Violations) {
    let mut values = BTreeSet::new();
    let mut is_bad = |of: &Value| {
        let kind = security(of, &["appArmorProfile", "type"]).and_then(Value::as_str);
        let bad = kind.is_some_and(|kind| !matches!(kind, "RuntimeDefault" | "Localhost"));
        if bad {
            values.insert(kind.unwrap_or_default().to_owned());
        }
        bad
    };
    let of_pod = is_bad(pod.spec);
    let names = pod.bad(is_bad);
    let mut annotations: Vec<String> = meta::annotations(pod.object)
        .into_iter()
        .flatten()
        .filter(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            key.starts_with(APPARMOR_ANNOTATION) && !value.is_empty() && value != "runtime/default" && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    annotations.sort();
    let mut who: Vec<String> = setters(of_pod, &names).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    found.add(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values)));
}

fn added(container: &Value) -> impl Iterator<Item = &str> {
    security(container, &["capabilities", "add"]).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn capabilities(pod: &Pod<'_>, found: &mut Violations) {
    let mut values = BTreeSet::new();
    let names = pod.bad(|container| {
        let bad: Vec<&str> = added(container).filter(|capability| !CAPABILITIES.contains(capability)).collect();
        values.extend(bad.iter().copied());
        !bad.is_empty()
    });
    if !names.is_empty() {
        let detail = format!("{} must not include {} in securityContext.capabilities.add", containers(&names), quoted(values));
        found.add("non-default capabilities", detail);
    }
}

fn host_namespaces(pod: &Pod<'_>, found: &mut Violations) {
    let set: Vec<String> =
        ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|key| pod.spec[**key] == true).map(|key| format!("{key}=true")).collect();
    if !set.is_empty() {
        found.add("host namespaces", set.join(", "));
    }
}

fn host_paths(pod: &Pod<'_>, found: &mut Violations) {
    let volumes = meta::list_at(pod.spec, &["volumes"]);
    let names: Vec<&str> =
        volumes.iter().filter(|v| v.get("hostPath").is_some_and(|p| !p.is_null())).map(|v| meta::str_at(v, &["name"])).collect();
    if !names.is_empty() {
        found.add("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(names)));
    }
}

fn host_ports(pod: &Pod<'_>, found: &mut Violations) {
    let mut ports = BTreeSet::new();
    let names = pod.bad(|container| {
        let used: Vec<String> = meta::list_at(container, &["ports"])
            .iter()
            .filter_map(|port| meta::i64_at(port, &["hostPort"]).filter(|port| *port != 0))
            .map(|port| port.to_string())
            .collect();
        ports.extend(used.iter().cloned());
        !used.is_empty()
    });
    if !names.is_empty() {
        let (uses, what) = (plural("uses", "use", names.len()), plural("hostPort", "hostPorts", ports.len()));
        let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
        found.add("hostPort", format!("{} {uses} {what} {ports}", containers(&names)));
    }
}

fn host_probes(pod: &Pod<'_>, found: &mut Violations) {
    let mut hosts = BTreeSet::new();
    let mut names = Vec::new();
    for container in &pod.containers {
        let handlers =
            [["livenessProbe"].as_slice(), &["readinessProbe"], &["startupProbe"], &["lifecycle", "postStart"], &["lifecycle", "preStop"]];
        let mut bad = false;
        for path in handlers {
            for action in ["httpGet", "tcpSocket"] {
                let whole: Vec<&str> = path.iter().copied().chain([action, "host"]).collect();
                let host = meta::str_at(container, &whole);
                if !host.is_empty() {
                    hosts.insert(host);
                    bad = true;
                }
            }
        }
        if bad {
            names.push(meta::str_at(container, &["name"]));
        }
    }
    if !names.is_empty() {
        let (uses, what) = (plural("uses", "use", names.len()), plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()));
        found.add("probe or lifecycle host", format!("{} {uses} {what} {}", containers(&names), quoted(hosts)));
    }
}

fn privileged(pod: &Pod<'_>, found: &mut Violations) {
    let names = pod.bad(|container| security(container, &["privileged"]) == Some(&Value::Bool(true)));
    if !names.is_empty() {
        found.add("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)));
    }
}

fn proc_mount(pod: &Pod<'_>, found: &mut Violations) {
    if pod.own_users {
        return;
    }
    let mut values = BTreeSet::new();
    let names = pod.bad(|container| {
        let value = security(container, &["procMount"]).and_then(Value::as_str).filter(|value| *value != "Default");
        values.extend(value);
        value.is_some()
    });
    if !names.is_empty() {
        found.add("procMount", format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(values)));
    }
}

fn selinux(pod: &Pod<'_>, found: &mut Violations) {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |of: &Value| {
        let Some(options) = security(of, &["seLinuxOptions"]) else { return false };
        let text = |key: &str| meta::str_at(options, &[key]);
        let bad_type = !SELINUX_TYPES.contains(&text("type"));
        if bad_type {
            types.insert(text("type").to_owned());
        }
        user |= !text("user").is_empty();
        role |= !text("role").is_empty();
        bad_type || !text("user").is_empty() || !text("role").is_empty()
    };
    let of_pod = is_bad(pod.spec);
    let names = pod.bad(is_bad);
    let Some(who) = setters(of_pod, &names) else { return };
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    if user {
        data.push("user may not be set".to_owned());
    }
    if role {
        data.push("role may not be set".to_owned());
    }
    found.add("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")));
}

/// `required`: a profile must be set, too.
fn seccomp(pod: &Pod<'_>, required: bool, found: &mut Violations) {
    let profile = |of: &Value| security(of, &["seccompProfile", "type"]).and_then(Value::as_str).map(str::to_owned);
    let mut values = BTreeSet::new();
    let mut is_bad = |of: &Value| {
        let bad = profile(of).filter(|kind| !SECCOMP.contains(&kind.as_str()));
        let is_bad = bad.is_some();
        values.extend(bad);
        is_bad
    };
    let of_pod = is_bad(pod.spec);
    let names = pod.bad(is_bad);
    if let Some(who) = setters(of_pod, &names) {
        return found.add("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values)));
    }
    if !required || profile(pod.spec).is_some() {
        return;
    }
    let names = pod.bad(|container| profile(container).is_none());
    if !names.is_empty() {
        let what = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
        found.add("seccompProfile", format!("pod or {} {what}", containers(&names)));
    }
}

fn sysctls(pod: &Pod<'_>, found: &mut Violations) {
    let list = security(pod.spec, &["sysctls"]).and_then(Value::as_array).into_iter().flatten();
    let bad: Vec<&str> = list.map(|sysctl| meta::str_at(sysctl, &["name"])).filter(|name| !SYSCTLS.contains(name)).collect();
    if !bad.is_empty() {
        found.add("forbidden sysctls", bad.join(", "));
    }
}

fn windows_host_process(pod: &Pod<'_>, found: &mut Violations) {
    let is_bad = |of: &Value| security(of, &["windowsOptions", "hostProcess"]) == Some(&Value::Bool(true));
    if let Some(who) = setters(is_bad(pod.spec), &pod.bad(is_bad)) {
        found.add("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"));
    }
}

// === restricted ===

fn privilege_escalation(pod: &Pod<'_>, found: &mut Violations) {
    let names = pod.bad(|container| security(container, &["allowPrivilegeEscalation"]) != Some(&Value::Bool(false)));
    if !names.is_empty() {
        let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
        found.add("allowPrivilegeEscalation != false", detail);
    }
}

fn restricted_capabilities(pod: &Pod<'_>, found: &mut Violations) {
    let missing = pod.bad(|container| {
        let dropped = security(container, &["capabilities", "drop"]).and_then(Value::as_array);
        !dropped.is_some_and(|list| list.iter().any(|capability| capability == "ALL"))
    });
    let mut values = BTreeSet::new();
    let adding = pod.bad(|container| {
        let bad: Vec<&str> = added(container).filter(|capability| *capability != "NET_BIND_SERVICE").collect();
        values.extend(bad.iter().copied());
        !bad.is_empty()
    });
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&missing)));
    }
    if !adding.is_empty() {
        details.push(format!("{} must not include {} in securityContext.capabilities.add", containers(&adding), quoted(values)));
    }
    if !details.is_empty() {
        found.add("unrestricted capabilities", details.join("; "));
    }
}

fn volume_types(pod: &Pod<'_>, found: &mut Violations) {
    let (mut names, mut types) = (Vec::new(), BTreeSet::new());
    for volume in meta::list_at(pod.spec, &["volumes"]) {
        let set = |key: &&String| *key != "name" && !volume[key.as_str()].is_null();
        let kinds: Vec<&String> = volume.as_object().into_iter().flat_map(|map| map.keys()).filter(set).collect();
        if kinds.iter().any(|kind| VOLUMES.contains(&kind.as_str())) {
            continue;
        }
        names.push(meta::str_at(volume, &["name"]));
        types.insert(kinds.first().map_or("unknown", |kind| kind.as_str()));
    }
    if !names.is_empty() {
        let what = plural("restricted volume type", "restricted volume types", types.len());
        let (volumes, uses) = (plural("volume", "volumes", names.len()), plural("uses", "use", names.len()));
        found.add("restricted volume types", format!("{volumes} {} {uses} {what} {}", quoted(names), quoted(types)));
    }
}

fn run_as_non_root(pod: &Pod<'_>, found: &mut Violations) {
    let of = |of: &Value| security(of, &["runAsNonRoot"]).and_then(Value::as_bool);
    let names = pod.bad(|container| of(container) == Some(false));
    if let Some(who) = setters(of(pod.spec) == Some(false), &names) {
        return found.add("runAsNonRoot != true", format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    if of(pod.spec) == Some(true) {
        return;
    }
    let names = pod.bad(|container| of(container).is_none());
    if !names.is_empty() {
        found.add("runAsNonRoot != true", format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&names)));
    }
}

fn run_as_user(pod: &Pod<'_>, found: &mut Violations) {
    let is_root = |of: &Value| security(of, &["runAsUser"]).and_then(Value::as_i64) == Some(0);
    if let Some(who) = setters(is_root(pod.spec), &pod.bad(is_root)) {
        found.add("runAsUser=0", format!("{who} must not set runAsUser=0"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plain_pod_is_baseline_and_not_restricted() {
        let pod = json!({"spec": {"containers": [{"name": "a"}]}});
        assert!(evaluate(Level::Baseline, &pod).is_empty());
        assert_eq!(
            evaluate(Level::Restricted, &pod).to_string(),
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
             runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), \
             seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        let good = json!({"spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
        }});
        assert_eq!(evaluate(Level::Restricted, &good), Violations::default());
    }

    #[test]
    fn the_baseline_refuses_each_way_out() {
        let container = |context: Value| json!({"spec": {"containers": [{"name": "a", "securityContext": context}]}});
        let cases = [
            (json!({"spec": {"hostPID": true, "containers": []}}), "host namespaces (hostPID=true)"),
            (json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}), "hostPath volumes (volume \"v\")"),
            (json!({"spec": {"containers": [{"name": "a", "ports": [{"hostPort": 80}]}]}}), "hostPort (container \"a\" uses hostPort 80)"),
            (container(json!({"privileged": true})), "privileged (container \"a\" must not set securityContext.privileged=true)"),
            (
                container(json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}})),
                "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
            ),
            (
                container(json!({"seccompProfile": {"type": "Unconfined"}})),
                "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
            (
                json!({"spec": {"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}, "containers": []}}),
                "forbidden sysctls (kernel.msgmax)",
            ),
            (
                json!({"spec": {"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}, "containers": []}}),
                "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)",
            ),
        ];
        for (pod, expected) in cases {
            assert_eq!(evaluate(Level::Baseline, &pod).to_string(), expected);
            assert!(evaluate(Level::Privileged, &pod).is_empty());
        }
    }
}
