//! Validation of containers: regular, init and ephemeral. Upstream: `validateContainers` and its neighbours in
//! `pkg/apis/core/validation`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::reference::{ENV_FIELDS, field_ref, resource_field_ref};
use super::{handler, path, requirements, security};
use crate::names;
use crate::validate::At;

/// What a container's checks need to know of its pod.
pub(crate) struct Pod<'a> {
    /// The volumes by name.
    pub(crate) volumes: Map<String, Value>,
    /// Names in `spec.resourceClaims`.
    pub(crate) claims: BTreeSet<&'a str>,
    pub(crate) grace_period_secs: Option<i64>,
    pub(crate) restart_policy: &'a str,
    pub(crate) host_users: bool,
}

const SIDECARS_ONLY: &str = "may not be set for init containers without restartPolicy=Always";

const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// `spec.containers`.
pub(crate) fn regular(containers: &At<'_>, pod: &Pod<'_>) {
    if containers.is_empty() {
        containers.required("");
        return;
    }
    let mut names = BTreeSet::new();
    for container in containers.items() {
        common(&container, pod);
        if !names.insert(container.at("name").text()) {
            container.at("name").duplicate();
        }
        lifecycle_and_probes(&container, pod);
        restart_policy(&container, &["Always", "OnFailure", "Never"]);
    }
    host_port_conflicts(containers.items());
}

/// `spec.initContainers`.
pub(crate) fn init(containers: &At<'_>, regular: &At<'_>, pod: &Pod<'_>) {
    let mut names: BTreeSet<&str> = regular.items().map(|container| container.at("name").text()).collect();
    for container in containers.items() {
        common(&container, pod);
        restart_policy(&container, &["Always", "OnFailure", "Never"]);
        let name = container.at("name");
        if !names.insert(name.text()) {
            name.duplicate();
        }
        host_port_conflicts(std::iter::once(container.clone()));
        if container.at("restartPolicy").text() == "Always" {
            lifecycle_and_probes(&container, pod);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.at(field).is_set() {
                    container.at(field).forbidden(SIDECARS_ONLY);
                }
            }
        }
    }
}

/// `spec.ephemeralContainers`.
pub(crate) fn ephemeral(containers: &At<'_>, spec: &At<'_>, pod: &Pod<'_>) {
    let others: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.at(list).items().collect::<Vec<_>>())
        .map(|container| container.at("name").text())
        .collect();
    let mut names = others.clone();
    for container in containers.items() {
        common(&container, pod);
        image_padding(&container);
        if !names.insert(container.at("name").text()) {
            container.at("name").duplicate();
        }
        let target = container.at("targetContainerName");
        if target.is_full() && !others.contains(target.text()) {
            target.not_found();
        }
        let banned =
            ["ports", "resources", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy", "restartPolicy"];
        for field in banned {
            if container.at(field).is_full() {
                container.at(field).forbidden(NOT_EPHEMERAL);
            }
        }
        for mount in container.at("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if mount.at(field).is_full() {
                    mount.at(field).forbidden(NOT_EPHEMERAL);
                }
            }
        }
    }
}

/// In a Pod (not in a template) an image may not be padded with spaces.
pub(crate) fn image_padding(container: &At<'_>) {
    let image = container.at("image");
    if image.text().trim().len() != image.text().len() {
        image.invalid("must not have leading or trailing whitespace");
    }
}

fn restart_policy(container: &At<'_>, allowed: &[&str]) {
    let policy = container.at("restartPolicy");
    policy.may_be_one_of(allowed);
    let rules = container.at("restartPolicyRules");
    if !rules.is_empty() && !policy.is_full() {
        policy.required("must specify restartPolicy when restart rules are used");
    }
    for rule in rules.items() {
        rule.at("action").one_of(&["Restart"]);
        let codes = rule.at("exitCodes");
        if !codes.is_set() {
            codes.required("must be specified");
            continue;
        }
        codes.at("operator").one_of(&["In", "NotIn"]);
        if codes.at("values").is_empty() {
            codes.at("values").invalid_as(Value::Null, "must be specified");
        }
    }
}

