//! Writing generated Rust files.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// Formats generated code as the workspace is formatted.
pub fn format(code: &str) -> anyhow::Result<String> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rustfmt.toml");
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("run rustfmt")?;
    let mut input = child.stdin.take().context("rustfmt has no standard input")?;
    let code = code.to_owned();
    // Written from another thread: rustfmt may answer before it has read everything.
    let writer = std::thread::spawn(move || input.write_all(code.as_bytes()));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("the code could not be handed to rustfmt"))??;
    anyhow::ensure!(output.status.success(), "rustfmt refuses the generated code");
    Ok(String::from_utf8(output.stdout)?)
}
