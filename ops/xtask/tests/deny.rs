//! The rules of `deny.toml` that need no network: banned crates, crates with one version only, licences, sources. `cargo deny check` knows more
//! (advisories, yanked releases); `ops/test` runs it where it is installed.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Sections and keys that this test or cargo-deny alone looks at. Another one must not be passed over in silence.
const KEYS: &[(&str, &[&str])] = &[
    ("graph", &["targets"]),
    ("bans", &["multiple-versions", "deny"]),
    ("licenses", &["allow"]),
    ("advisories", &["yanked"]),
    ("sources", &["unknown-registry", "unknown-git"]),
];

/// What deny.toml says: `section.key` to the text of the value.
fn rules() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(repository().join("deny.toml")).unwrap();
    let (mut rules, mut section, mut open) = (BTreeMap::<String, String>::new(), String::new(), None::<String>);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(key) = &open {
            rules.get_mut(key).unwrap().push_str(line);
            if line == "]" {
                open = None;
            }
        } else if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("deny.toml: cannot read '{line}'"));
            let (key, value) = (key.trim(), value.trim());
            let known = KEYS.iter().any(|(name, keys)| *name == section && keys.contains(&key));
            assert!(known, "deny.toml: [{section}] {key} is not checked: teach ops/xtask/tests/deny.rs");
            let name = format!("{section}.{key}");
            rules.insert(name.clone(), value.to_owned());
            open = (value.starts_with('[') && !value.ends_with(']')).then_some(name);
        }
    }
    rules
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The texts between quotation marks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).collect()
}

/// Every package that is compiled for `target`.
fn packages(target: &str) -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = document["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 200, "{} packages: this test looks in the wrong place", packages.len());
    packages
}

fn every_package(mut judge: impl FnMut(&Value)) {
    let rules = rules();
    for target in quoted(&rules["graph.targets"]) {
        packages(target).iter().for_each(&mut judge);
    }
}

#[test]
fn banned_crates_are_not_compiled() {
    let rules = rules();
    let entries: Vec<(&str, bool)> =
        rules["bans.deny"].split('{').skip(1).map(|entry| (quoted(entry)[0], entry.contains("deny-multiple-versions = true"))).collect();
    assert!(!entries.is_empty());
    let mut versions = BTreeMap::<String, std::collections::BTreeSet<String>>::new();
    every_package(|package| {
        let (name, version) = (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        versions.entry(name.to_owned()).or_default().insert(version.to_owned());
    });
    for (name, once) in entries {
        let found = versions.get(name).map_or(0, |found| found.len());
        let allowed = if once { 1 } else { 0 };
        assert!(found <= allowed, "{name}: {:?} in Cargo.lock, and deny.toml allows {allowed} (cargo tree -i {name})", versions[name]);
    }
}

#[test]
fn licences_are_allowed() {
    let rules = rules();
    let allowed = quoted(&rules["licenses.allow"]);
    every_package(|package| {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} names no licence"));
        assert!(satisfied(licence, &allowed), "{name}: its licence is '{licence}', which deny.toml does not allow");
    });
}

#[test]
fn packages_come_from_one_registry() {
    let rules = rules();
    assert_eq!((rules["sources.unknown-registry"].as_str(), rules["sources.unknown-git"].as_str()), ("\"deny\"", "\"deny\""));
    every_package(|package| {
        let source = package["source"].as_str();
        let known = source.is_none_or(|source| source.starts_with("registry+") && source.ends_with("/crates.io-index"));
        assert!(known, "{}: comes from {source:?}", package["name"]);
    });
}

/// Whether an SPDX expression (with the old `/` for OR) is satisfied by some of the allowed licences. AND binds closer than OR.
fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let (result, rest) = any_of(&tokens, allowed);
    assert!(rest.is_empty(), "cannot read the licence '{expression}'");
    result
}

fn any_of<'a>(tokens: &'a [&'a str], allowed: &[&str]) -> (bool, &'a [&'a str]) {
    let (mut result, mut rest) = all_of(tokens, allowed);
    while let ["OR", after @ ..] = rest {
        let (next, after) = all_of(after, allowed);
        (result, rest) = (result | next, after);
    }
    (result, rest)
}

fn all_of<'a>(tokens: &'a [&'a str], allowed: &[&str]) -> (bool, &'a [&'a str]) {
    let (mut result, mut rest) = one(tokens, allowed);
    while let ["AND", after @ ..] = rest {
        let (next, after) = one(after, allowed);
        (result, rest) = (result & next, after);
    }
    (result, rest)
}

fn one<'a>(tokens: &'a [&'a str], allowed: &[&str]) -> (bool, &'a [&'a str]) {
    match tokens {
        ["(", inner @ ..] => {
            let (result, rest) = any_of(inner, allowed);
            assert_eq!(rest.first(), Some(&")"), "a licence lacks a bracket");
            (result, &rest[1..])
        }
        [licence, "WITH", exception, rest @ ..] => (allowed.contains(&format!("{licence} WITH {exception}").as_str()), rest),
        [licence, rest @ ..] => (allowed.contains(licence), rest),
        [] => panic!("a licence ends too early"),
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT/GPL-3.0", true),
        ("GPL-3.0 AND MIT", false),
        ("MIT AND ISC OR GPL-3.0", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }
}
