//! A volume of a CSI driver, and the names that controllers, kubelets and drivers' attachers find it by. No I/O.

use sha2::{Digest, Sha256};

/// A volume of a driver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeId {
    /// The driver's name.
    pub driver: String,
    /// What the driver calls the volume.
    pub handle: String,
}

impl VolumeId {
    /// The name in a node's `volumesInUse` and `volumesAttached`.
    #[must_use]
    pub fn unique_name(&self) -> String {
        format!("{}{}", unique_prefix(&self.driver), self.handle)
    }

    /// The name of the VolumeAttachment to a node.
    #[must_use]
    pub fn attachment(&self, node: &str) -> String {
        format!("csi-{}", hash(&format!("{}{}{node}", self.handle, self.driver)))
    }
}

/// The beginning of the unique names of a driver's volumes.
#[must_use]
pub fn unique_prefix(driver: &str) -> String {
    format!("kubernetes.io/csi/{driver}^")
}

/// The handle of a volume that a driver makes for one pod.
#[must_use]
pub fn ephemeral_handle(pod_uid: &str, volume: &str) -> String {
    format!("csi-{}", hash(&format!("{pod_uid}{volume}")))
}

/// SHA-256 in hexadecimal digits: of a handle, the name of the folder in which the volume is staged.
#[must_use]
pub fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams() {
        let id = VolumeId { driver: "d.example.com".into(), handle: "h/1".into() };
        assert_eq!(id.unique_name(), "kubernetes.io/csi/d.example.com^h/1");
        assert_eq!(id.attachment("n1"), format!("csi-{}", hash("h/1d.example.comn1")));
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
