//! Security contexts. A container's own setting wins over its pod's. AppArmor and SELinux are only sent when a pod asks for them.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext};
use trireme_proto::cri::{self, security_profile::ProfileType};

use super::namespaces;
use crate::{
    error::{Error, Result},
    pod::spec,
};

/// What of /proc and /sys a container must not see, unless it is privileged or asks for an unmasked /proc.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn pod_context(pod: &Pod) -> Option<&PodSecurityContext> {
    spec::pod_spec(pod).security_context.as_ref()
}

fn int64(value: i64) -> cri::Int64Value {
    cri::Int64Value { value }
}

/// Of the sandbox's own pause process.
pub(crate) fn sandbox(pod: &Pod) -> cri::LinuxSandboxSecurityContext {
    let context = pod_context(pod);
    let privileged = spec::all_containers(pod).any(|(_, c)| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true));
    let run_as_user = context.and_then(|c| c.run_as_user);
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces::of_pod(pod)),
        selinux_options: context.and_then(|c| c.se_linux_options.as_ref()).map(selinux),
        run_as_user: run_as_user.map(int64),
        run_as_group: context.and_then(|c| c.run_as_group).filter(|_| run_as_user.is_some()).map(int64),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod) as i32,
        privileged,
        seccomp: Some(cri::SecurityProfile { profile_type: ProfileType::RuntimeDefault as i32, localhost_ref: String::new() }),
        ..Default::default()
    }
}

/// Groups that a pod's processes have besides their own: supplementalGroups and the group that owns its volumes.
pub(crate) fn groups(pod: &Pod) -> Vec<i64> {
    let context = pod_context(pod);
    let listed = context.and_then(|c| c.supplemental_groups.clone()).unwrap_or_default();
    listed.into_iter().chain(context.and_then(|c| c.fs_group)).collect()
}

/// Whether the image's own group memberships count too. A runtime that cannot leave them out is never asked: admission refuses the pod.
fn groups_policy(pod: &Pod) -> cri::SupplementalGroupsPolicy {
    match pod_context(pod).and_then(|c| c.supplemental_groups_policy.as_deref()) {
        Some("Strict") => cri::SupplementalGroupsPolicy::Strict,
        _ => cri::SupplementalGroupsPolicy::Merge,
    }
}

/// Of one container. `image` is needed to judge runAsNonRoot.
pub(crate) fn container(
    pod: &Pod,
    container: &Container,
    image: Option<&cri::Image>,
    seccomp_dir: &Path,
    target_id: Option<&str>,
) -> Result<cri::LinuxContainerSecurityContext> {
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let of_pod = pod_context(pod);
    let run_as_user = own.run_as_user.or(of_pod.and_then(|p| p.run_as_user));
    let run_as_group = own.run_as_group.or(of_pod.and_then(|p| p.run_as_group));
    if own.run_as_non_root.or(of_pod.and_then(|p| p.run_as_non_root)) == Some(true) {
        verify_not_root(pod, container, run_as_user, image)?;
    }
    let image_uid = image.and_then(|i| i.uid.as_ref()).map(|u| u.value);
    let image_user = image.map(|i| i.username.clone()).unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(ToString::to_string).collect() };
    let seccomp_wish = own.seccomp_profile.as_ref().or(of_pod.and_then(|p| p.seccomp_profile.as_ref()));
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| cri::Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespaces::of_container(pod, target_id)),
        selinux_options: own.se_linux_options.as_ref().or(of_pod.and_then(|p| p.se_linux_options.as_ref())).map(selinux),
        run_as_user: run_as_user.or(image_uid.filter(|_| image_user.is_empty())).map(int64),
        run_as_username: if run_as_user.is_none() { image_user } else { String::new() },
        run_as_group: run_as_group.map(int64),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READONLY),
        seccomp: Some(seccomp(seccomp_wish.filter(|_| !privileged), seccomp_dir)?),
        apparmor: own.app_armor_profile.as_ref().or(of_pod.and_then(|p| p.app_armor_profile.as_ref())).map(apparmor),
        supplemental_groups_policy: groups_policy(pod) as i32,
    })
}

fn verify_not_root(pod: &Pod, container: &Container, run_as_user: Option<i64>, image: Option<&cri::Image>) -> Result<()> {
    let place = format!("(pod: {:?}, container: {})", spec::display(pod), container.name);
    match (run_as_user, image.and_then(|i| i.uid.as_ref()), image.map(|i| i.username.as_str()).unwrap_or_default()) {
        (Some(0), _, _) => Err(Error::Config(format!("container's runAsUser breaks non-root policy {place}"))),
        (Some(_), _, _) => Ok(()),
        (None, Some(uid), _) if uid.value == 0 => {
            Err(Error::Config(format!("container has runAsNonRoot and image will run as root {place}")))
        }
        (None, _, name) if !name.is_empty() => Err(Error::Config(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {place}"
        ))),
        (None, Some(_), _) => Ok(()),
        (None, None, _) => Err(Error::Config(format!("container has runAsNonRoot and image will run as root {place}"))),
    }
}

fn seccomp(profile: Option<&SeccompProfile>, dir: &Path) -> Result<cri::SecurityProfile> {
    let (profile_type, localhost_ref) = match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => (ProfileType::RuntimeDefault, String::new()),
        Some(("Localhost", Some(file))) if is_below(file) => (ProfileType::Localhost, dir.join(file).to_string_lossy().into_owned()),
        Some(("Localhost", Some(file))) if !file.is_empty() => {
            return Err(Error::Config(format!("localhostProfile {file:?} must be a relative path without '..'")));
        }
        Some(("Localhost", _)) => return Err(Error::Config("localhostProfile must be set if seccompProfile type is Localhost.".into())),
        _ => (ProfileType::Unconfined, String::new()),
    };
    Ok(cri::SecurityProfile { profile_type: profile_type as i32, localhost_ref })
}

fn is_below(file: &str) -> bool {
    !file.is_empty() && Path::new(file).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
}

fn apparmor(profile: &AppArmorProfile) -> cri::SecurityProfile {
    let profile_type = match profile.type_.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    cri::SecurityProfile { profile_type: profile_type as i32, localhost_ref: profile.localhost_profile.clone().unwrap_or_default() }
}

fn selinux(options: &SELinuxOptions) -> cri::SeLinuxOption {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    cri::SeLinuxOption { user: text(&options.user), role: text(&options.role), r#type: text(&options.type_), level: text(&options.level) }
}
