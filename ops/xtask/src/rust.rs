//! Writing generated Rust files.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The folder of the crate that the tables go to.
pub fn api_crate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../server/api/src")
}

/// Writes a generated file.
pub fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    std::fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
    println!("{}: {} bytes", path.display(), content.len());
    Ok(())
}
