//! What a plugin says that a container needs, checked before it is kept. Pure.

use trireme_proto::deviceplugin::ContainerAllocateResponse;

/// More entries of a kind than any container needs.
const MAX_ENTRIES: usize = 4096;

/// Why an answer cannot be used.
pub(super) fn check(answer: &ContainerAllocateResponse) -> Result<(), String> {
    let counts = [answer.envs.len(), answer.mounts.len(), answer.devices.len(), answer.annotations.len(), answer.cdi_devices.len()];
    if counts.iter().any(|count| *count > MAX_ENTRIES) {
        return Err(format!("more than {MAX_ENTRIES} entries of a kind"));
    }
    let has_nul = |text: &String| text.contains('\0');
    for (name, value) in &answer.envs {
        if name.is_empty() || name.contains('=') || has_nul(name) || has_nul(value) {
            return Err(format!("{name:?} is no environment variable"));
        }
    }
    for (key, value) in &answer.annotations {
        if key.is_empty() || has_nul(key) || has_nul(value) {
            return Err(format!("{key:?} is no annotation"));
        }
    }
    let paths = answer.mounts.iter().map(|m| [&m.container_path, &m.host_path]);
    for path in paths.chain(answer.devices.iter().map(|d| [&d.container_path, &d.host_path])).flatten() {
        if !path.starts_with('/') || has_nul(path) {
            return Err(format!("{path:?} is no absolute path"));
        }
    }
    if let Some(device) = answer.devices.iter().find(|device| !device.permissions.chars().all(|c| "rwm".contains(c))) {
        return Err(format!("permissions {:?} of device {} are none of r, w and m", device.permissions, device.host_path));
    }
    match answer.cdi_devices.iter().find(|device| device.name.is_empty() || has_nul(&device.name)) {
        Some(device) => Err(format!("{:?} is no name of a CDI device", device.name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use trireme_proto::deviceplugin as wire;

    use super::*;

    #[test]
    fn an_answer_that_no_runtime_could_use_is_refused() {
        let mount =
            |container: &str, host: &str| wire::Mount { container_path: container.into(), host_path: host.into(), read_only: false };
        let device = |host: &str, permissions: &str| wire::DeviceSpec {
            container_path: "/dev/x".into(),
            host_path: host.into(),
            permissions: permissions.into(),
        };
        let none = ContainerAllocateResponse::default;
        let good = ContainerAllocateResponse {
            envs: [("A".into(), "1".into())].into(),
            mounts: vec![mount("/a", "/b")],
            devices: vec![device("/dev/x", "rwm")],
            annotations: [("a/b".into(), String::new())].into(),
            cdi_devices: vec![wire::CdiDevice { name: "example.com/gpu=0".into() }],
        };
        assert_eq!(check(&good), Ok(()));
        for (bad, why) in [
            (ContainerAllocateResponse { envs: [("A=B".into(), String::new())].into(), ..none() }, "no environment variable"),
            (ContainerAllocateResponse { envs: [("A".into(), "\0".into())].into(), ..none() }, "no environment variable"),
            (ContainerAllocateResponse { annotations: [(String::new(), String::new())].into(), ..none() }, "no annotation"),
            (ContainerAllocateResponse { mounts: vec![mount("a", "/b")], ..none() }, "no absolute path"),
            (ContainerAllocateResponse { mounts: vec![mount("/a", "")], ..none() }, "no absolute path"),
            (ContainerAllocateResponse { mounts: vec![mount("/a", "/b"); MAX_ENTRIES + 1], ..none() }, "more than"),
            (ContainerAllocateResponse { devices: vec![device("dev", "r")], ..none() }, "no absolute path"),
            (ContainerAllocateResponse { devices: vec![device("/dev/x", "rx")], ..none() }, "none of r, w and m"),
            (ContainerAllocateResponse { cdi_devices: vec![wire::CdiDevice { name: String::new() }], ..none() }, "no name of a CDI device"),
        ] {
            assert!(check(&bad).unwrap_err().contains(why), "{bad:?}");
        }
    }
}
