//! Documents name what exists.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn documents() -> Vec<(PathBuf, String)> {
    let folder = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let all = folder.chain([root().join("README.md"), root().join("CONTRIBUTING.md")]);
    all.filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// The units of ours that follow `systemctl` or `journalctl -u` in a line.
fn units(line: &str) -> Vec<&str> {
    let Some((_, rest)) = line.split_once("systemctl ").or_else(|| line.split_once("journalctl -u ")) else { return Vec::new() };
    let words = rest.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))).filter(|word| !word.is_empty());
    words.take_while(|word| !matches!(*word, "kubectl" | "returns")).filter(|word| word.starts_with("trireme")).collect()
}

#[test]
fn d17_documents_name_units_that_exist_and_every_port() {
    let mut wrong = Vec::new();
    let mut named = 0;
    for (path, text) in documents() {
        for line in text.lines() {
            for unit in units(line) {
                named += 1;
                let file = if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") };
                if !root().join("ops/systemd").join(file).exists() {
                    wrong.push(format!("{}: {line}", path.display()));
                }
            }
        }
    }
    assert!(named > 5 && wrong.is_empty(), "{named} units named; not in ops/systemd: {wrong:#?}");
    let ports = std::fs::read_to_string(root().join("docs/install-ha.md")).unwrap();
    for port in ["6443/tcp", "2379/tcp", "2380/tcp", "10250/tcp", "8472/udp"] {
        assert!(ports.contains(port), "the table of ports in docs/install-ha.md lacks {port}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !target.is_empty() && !target.contains("://") && !path.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
