//! What was found, and the table that shows it.

use std::fmt::Write;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// Works, with a loss that is worth knowing.
    Warning,
    /// Does not work.
    Fatal,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub subject: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// How it is.
    pub found: String,
    /// What to do; empty where all is well.
    pub remedy: String,
}

impl Finding {
    pub(super) fn fine(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), verdict: Verdict::Fine, found: found.into(), remedy: String::new() }
    }

    pub(super) fn warning(subject: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject: subject.into(), verdict: Verdict::Warning, found: found.into(), remedy: remedy.into() }
    }

    pub(super) fn fatal(subject: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fatal, ..Self::warning(subject, found, remedy) }
    }
}

const WIDTH: usize = 100;
const SUBJECT: usize = 26;
const VERDICT: usize = 9;

/// A table of at most 100 columns; below each problem, what to do.
pub fn table(findings: &[Finding]) -> String {
    let mut text = format!("{:SUBJECT$}{:VERDICT$}{}\n", "CHECK", "RESULT", "FOUND");
    let indent = SUBJECT + VERDICT;
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Fine => "ok",
            Verdict::Warning => "warning",
            Verdict::Fatal => "PROBLEM",
        };
        let mut lines = wrapped(&finding.found, WIDTH - indent);
        lines.extend(
            wrapped(&finding.remedy, WIDTH - indent - 3)
                .into_iter()
                .enumerate()
                .map(|(i, l)| if i == 0 { format!("-> {l}") } else { format!("   {l}") }),
        );
        let subject: String = finding.subject.chars().take(SUBJECT - 1).collect();
        let mut first = Some(format!("{subject:SUBJECT$}{verdict:VERDICT$}"));
        for line in lines {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}{line}", first.take().unwrap_or_else(|| " ".repeat(indent)));
        }
    }
    text
}

/// Lines of at most `width` characters, broken at blanks where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word = word.to_owned();
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        while word.chars().count() > width {
            lines.push(word.chars().take(width).collect());
            word = word.chars().skip(width).collect();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_at_most_100_columns_and_a_way_out_for_each_problem() {
        let long = "word ".repeat(60) + &"x".repeat(250);
        let findings = [Finding::fine("kernel", "6.1"), Finding::fatal("a subject that is longer than its column is", &long, &long)];
        let table = table(&findings);
        assert!(table.lines().all(|line| line.chars().count() <= WIDTH), "{table}");
        assert!(table.contains("PROBLEM") && table.contains("-> word"), "{table}");
    }
}
