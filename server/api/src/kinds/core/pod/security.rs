//! Validation of security contexts of pods and containers.

use super::path;
use crate::validate::At;

const MAX_ID: i64 = 0xffff_ffff;

/// `spec.securityContext`.
pub(crate) fn pod(context: &At<'_>, spec: &At<'_>) {
    if !context.is_set() {
        return;
    }
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        context.at(field).in_range(0, MAX_ID);
    }
    for group in context.at("supplementalGroups").items() {
        group.in_range(0, MAX_ID);
    }
    let shared = spec.at("shareProcessNamespace");
    if shared.flag() && spec.at("hostPID").flag() {
        shared.named(context.path.child("shareProcessNamespace")).invalid("ShareProcessNamespace and HostPID cannot both be enabled");
    }
    sysctls(&context.at("sysctls"), spec);
    context.at("fsGroupChangePolicy").may_be_one_of(&["Always", "OnRootMismatch"]);
    seccomp(&context.at("seccompProfile"));
    app_armor(&context.at("appArmorProfile"));
    context.at("supplementalGroupsPolicy").may_be_one_of(&["Merge", "Strict"]);
    context.at("seLinuxChangePolicy").may_be_one_of(&["MountOption", "Recursive"]);
}

/// A container's `securityContext`.
pub(crate) fn container(context: &At<'_>, host_users: bool) {
    if !context.is_set() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        context.at(field).in_range(0, MAX_ID);
    }
    let mount = context.at("procMount");
    if mount.is_set() {
        mount.one_of(&["Default", "Unmasked"]);
        if host_users && mount.text() == "Unmasked" {
            mount.invalid("`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(&context.at("seccompProfile"));
    let escalation = context.at("allowPrivilegeEscalation");
    if escalation.is_set() && !escalation.flag() {
        if context.at("privileged").flag() {
            context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if context.at("capabilities").at("add").strings().contains(&"CAP_SYS_ADMIN") {
            context.invalid("cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    app_armor(&context.at("appArmorProfile"));
}

fn sysctls(list: &At<'_>, spec: &At<'_>) {
    let mut seen = std::collections::BTreeSet::new();
    for item in list.items() {
        let name = item.at("name");
        if name.text().is_empty() {
            name.required("");
        } else if !is_sysctl(name.text()) {
            name.invalid(
                "must have at most 253 characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            );
        } else if !seen.insert(name.text()) {
            name.duplicate();
        }
        let dotted = name.text().replace('/', ".");
        if spec.at("hostNetwork").flag() && dotted.starts_with("net.") {
            name.invalid("may not be specified when 'hostNetwork' is true");
        }
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| dotted.starts_with(prefix)) || dotted == "kernel.sem";
        if spec.at("hostIPC").flag() && ipc {
            name.invalid("may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 253
        && name.split(['.', '/']).all(|segment| {
            let bytes = segment.as_bytes();
            !bytes.is_empty()
                && edge(bytes[0])
                && edge(bytes[bytes.len() - 1])
                && bytes.iter().all(|byte| edge(*byte) || matches!(byte, b'-' | b'_'))
        })
}

fn seccomp(profile: &At<'_>) {
    if !profile.is_set() {
        return;
    }
    let kind = profile.at("type");
    if kind.text().is_empty() {
        kind.required("type is required when seccompProfile is set");
    } else if !matches!(kind.text(), "Localhost" | "RuntimeDefault" | "Unconfined") {
        kind.not_supported(&["Localhost", "RuntimeDefault", "Unconfined"]);
    }
    let file = profile.at("localhostProfile");
    if kind.text() == "Localhost" {
        if file.is_set() {
            path::local_path(&file);
        } else {
            file.required("must be set when seccomp type is Localhost");
        }
    } else if file.is_set() {
        file.invalid_as(profile.value.clone(), "can only be set when seccomp type is Localhost");
    }
}

fn app_armor(profile: &At<'_>) {
    if !profile.is_set() {
        return;
    }
    let (kind, file) = (profile.at("type"), profile.at("localhostProfile"));
    match kind.text() {
        "Localhost" => {
            if file.text().trim() != file.text() {
                file.invalid("must not be padded with whitespace");
            } else if file.text().is_empty() {
                file.required("must be set when AppArmor type is Localhost");
            }
            if file.len() > 4095 {
                file.too_long(4095);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if file.is_set() {
                file.invalid("can only be set when AppArmor type is Localhost");
            }
        }
        "" => kind.required("type is required when appArmorProfile is set"),
        _ => kind.not_supported(&["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}
