//! Rules about the repository's files that no compiler holds.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of code (neither blank nor comment) that a file may have.
const LINES_MAX: usize = 500;

/// Files that may have more, each with its reason.
const LONG: &[(&str, &str)] = &[
    ("server/api/src/schema/generated.rs", "generated"),
    ("server/api/src/resources/generated.rs", "generated"),
    ("server/api/src/protobuf/generated.rs", "generated"),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Files of the repository, also such as are not committed yet.
fn files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(files.len() > 300, "{} files: this test looks in the wrong place", files.len());
    // A deleted file is listed until the deletion is staged.
    files.into_iter().filter(|file| repository().join(file).is_file()).collect()
}

fn is_code(file: &str) -> bool {
    let path = Path::new(file);
    let script = file.starts_with("ops/") && path.extension().is_none() && !file.starts_with("ops/package");
    script || path.extension().is_some_and(|extension| ["rs", "sh", "proto", "py"].iter().any(|code| extension == *code))
}

fn lines_of_code(text: &str) -> usize {
    let is_comment = |line: &&str| line.starts_with("//") || line.starts_with('#') && !line.starts_with("#[");
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_comment(line)).count()
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for file in files().iter().filter(|file| is_code(file)) {
        let Ok(text) = std::fs::read_to_string(repository().join(file)) else { continue };
        let lines = lines_of_code(&text);
        if lines > LINES_MAX && !LONG.iter().any(|(name, _)| name == file) {
            long.push(format!("{file}: {lines} lines of code, at most {LINES_MAX}"));
        }
    }
    assert!(long.is_empty(), "split these files:\n{}", long.join("\n"));
}

#[test]
fn exceptions_are_needed() {
    for (file, _) in LONG {
        let text = std::fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(lines_of_code(&text) > LINES_MAX, "{file} is short enough: take it off the list");
    }
}

#[test]
fn names_say_what_is_inside() {
    let empty = |file: &&String| {
        Path::new(file).iter().any(|part| {
            let stem = part.to_string_lossy();
            let stem = stem.split('.').next().unwrap_or_default();
            EMPTY_NAMES.contains(&stem)
        })
    };
    let found: Vec<String> = files().into_iter().filter(|file| empty(&file)).collect();
    assert!(found.is_empty(), "name these files for what they hold: {found:?}");
}

#[test]
fn a_module_is_a_file_beside_its_folder() {
    // Below `tests` it is the way to share code between test programs without being one.
    let found: Vec<String> = files().into_iter().filter(|file| file.ends_with("/mod.rs") && !file.contains("/tests/")).collect();
    assert!(found.is_empty(), "write foo.rs beside foo/, not foo/mod.rs: {found:?}");
}

/// `D7` of a comment like `(D7)` or `D8 and D10`; the numbers that are cited.
fn cited(line: &str) -> Vec<u32> {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter_map(|word| word.strip_prefix('D')).filter(|number| number.len() <= 2).filter_map(|number| number.parse().ok()).collect()
}

#[test]
fn decisions_that_are_cited_exist() {
    let decisions = std::fs::read_to_string(repository().join("docs/decisions.md")).unwrap();
    let known: Vec<u32> = decisions.lines().filter_map(|line| line.strip_prefix("## D")?.split('.').next()?.parse().ok()).collect();
    assert!(known.len() >= 16, "docs/decisions.md: only {known:?}");
    for file in files().iter().filter(|file| file.ends_with(".rs")) {
        let Ok(text) = std::fs::read_to_string(repository().join(file)) else { continue };
        for line in text.lines().filter(|line| line.trim_start().starts_with("//")) {
            for number in cited(line) {
                assert!(known.contains(&number), "{file} cites D{number}, which docs/decisions.md does not have: {line}");
            }
        }
    }
}
