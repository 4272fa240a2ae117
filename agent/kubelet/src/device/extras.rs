//! What a container's configuration gets because of its devices. Pure.

use std::collections::BTreeMap;

use trireme_proto::{cri, deviceplugin::ContainerAllocateResponse};

/// Of several answers that say something of the same thing, the first one counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Extras {
    pub(crate) envs: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) mounts: Vec<cri::Mount>,
    pub(crate) devices: Vec<cri::Device>,
    pub(crate) cdi_devices: Vec<cri::CdiDevice>,
}

impl Extras {
    /// Adds what one plugin said.
    pub(super) fn add(&mut self, answer: &ContainerAllocateResponse) {
        for (own, said) in [(&mut self.envs, &answer.envs), (&mut self.annotations, &answer.annotations)] {
            for (key, value) in said {
                own.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        for mount in &answer.mounts {
            if !self.mounts.iter().any(|known| known.container_path == mount.container_path) {
                self.mounts.push(cri::Mount {
                    container_path: mount.container_path.clone(),
                    host_path: mount.host_path.clone(),
                    readonly: mount.read_only,
                    ..Default::default()
                });
            }
        }
        for device in &answer.devices {
            if !self.devices.iter().any(|known| known.container_path == device.container_path) {
                self.devices.push(cri::Device {
                    container_path: device.container_path.clone(),
                    host_path: device.host_path.clone(),
                    permissions: device.permissions.clone(),
                });
            }
        }
        for device in &answer.cdi_devices {
            if !self.cdi_devices.iter().any(|known| known.name == device.name) {
                self.cdi_devices.push(cri::CdiDevice { name: device.name.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use trireme_proto::deviceplugin as wire;

    use super::*;

    #[test]
    fn the_first_answer_counts() {
        let answer = |value: &str| ContainerAllocateResponse {
            envs: [("E".into(), value.into())].into(),
            annotations: [("a".into(), value.into())].into(),
            mounts: vec![wire::Mount { container_path: "/m".into(), host_path: value.into(), read_only: true }],
            devices: vec![wire::DeviceSpec { container_path: "/d".into(), host_path: value.into(), permissions: "r".into() }],
            cdi_devices: vec![wire::CdiDevice { name: "c".into() }, wire::CdiDevice { name: value.into() }],
        };
        let mut extras = Extras::default();
        extras.add(&answer("/1"));
        extras.add(&answer("/2"));
        assert_eq!((extras.envs["E"].as_str(), extras.annotations["a"].as_str()), ("/1", "/1"));
        assert_eq!((extras.mounts.len(), extras.mounts[0].host_path.as_str(), extras.mounts[0].readonly), (1, "/1", true));
        assert_eq!((extras.devices.len(), extras.devices[0].host_path.as_str(), extras.devices[0].permissions.as_str()), (1, "/1", "r"));
        let names: Vec<&str> = extras.cdi_devices.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["c", "/1", "/2"]);
    }
}
