//! Writing generated Rust files.

use std::fmt::Write as _;
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

/// Appends a static array to generated code.
pub fn array(out: &mut String, name: &str, item: &str, rows: &[String]) -> anyhow::Result<()> {
    writeln!(out, "\n#[rustfmt::skip]\npub(super) static {name}: [{item}; {}] = [", rows.len())?;
    for line in rows.chunks(10) {
        writeln!(out, "    {},", line.join(", "))?;
    }
    writeln!(out, "];")?;
    Ok(())
}