fn lifecycle_and_probes(container: &At<'_>, pod: &Pod<'_>) {
    for hook in ["postStart", "preStop"] {
        let hook = container.at("lifecycle").at(hook);
        if hook.is_set() {
            handler::check(&hook, pod.grace_period_secs);
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.at(kind);
        if probe.is_set() {
            handler::probe(&probe, kind, pod.grace_period_secs);
        }
    }
}

fn common(container: &At<'_>, pod: &Pod<'_>) {
    container.at("name").must_obey(names::is_dns1123_label);
    if container.at("image").text().is_empty() {
        container.at("image").required("");
    }
    container.at("terminationMessagePolicy").one_of(&["File", "FallbackToLogsOnError"]);
    ports(&container.at("ports"));
    env(&container.at("env"), pod);
    env_from(&container.at("envFrom"));
    mounts(container, pod);
    devices(container, pod);
    container.at("imagePullPolicy").one_of(&["Always", "IfNotPresent", "Never"]);
    requirements::container(&container.at("resources"), Some(&pod.claims));
    resize_policy(&container.at("resizePolicy"), pod.restart_policy);
    security::container(&container.at("securityContext"), pod.host_users);
}

fn ports(ports: &At<'_>) {
    let mut names = BTreeSet::new();
    for port in ports.items() {
        let name = port.at("name");
        if name.is_full() {
            let messages = names::is_port_name(name.text());
            if !messages.is_empty() {
                messages.into_iter().for_each(|message| name.invalid(message));
            } else if !names.insert(name.text()) {
                name.duplicate();
            }
        }
        let number = port.at("containerPort");
        match number.int() {
            None | Some(0) => number.required(""),
            Some(_) => number.in_range(1, 65_535),
        }
        if port.at("hostPort").int().unwrap_or(0) != 0 {
            port.at("hostPort").in_range(1, 65_535);
        }
        port.at("protocol").one_of(&["SCTP", "TCP", "UDP"]);
    }
}

fn host_port_conflicts<'a>(containers: impl Iterator<Item = At<'a>>) {
    let mut taken = BTreeSet::new();
    for container in containers {
        for port in container.at("ports").items() {
            let number = port.at("hostPort").int().unwrap_or(0);
            if number == 0 {
                continue;
            }
            let key = format!("{}/{}/{number}", port.at("protocol").text(), port.at("hostIP").text());
            if !taken.insert(key.clone()) {
                let path = port.path.child("hostPort");
                port.errors.push(crate::field::FieldError::duplicate(&path, key));
            }
        }
    }
}

