//! The file that says which host ports are mapped. It counts for the boot in which it was written: after another one no pod runs.

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use serde::{Deserialize, Serialize};

use super::PodPorts;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Serialize, Deserialize)]
struct Saved {
    boot_id: String,
    pods: BTreeMap<String, PodPorts>,
}

fn boot_id() -> String {
    fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned()
}

/// What was written in this boot. A file that is not understood counts as none: the pods are asked for again anyway.
pub(super) fn read(file: &Path) -> BTreeMap<String, PodPorts> {
    let saved = fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<Saved>(&bytes).ok());
    saved.filter(|saved| saved.boot_id == boot_id()).map(|saved| saved.pods).unwrap_or_default()
}

/// Writes the file whole or not at all.
pub(super) fn write(file: &Path, pods: BTreeMap<String, PodPorts>) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let fresh = file.with_extension("new");
    let mut out = fs::File::create(&fresh)?;
    out.write_all(&serde_json::to_vec(&Saved { boot_id: boot_id(), pods })?)?;
    out.sync_all()?;
    fs::rename(&fresh, file)
}
