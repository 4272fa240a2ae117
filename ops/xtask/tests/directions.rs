//! Dependencies point one way. Reads `cargo metadata`, so that a wrong `use` is caught where it begins: in a Cargo.toml.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path, process::Command};

/// Which of our crates each of our crates may depend on (dev-dependencies included).
const ALLOWED: &[(&str, &[&str])] = &[
    ("base2histogram", &[]),
    ("trireme-proto", &[]),
    ("trireme-raft", &["trireme-proto"]),
    ("trireme-api", &[]),
    ("trireme-client", &["trireme-api"]),
    ("trireme-apiserver", &["trireme-api", "trireme-raft", "trireme-proto"]),
    ("trireme-etcd", &["trireme-raft", "trireme-proto"]),
    ("trireme-controllers", &["trireme-api", "trireme-client"]),
    ("trireme-scheduler", &["trireme-api", "trireme-client"]),
    ("trireme-kubelet", &["trireme-api", "trireme-client", "trireme-proto"]),
    ("trireme-cni", &["trireme-api", "trireme-client"]),
    ("trireme-dns", &["trireme-api", "trireme-client"]),
    ("trireme-proxy", &["trireme-api", "trireme-client"]),
    ("trireme-images", &["trireme-proto"]),
    (
        "trireme-agent",
        &[
            "trireme-api",
            "trireme-client",
            "trireme-cni",
            "trireme-dns",
            "trireme-images",
            "trireme-kubelet",
            "trireme-proto",
            "trireme-proxy",
        ],
    ),
    (
        "trireme",
        &[
            "trireme-agent",
            "trireme-api",
            "trireme-apiserver",
            "trireme-client",
            "trireme-controllers",
            "trireme-etcd",
            "trireme-proto",
            "trireme-raft",
            "trireme-scheduler",
        ],
    ),
    ("xtask", &[]),
    ("trireme-harness", &["trireme-proto"]),
    ("trireme-chaos", &["trireme-raft", "trireme-proto"]),
    ("trireme-bench", &["trireme-proto"]),
    ("trireme-unsynced", &[]),
    ("trireme-e2e", &["trireme-chaos", "trireme-harness", "trireme-proto", "trireme-unsynced"]),
];

/// Crates that only certain crates of ours may name: each is behind a seam.
const SEAMS: &[(&str, &[&str])] = &[
    ("rocksdb", &["trireme-raft"]),
    ("openraft", &["trireme-raft"]),
    ("rtnetlink", &["trireme-cni"]),
    ("anyhow", &["trireme", "xtask", "trireme-harness", "trireme-e2e", "trireme-chaos", "trireme-bench"]),
];

fn metadata() -> BTreeMap<String, Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    let names = |p: &serde_json::Value| p["dependencies"].as_array().unwrap().iter().map(|d| text(&d["name"])).collect();
    document["packages"].as_array().unwrap().iter().map(|p| (text(&p["name"]), names(p))).collect()
}

#[test]
fn our_crates_depend_on_each_other_one_way() {
    let packages = metadata();
    for (package, dependencies) in &packages {
        let allowed = ALLOWED.iter().find(|(name, _)| name == package);
        let (_, allowed) =
            allowed.unwrap_or_else(|| panic!("{package} is new: say in ops/xtask/tests/directions.rs what it may depend on"));
        for dependency in dependencies.iter().filter(|d| packages.contains_key(*d)) {
            assert!(allowed.contains(&dependency.as_str()), "{package} must not depend on {dependency}");
        }
    }
}

#[test]
fn what_is_behind_a_seam_is_named_there_only() {
    for (package, dependencies) in metadata() {
        for (library, owners) in SEAMS {
            let names_it = dependencies.iter().any(|d| d == library);
            assert!(!names_it || owners.contains(&package.as_str()), "{package} must not depend on {library}: it belongs to {owners:?}");
        }
    }
}