/// Environment variables may be called anything printable but `=`.
pub(crate) fn env_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    let fine = |character: char| (' '..='~').contains(&character) && character != '=';
    if name.chars().all(fine) {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

fn env(env: &At<'_>, pod: &Pod<'_>) {
    for variable in env.items() {
        variable.at("name").must_obey(env_name);
        let from = variable.at("valueFrom");
        if from.is_set() {
            value_from(&from, variable.at("value").is_full());
            file_volume(&from.at("fileKeyRef"), pod);
        }
    }
}

fn value_from(from: &At<'_>, has_value: bool) {
    let mut sources = 0;
    let mut source = |name: &str| {
        let found = from.at(name);
        sources += usize::from(found.is_set());
        found.is_set().then_some(found)
    };
    if let Some(reference) = source("fieldRef") {
        field_ref(&reference, &ENV_FIELDS);
    }
    if let Some(reference) = source("resourceFieldRef") {
        resource_field_ref(&reference, false);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = source(name) {
            reference.at("name").obeys(names::is_dns1123_subdomain);
            reference.at("key").must_obey(names::is_config_map_key);
        }
    }
    if let Some(reference) = source("fileKeyRef") {
        reference.at("volumeName").must_obey(names::is_dns1123_label);
        path::local_path(&reference.at("path"));
        reference.at("key").must_obey(env_name);
    }
    if sources == 0 {
        from.invalid_as("", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
    } else if has_value {
        from.invalid_as("", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        from.invalid_as("", "may not have more than one field specified at a time");
    }
}

/// A file of variables is written by another container of the pod, so its volume is an emptyDir.
fn file_volume(reference: &At<'_>, pod: &Pod<'_>) {
    if !reference.is_set() {
        return;
    }
    let name = reference.at("volumeName");
    match pod.volumes.get(name.text()) {
        None => name.not_found(),
        Some(source) if source.get("emptyDir").is_none() => name.invalid("referenced volume must be of type emptyDir"),
        Some(_) => {}
    }
}

fn env_from(sources: &At<'_>) {
    for source in sources.items() {
        source.at("prefix").may_obey(env_name);
        let mut count = 0;
        for kind in ["configMapRef", "secretRef"] {
            let reference = source.at(kind);
            if reference.is_set() {
                count += 1;
                reference.at("name").must_obey(names::is_dns1123_subdomain);
            }
        }
        if count == 0 {
            sources.invalid_as("", "must specify one of: `configMapRef` or `secretRef`");
        } else if count > 1 {
            sources.invalid_as("", "may not have more than one field specified at a time");
        }
    }
}

fn mounts(container: &At<'_>, pod: &Pod<'_>) {
    let mounts = container.at("volumeMounts");
    let devices = container.at("volumeDevices");
    let mut seen = BTreeSet::new();
    for mount in mounts.items() {
        let (name, path) = (mount.at("name"), mount.at("mountPath"));
        if name.text().is_empty() {
            name.required("");
        }
        if !pod.volumes.contains_key(name.text()) {
            name.not_found();
        }
        if path.text().is_empty() {
            path.required("");
        }
        if !seen.insert(path.text()) {
            path.invalid("must be unique");
        }
        if devices.items().any(|device| device.at("name").text() == name.text()) {
            name.invalid("must not already exist in volumeDevices");
        }
        if devices.items().any(|device| device.at("devicePath").text() == path.text()) {
            path.invalid("must not already exist as a path in volumeDevices");
        }
        // Upstream reports these under the list and not under the item.
        let listed = |field: &str| mount.at(field).named(mounts.path.child(field));
        if mount.at("subPath").is_full() {
            path::local_path(&listed("subPath"));
        }
        if mount.at("subPathExpr").is_full() {
            if mount.at("subPath").is_full() {
                mount.at("subPathExpr").invalid("subPathExpr and subPath are mutually exclusive");
            }
            path::local_path(&listed("subPathExpr"));
        }
        propagation(container, &mount, &listed("mountPropagation"), &listed("recursiveReadOnly"));
    }
}

fn propagation(container: &At<'_>, mount: &At<'_>, propagation: &At<'_>, recursive: &At<'_>) {
    if propagation.is_set() {
        propagation.may_be_one_of(&["Bidirectional", "HostToContainer", "None"]);
        if propagation.text() == "Bidirectional" && !container.at("securityContext").at("privileged").flag() {
            propagation.forbidden("Bidirectional mount propagation is available only to privileged containers");
        }
    }
    match recursive.text() {
        "" | "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.at("readOnly").flag() {
                recursive.forbidden("may only be specified when readOnly is true");
            }
            if !matches!(propagation.text(), "" | "None") {
                recursive.forbidden("may only be specified when mountPropagation is None or not specified");
            }
        }
        _ => recursive.not_supported(&["Disabled", "IfPossible", "Enabled"]),
    }
}

fn devices(container: &At<'_>, pod: &Pod<'_>) {
    let mounts = container.at("volumeMounts");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.at("volumeDevices").items() {
        let (name, path) = (device.at("name"), device.at("devicePath"));
        if name.text().is_empty() {
            name.required("");
        }
        if !name.text().is_empty() && !names.insert(name.text()) {
            name.invalid("must be unique");
        }
        match pod.volumes.get(name.text()) {
            None => name.not_found(),
            Some(volume) if volume.get("persistentVolumeClaim").is_none() && volume.get("ephemeral").is_none() => {
                name.invalid("can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
            }
            Some(_) => {}
        }
        if path.text().is_empty() {
            path.required("");
        }
        if paths.contains(path.text()) {
            path.invalid("must be unique");
        }
        if path.text().split('/').any(|part| part == "..") {
            path.invalid("can not contain backsteps ('..')");
        } else {
            paths.insert(path.text());
        }
        if mounts.items().any(|mount| mount.at("name").text() == name.text()) {
            name.invalid("must not already exist in volumeMounts");
        }
        if mounts.items().any(|mount| mount.at("mountPath").text() == path.text()) {
            path.invalid("must not already exist as a path in volumeMounts");
        }
    }
}

fn resize_policy(policies: &At<'_>, pod_restart_policy: &str) {
    let mut seen = BTreeSet::new();
    for policy in policies.items() {
        let resource = policy.at("resourceName").named(policies.path.clone());
        if !seen.insert(resource.text()) {
            policy.errors.push(crate::field::FieldError::duplicate(&policy.path, json!(resource.text())));
        }
        resource.one_of(&["cpu", "memory"]);
        let restart = policy.at("restartPolicy").named(policies.path.clone());
        restart.one_of(&["NotRequired", "RestartContainer"]);
        if pod_restart_policy == "Never" && restart.text() != "NotRequired" {
            restart.invalid("must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}
