//! No circles between the files of a crate.
//!
//! An edge leads from a file to the file of each `crate::` or `super::` path in it, outside of its tests. A circle means that
//! none of its files can be read, tested or moved without the others.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The crates that are free of circles. A crate is added when it is, and never taken out.
const CRATES: &[&str] = &["agent/kubelet", "raft", "server/api", "server/apiserver", "server/cluster", "server/controllers", "server/etcd"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The modules of a crate (`a::b` by its path of names, "" for the root) and their sources.
fn modules(source: &Path) -> BTreeMap<String, String> {
    fn walk(folder: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                walk(&path, &format!("{prefix}{name}::"), found);
            } else if let Some(stem) = name.strip_suffix(".rs") {
                let module = if matches!(stem, "lib" | "main") && prefix.is_empty() { String::new() } else { format!("{prefix}{stem}") };
                found.insert(module, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(source, "", &mut found);
    found
}

/// A source without comments and without its tests, which stand at the end of a file.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The paths that begin with `crate::` or `super::`, braces expanded, without the names that begin with a capital.
fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                expand("", &text[at..], &mut found);
            }
        }
    }
    found
}

/// Reads one path at the beginning of `text`; returns what follows it.
fn expand<'a>(prefix: &str, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let mut path = prefix.to_owned();
    let mut rest = text;
    loop {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        path.push_str(&rest[..end]);
        rest = &rest[end..];
        let Some(next) = rest.strip_prefix("::") else { break };
        path.push_str("::");
        if let Some(mut inner) = next.strip_prefix('{') {
            while !inner.trim_start().starts_with('}') && !inner.is_empty() {
                // A star imports from the file itself.
                let inner_start = inner.trim_start();
                inner = expand(&path, inner_start.strip_prefix('*').unwrap_or(inner_start), found).trim_start();
                if let Some(alias) = inner.strip_prefix("as ") {
                    inner = alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').trim_start();
                }
                inner = inner.strip_prefix(',').unwrap_or(inner);
                if inner.len() == inner_start.len() {
                    return inner;
                }
            }
            return inner.trim_start().strip_prefix('}').unwrap_or("");
        }
        rest = next;
    }
    found.push(path);
    rest
}

/// The module that a path in `module` leads to: the longest prefix that is a file.
fn target(module: &str, path: &str, modules: &BTreeMap<String, String>) -> Option<String> {
    let mut base: Vec<&str> = Vec::new();
    let mut names: Vec<&str> = path.split("::").collect();
    if names.first() == Some(&"super") {
        base = module.split("::").filter(|name| !name.is_empty()).collect();
        while names.first() == Some(&"super") {
            names.remove(0);
            base.pop();
        }
    } else {
        names.remove(0);
    }
    base.extend(names.into_iter().filter(|name| *name != "self"));
    (0..=base.len()).rev().map(|len| base[..len].join("::")).find(|candidate| modules.contains_key(candidate))
}

fn edges(modules: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut edges = BTreeMap::new();
    for (module, text) in modules.iter().filter(|(module, _)| !is_test(module)) {
        let targets: BTreeSet<String> = paths(&code(text))
            .iter()
            .filter_map(|path| target(module, path, modules))
            .filter(|target| target != module && !target.is_empty() && !is_test(target))
            .collect();
        edges.insert(module.clone(), targets);
    }
    edges
}

fn is_test(module: &str) -> bool {
    module.split("::").any(|name| name == "tests")
}

/// The files that reach one another (Tarjan's strongly connected components), those of more than one file.
fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reach = |from: &String| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(at) = todo.pop() {
            todo.extend(edges.get(&at).into_iter().flatten().filter(|next| seen.insert((*next).clone())).cloned());
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = edges.keys().map(|module| (module, reach(module))).collect();
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for (module, targets) in &reached {
        let circle: Vec<String> = targets
            .iter()
            .filter(|other| *other == *module || reached.get(other).is_some_and(|back| back.contains(*module)))
            .cloned()
            .collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

#[test]
fn no_circles_between_files() {
    let mut all = Vec::new();
    for name in CRATES {
        for circle in circles(&edges(&modules(&root().join(name).join("src")))) {
            all.push(format!("{name}: {}", circle.join(", ")));
        }
    }
    assert!(all.is_empty(), "files that use one another (move what they share below both):\n{}", all.join("\n"));
}

#[test]
fn a_circle_is_found() {
    let modules: BTreeMap<String, String> = [
        ("", ""),
        ("a", "use crate::b::{self, c::D};"),
        ("b", "// use crate::a;\nfn f() { super::b::c::g() }"),
        ("b::c", "use super::super::a::E;"),
        ("d", "use crate::a;\n#[cfg(test)]\nmod tests { use crate::d; }"),
    ]
    .map(|(module, text)| (module.to_owned(), text.to_owned()))
    .into();
    assert_eq!(circles(&edges(&modules)), [vec!["a".to_owned(), "b".to_owned(), "b::c".to_owned()]]);
}
