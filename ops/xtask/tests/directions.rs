//! Dependencies point one way. Reads `cargo metadata`, so that a wrong `use` is caught where it begins: in a Cargo.toml.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path, process::Command};

/// Which of our crates each of our crates may depend on (dev-dependencies included, but for [`TESTS`]).
const ALLOWED: &[(&str, &[&str])] = &[
    ("base2histogram", &[]),
    ("trireme-proto", &[]),
    ("trireme-raft", &["trireme-proto"]),
    ("trireme-api", &[]),
    ("trireme-client", &["trireme-api"]),
    ("trireme-tunnel", &[]),
    ("trireme-apiserver", &["trireme-api", "trireme-raft", "trireme-proto", "trireme-tunnel"]),
    ("trireme-cluster", &["trireme-api", "trireme-apiserver", "trireme-raft", "trireme-proto"]),
    ("trireme-etcd", &["trireme-raft", "trireme-proto"]),
    ("trireme-controllers", &["trireme-api", "trireme-client"]),
    ("trireme-scheduler", &["trireme-api", "trireme-client"]),
    ("trireme-kubelet", &["trireme-api", "trireme-client", "trireme-proto"]),
    ("trireme-cni", &["trireme-api", "trireme-client"]),
    ("trireme-dns", &["trireme-api", "trireme-client"]),
    ("trireme-nft", &[]),
    ("trireme-policy", &["trireme-api", "trireme-client", "trireme-nft"]),
    ("trireme-proxy", &["trireme-api", "trireme-client", "trireme-nft"]),
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
            "trireme-nft",
            "trireme-policy",
            "trireme-proto",
            "trireme-proxy",
            "trireme-tunnel",
        ],
    ),
    (
        "trireme",
        &[
            "trireme-agent",
            "trireme-api",
            "trireme-apiserver",
            "trireme-client",
            "trireme-cluster",
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
    ("trireme-csi-driver", &["trireme-proto"]),
    (
        "trireme-fuzz",
        &[
            "trireme-api",
            "trireme-apiserver",
            "trireme-controllers",
            "trireme-dns",
            "trireme-images",
            "trireme-kubelet",
            "trireme-proto",
            "trireme-raft",
        ],
    ),
    ("trireme-unsynced", &[]),
    ("trireme-e2e", &["trireme-chaos", "trireme-csi-driver", "trireme-harness", "trireme-proto", "trireme-unsynced"]),
];

/// What the tests of a crate may use beyond that: a layer above it, to have something to test with.
const TESTS: &[(&str, &[&str])] = &[("trireme-apiserver", &["trireme-cluster"]), ("trireme-kubelet", &["trireme-csi-driver"])];

/// Crates that only certain crates of ours may name: each is behind a seam.
const SEAMS: &[(&str, &[&str])] = &[
    ("rocksdb", &["trireme-raft"]),
    ("openraft", &["trireme-raft"]),
    ("rtnetlink", &["trireme-cni"]),
    ("anyhow", &["trireme", "xtask", "trireme-harness", "trireme-e2e", "trireme-chaos", "trireme-bench", "trireme-fuzz"]),
];

/// The dependencies of every package of the workspace, each with whether only its tests have it.
fn metadata() -> BTreeMap<String, Vec<(String, bool)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    let names =
        |p: &serde_json::Value| p["dependencies"].as_array().unwrap().iter().map(|d| (text(&d["name"]), d["kind"] == "dev")).collect();
    document["packages"].as_array().unwrap().iter().map(|p| (text(&p["name"]), names(p))).collect()
}

#[test]
fn our_crates_depend_on_each_other_one_way() {
    let packages = metadata();
    for (package, dependencies) in &packages {
        let allowed = ALLOWED.iter().find(|(name, _)| name == package);
        let (_, allowed) =
            allowed.unwrap_or_else(|| panic!("{package} is new: say in ops/xtask/tests/directions.rs what it may depend on"));
        let in_tests: &[&str] = TESTS.iter().find(|(name, _)| name == package).map_or(&[], |(_, more)| more);
        for (dependency, dev) in dependencies.iter().filter(|(d, _)| packages.contains_key(d)) {
            let permitted = allowed.contains(&dependency.as_str()) || (*dev && in_tests.contains(&dependency.as_str()));
            assert!(permitted, "{package} must not depend on {dependency}");
        }
    }
}

#[test]
fn what_is_behind_a_seam_is_named_there_only() {
    for (package, dependencies) in metadata() {
        for (library, owners) in SEAMS {
            let names_it = dependencies.iter().any(|(d, _)| d == library);
            assert!(!names_it || owners.contains(&package.as_str()), "{package} must not depend on {library}: it belongs to {owners:?}");
        }
    }
}

/// Programs that one crate alone runs.
const RUN_BY_ONE: &[(&str, &str)] =
    &[("nft", "agent/nft/src"), ("iptables", "agent/nft/src"), ("iptables-legacy", "agent/nft/src"), ("conntrack", "agent/nft/src")];
/// Looks whether nft works at all, before anything is started.
const LOOKS_ONLY: &str = "agent/src/check/programs.rs";

fn sources(directory: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => sources(&path, into),
            false if path.extension().is_some_and(|extension| extension == "rs") => into.push(path),
            false => {}
        }
    }
}

#[test]
fn packet_rules_are_changed_in_one_crate_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut files = Vec::new();
    for part in ["agent", "server"] {
        sources(&root.join(part), &mut files);
    }
    let files = files.iter().map(|path| path.strip_prefix(&root).unwrap()).filter(|path| path.components().any(|c| c.as_os_str() == "src"));
    let mut looked_at = 0;
    for file in files {
        looked_at += 1;
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        for (program, owner) in RUN_BY_ONE.iter().filter(|(_, owner)| !file.starts_with(owner)) {
            let runs = text.contains(&format!("Command::new(\"{program}\")"));
            assert!(!runs || file == Path::new(LOOKS_ONLY), "{} must not run {program}: {owner} does", file.display());
        }
    }
    assert!(looked_at > 200, "{looked_at} files: this test looks in the wrong place");
}
