//! Compiles every `proto/*.proto` with protox (no `protoc` needed) into prost and tonic code.
//!
//! A new file in `proto/` is picked up by itself; its package only has to be named in `src/lib.rs`.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = Path::new("proto");
    println!("cargo:rerun-if-changed=proto");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)?
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "proto"))
        .collect();
    files.sort();
    let descriptors = protox::compile(&files, [dir])?;
    tonic_prost_build::configure().bytes(".").build_transport(true).include_file("packages.rs").compile_fds(descriptors)?;
    Ok(())
}
