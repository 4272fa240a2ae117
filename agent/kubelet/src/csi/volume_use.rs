//! How full a volume is, in the kubelet's form.

/// What a driver says of a volume; what it does not say is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VolumeUse {
    pub(crate) bytes: Option<Usage>,
    pub(crate) inodes: Option<Usage>,
    /// Whether the volume is in a bad state, of drivers that tell.
    pub(crate) abnormal: Option<bool>,
}

/// Amounts of one unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) total: u64,
    pub(crate) used: u64,
    pub(crate) available: u64,
}
