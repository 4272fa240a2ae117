//! The figures of the long fault tests: each part notes its own while it runs, and one table shows all.
//!
//! Parts are processes of their own (the simulation, the tests of kills and of power cuts), so the figures go through a file, a line
//! for each part: a part that is noted again replaces what it noted before.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// The environment's name for the file. Without it nothing is noted.
pub const FILE: &str = "TRIREME_FIGURES";

/// How to repeat a part, by how its name begins.
const REPLAY: &[(&str, &str)] = &[
    ("simulation", "ops/test chaos --seed N, from this seed on each by itself"),
    ("kills", "TRIREME_SEED=N ops/test chaos kills"),
    ("power cuts", "TRIREME_SEED=N ops/test chaos cuts"),
];
/// Numbers that tell of broken promises.
const BROKEN: &[&str] = &[
    "acknowledged writes lost",
    "revisions reused",
    "doubled pods",
    "other promises broken",
    "seeds that broke a promise",
    "not finished",
];
/// The order of rows; others follow by name.
const ROWS: &[&str] = &[
    "seeds simulated",
    "leader kills",
    "other kills",
    "power cuts: leader",
    "power cuts: follower",
    "power cuts: all",
    "writes acknowledged",
    "outcomes unknown",
    "acknowledged writes lost",
    "revisions reused",
    "doubled pods",
    "other promises broken",
    "seeds that broke a promise",
    "not finished",
    "longest without an answer, ms",
];

/// What one part counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Figures {
    part: String,
    seed: u64,
    numbers: BTreeMap<String, u64>,
}

// === impl Figures ===

impl Figures {
    /// A part of which nothing has been counted.
    #[must_use]
    pub fn new(part: &str, seed: u64) -> Figures {
        Figures { part: part.to_owned(), seed, numbers: BTreeMap::new() }
    }

    /// Sets a number.
    pub fn set(&mut self, name: &str, number: u64) {
        self.numbers.insert(name.to_owned(), number);
    }

    /// Notes them in the file that the environment names.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note(&self) -> io::Result<()> {
        match std::env::var_os(FILE) {
            Some(file) => self.note_in(Path::new(&file)),
            None => Ok(()),
        }
    }

    fn note_in(&self, file: &Path) -> io::Result<()> {
        OpenOptions::new().create(true).append(true).open(file)?.write_all(format!("{}\n", self.line()).as_bytes())
    }

    fn line(&self) -> String {
        let numbers: Vec<String> = self.numbers.iter().map(|(name, number)| format!("\t{name}={number}")).collect();
        format!("{}\t{}{}", self.part, self.seed, numbers.concat())
    }

    /// None if the line holds no figures.
    fn parse(line: &str) -> Option<Figures> {
        let mut fields = line.split('\t');
        let mut figures = Figures::new(fields.next()?, fields.next()?.parse().ok()?);
        for field in fields {
            let (name, number) = field.split_once('=')?;
            figures.set(name, number.parse().ok()?);
        }
        Some(figures)
    }
}

/// The report of a file, and whether every promise was kept.
///
/// # Errors
/// It cannot be read, or holds something else.
pub fn report(file: &Path) -> io::Result<(String, bool)> {
    let mut parts: Vec<Figures> = Vec::new();
    for line in fs::read_to_string(file)?.lines() {
        let figures = Figures::parse(line).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no figures: {line:?}")))?;
        match parts.iter_mut().find(|part| part.part == figures.part) {
            Some(part) => *part = figures,
            None => parts.push(figures),
        }
    }
    Ok(table(&parts))
}

fn table(parts: &[Figures]) -> (String, bool) {
    let mut names: Vec<&str> = ROWS.to_vec();
    for name in parts.iter().flat_map(|part| part.numbers.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.retain(|name| parts.iter().any(|part| part.numbers.contains_key(*name)));
    let cell = |part: &Figures, text: String| format!("  {text:>width$}", width = part.part.len().max(8));
    let row = |name: &str, text: &dyn Fn(&Figures) -> String| {
        let cells: String = parts.iter().map(|part| cell(part, text(part))).collect();
        format!("{name:<30}{cells}")
    };
    let mut lines = vec![row("", &|part| part.part.clone())];
    for name in names {
        lines.push(row(name, &|part| part.numbers.get(name).map_or_else(|| "-".to_owned(), u64::to_string)));
    }
    for part in parts {
        let how = REPLAY.iter().find(|(name, _)| part.part.starts_with(name)).map_or("", |(_, how)| how);
        lines.push(format!("{}: seed {}; again: {how}", part.part, part.seed));
    }
    let broken: u64 = parts.iter().flat_map(|part| BROKEN.iter().filter_map(|name| part.numbers.get(*name))).sum();
    lines.push(match (parts.is_empty(), broken) {
        (true, _) => "nothing was run".to_owned(),
        (_, 0) => "every promise was kept".to_owned(),
        _ => "PROMISES WERE BROKEN".to_owned(),
    });
    (lines.join("\n") + "\n", broken == 0 && !parts.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_shown_side_by_side_and_a_broken_promise_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("figures");
        let mut cuts = Figures::new("power cuts", 7);
        cuts.set("not finished", 1);
        cuts.note_in(&file).unwrap();
        assert!(!report(&file).unwrap().1, "a part that was begun and never ended");
        cuts = Figures::new("power cuts", 7);
        cuts.set("power cuts: all", 3);
        cuts.set("acknowledged writes lost", 0);
        cuts.note_in(&file).unwrap();
        let mut kills = Figures::new("kills on three servers", 8);
        kills.set("leader kills", 200);
        kills.note_in(&file).unwrap();
        let (text, kept) = report(&file).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(kept, "{text}");
        assert_eq!(rows[1], ["leader", "kills", "-", "200"], "{text}");
        assert_eq!(rows[2], ["power", "cuts:", "all", "3", "-"], "{text}");
        assert!(text.contains("power cuts: seed 7; again: TRIREME_SEED=N ops/test chaos cuts"), "{text}");
        cuts.set("acknowledged writes lost", 1);
        cuts.note_in(&file).unwrap();
        let (text, kept) = report(&file).unwrap();
        assert!(!kept && text.contains("PROMISES WERE BROKEN"), "{text}");
        fs::write(&file, "rubbish\n").unwrap();
        report(&file).unwrap_err();
    }
}
