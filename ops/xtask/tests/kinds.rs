//! Generic code names no group, plural or kind.
//!
//! What is special about a kind stands in `server/api/src/kinds`. Code that treats all kinds alike must not ask which one it
//! has: a custom resource could not answer. The list of exceptions says why each is there; it may only shrink.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Folders and files of generic code. The other endpoints (connections to nodes and pods, bindings, reviews, tokens) are
/// actions of one kind each.
const GENERIC: &[&str] = &[
    "server/api/src/resource",
    "server/api/src/resource.rs",
    "server/api/src/default.rs",
    "server/api/src/validate",
    "server/api/src/validate.rs",
    "server/api/src/patch",
    "server/api/src/patch.rs",
    "server/api/src/selector",
    "server/apiserver/src/catalog",
    "server/apiserver/src/storage",
    "server/apiserver/src/storage.rs",
    "server/apiserver/src/registry",
    "server/apiserver/src/registry.rs",
    "server/apiserver/src/http",
    "server/apiserver/src/chain.rs",
    "server/apiserver/src/chain",
    "server/apiserver/src/endpoints/verbs",
    "server/apiserver/src/endpoints.rs",
];

/// File, quoted name, reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("server/api/src/validate/metadata.rs", "Event", "upstream forbids core events as owners of any object"),
    ("server/apiserver/src/http/request_info.rs", "namespaces", "the first segment of namespaced URLs"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Groups with a dot, plurals and kinds of the built-in resources. Groups of one word (`apps`) are left out, as are names that
/// mean something else too.
fn names() -> BTreeSet<String> {
    let table = std::fs::read_to_string(root().join("server/api/src/resources/generated.rs")).unwrap();
    let mut names = BTreeSet::new();
    for line in table.lines().map(str::trim) {
        for key in ["group: B(\"", "plural: B(\"", "kind: B(\""] {
            let Some(name) = line.strip_prefix(key).and_then(|rest| rest.split('"').next()) else { continue };
            if !name.is_empty() && (key != "group: B(\"" || name.contains('.')) {
                names.insert(name.to_owned());
            }
        }
    }
    assert!(names.contains("pods") && names.contains("ConfigMap") && names.contains("storage.k8s.io"), "the table is read");
    names
}

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().flatten().for_each(|entry| sources(&entry.path(), found));
    } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test(path) {
        found.push(path.to_owned());
    }
}

/// Tests in a file of their own, and the doubles that only they use.
fn is_test(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name == "tests.rs" || name.starts_with("fake_"))
}

/// The string literals of a source, without comments and tests.
fn literals(text: &str) -> Vec<String> {
    let end = text.find("#[cfg(test)]").unwrap_or(text.len());
    let mut found = Vec::new();
    for line in text[..end].lines().filter(|line| !line.trim_start().starts_with("//")) {
        let mut rest = line;
        while let Some(start) = rest.find('"') {
            let Some(len) = rest[start + 1..].find('"') else { break };
            found.push(rest[start + 1..start + 1 + len].to_owned());
            rest = &rest[start + len + 2..];
        }
    }
    found
}

/// Quoted names in generic code, by file.
fn offenders() -> BTreeMap<String, BTreeSet<String>> {
    let names = names();
    let mut files = Vec::new();
    GENERIC.iter().map(|path| root().join(path)).filter(|path| path.exists()).for_each(|path| sources(&path, &mut files));
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let quoted: BTreeSet<String> = literals(&text).into_iter().filter(|literal| names.contains(literal)).collect();
        if !quoted.is_empty() {
            found.insert(name, quoted);
        }
    }
    found
}

#[test]
fn generic_code_names_no_kind() {
    let allowed: BTreeSet<(&str, &str)> = ALLOWED.iter().map(|(file, name, _)| (*file, *name)).collect();
    let found = offenders();
    let mut wrong = Vec::new();
    for (file, names) in &found {
        wrong
            .extend(names.iter().filter(|name| !allowed.contains(&(file.as_str(), name.as_str()))).map(|name| format!("{file}: {name:?}")));
    }
    assert!(wrong.is_empty(), "generic code asks for a kind; move it to server/api/src/kinds:\n{}", wrong.join("\n"));
    let unused: Vec<_> = ALLOWED.iter().filter(|(file, name, _)| found.get(*file).is_none_or(|names| !names.contains(*name))).collect();
    assert!(unused.is_empty(), "exceptions that are no longer needed: {unused:?}");
}

#[test]
fn a_quoted_name_is_found() {
    let text = "// \"pods\"\nmatch plural { \"pods\" | \"x\" => \"it's \\\"\" }\n#[cfg(test)]\nmod tests { const A: &str = \"nodes\"; }";
    assert_eq!(literals(text)[..2], ["pods", "x"]);
    assert!(!literals(text).contains(&"nodes".to_owned()));
}
