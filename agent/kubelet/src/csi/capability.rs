//! How a volume is to be used, in the terms of CSI.

use trireme_proto::csi::{
    VolumeCapability,
    node_service_capability::rpc::Type,
    volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode},
};

use super::{driver::Abilities, layout::Form, wanted::Wanted};

/// The access mode: that of the volume's first, as upstream has it.
fn mode(modes: &[String], abilities: &Abilities) -> Mode {
    let tells_writers_apart = abilities.has(Type::SingleNodeMultiWriter);
    match modes.first().map(String::as_str) {
        Some("ReadOnlyMany") => Mode::MultiNodeReaderOnly,
        Some("ReadWriteMany") => Mode::MultiNodeMultiWriter,
        Some("ReadWriteOncePod") if tells_writers_apart => Mode::SingleNodeSingleWriter,
        Some("ReadWriteOnce") if tells_writers_apart => Mode::SingleNodeMultiWriter,
        _ => Mode::SingleNodeWriter,
    }
}

/// The capability that a driver is given with each call. `group` is the group that it gives the files to.
pub(super) fn of(wanted: &Wanted, abilities: &Abilities, group: Option<i64>) -> VolumeCapability {
    let access_type = if wanted.form == Form::Device {
        AccessType::Block(BlockVolume {})
    } else {
        AccessType::Mount(MountVolume {
            fs_type: wanted.fs_type.clone(),
            mount_flags: wanted.mount_options.clone(),
            volume_mount_group: group.map(|group| group.to_string()).unwrap_or_default(),
        })
    };
    let access_mode = AccessMode { mode: mode(&wanted.access_modes, abilities) as i32 };
    VolumeCapability { access_mode: Some(access_mode), access_type: Some(access_type) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_modes_are_upstreams() {
        let able = Abilities::with(&[Type::SingleNodeMultiWriter]);
        let plain = Abilities::default();
        for (name, without, with) in [
            ("ReadWriteOnce", Mode::SingleNodeWriter, Mode::SingleNodeMultiWriter),
            ("ReadWriteOncePod", Mode::SingleNodeWriter, Mode::SingleNodeSingleWriter),
            ("ReadOnlyMany", Mode::MultiNodeReaderOnly, Mode::MultiNodeReaderOnly),
            ("ReadWriteMany", Mode::MultiNodeMultiWriter, Mode::MultiNodeMultiWriter),
        ] {
            let modes = [name.to_owned()];
            assert_eq!((mode(&modes, &plain), mode(&modes, &able)), (without, with), "{name}");
        }
        assert_eq!(mode(&[], &able), Mode::SingleNodeWriter);
    }
}
