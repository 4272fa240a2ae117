//! `generated.json`: the pinned inputs, and the checksums of inputs, generators and tables at the time of the last generation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The whole file.
#[derive(Serialize, Deserialize)]
pub struct Record {
    /// Inputs by name.
    pub inputs: BTreeMap<String, Input>,
    /// Tables by name.
    pub tables: BTreeMap<String, Generated>,
}

/// Where an input comes from, and its content.
#[derive(Serialize, Deserialize)]
pub struct Input {
    /// In words.
    pub from: String,
    /// Of the file, or of the folder as [`checksum`] has it.
    pub sha256: String,
}

/// A table as it was generated.
#[derive(Serialize, Deserialize)]
pub struct Generated {
    /// Of the sources that generate it.
    pub generator_sha256: String,
    /// Of the table.
    pub sha256: String,
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("generated.json")
}

/// Reads the record.
pub fn read() -> anyhow::Result<Record> {
    let path = path();
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: not a record of generated tables", path.display()))
}

/// Writes the record.
pub fn write(record: &Record) -> anyhow::Result<()> {
    let path = path();
    let mut text = serde_json::to_string_pretty(record)?;
    text.push('\n');
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// SHA-256 of some bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a file; of several files or a folder: of the list of their checksums and names, in the order of the names.
pub fn checksum(paths: &[PathBuf]) -> anyhow::Result<String> {
    if let [path] = paths
        && path.is_file()
    {
        return Ok(sha256(&std::fs::read(path).with_context(|| format!("read {}", path.display()))?));
    }
    let mut list = Vec::new();
    for path in paths {
        let base = path.parent().unwrap_or(path);
        collect(base, path, &mut list)?;
    }
    list.sort();
    let text: String = list.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
    Ok(sha256(text.as_bytes()))
}

fn collect(base: &Path, path: &Path, into: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).with_context(|| format!("read {}", path.display()))? {
            collect(base, &entry?.path(), into)?;
        }
        return Ok(());
    }
    let content = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    // Relative to what was named, whose own name may differ between machines.
    let name = path.strip_prefix(base).unwrap_or(path).iter().skip(1).map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
    let name = if name.is_empty() { path.file_name().unwrap_or_default().to_string_lossy().into_owned() } else { name };
    into.push((name, sha256(&content)));
    Ok(())
}
