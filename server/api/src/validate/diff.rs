//! The difference of two specs as upstream shows it in "may not change" errors: a unified diff, three lines of context, of
//! JSON with Go's field names.
//!
//! Bounded in time and memory: a client chooses how many lines there are. Upstream: `k8s.io/apimachinery/pkg/util/diff`.

use serde_json::Value;

/// A Go struct: its fields in order, as (Go name, JSON name, what an unset one prints as).
pub(crate) type Shape = &'static [(&'static str, &'static str, &'static str)];

/// The shape of the struct at a JSON path, where it is known. Elsewhere the fields that are there are shown.
pub(crate) type ShapeAt = fn(&[&str]) -> Option<Shape>;

/// The most cells of the table that the longest common subsequence is found with. Beyond it, all lines between the equal
/// beginning and the equal end are shown as changed.
const MAX_CELLS: usize = 1_000_000;

/// The most lines that are shown.
const MAX_SHOWN: usize = 2000;

/// The difference of two values.
pub(crate) fn diff(shape: ShapeAt, old: &Value, new: &Value) -> String {
    unified(&lines(shape, old), &lines(shape, new))
}

fn lines(shape: ShapeAt, value: &Value) -> Vec<String> {
    let mut text = String::new();
    print(shape, &mut Vec::new(), value, 0, &mut text);
    text.lines().map(str::to_owned).collect()
}

fn print<'a>(shape: ShapeAt, path: &mut Vec<&'a str>, value: &'a Value, depth: usize, out: &mut String) {
    let pad = " ".repeat(depth + 1);
    match value {
        Value::Object(map) => {
            let known = shape(path);
            let fields: Vec<(String, &str)> = match known {
                Some(fields) => fields.iter().map(|(go, json, _)| ((*go).to_owned(), *json)).collect(),
                None => map.keys().map(|key| (go_name(path, key), key.as_str())).collect(),
            };
            if fields.is_empty() {
                out.push_str("{}");
                return;
            }
            out.push_str("{\n");
            for (index, (name, key)) in fields.iter().enumerate() {
                out.push_str(&format!("{pad}{}: ", Value::from(name.as_str())));
                match map.get_key_value(*key).filter(|(_, value)| !value.is_null()) {
                    Some((key, value)) => {
                        path.push(key);
                        print(shape, path, value, depth + 1, out);
                        path.pop();
                    }
                    None => out.push_str(known.map_or("null", |fields| fields[index].2)),
                }
                out.push_str(if index + 1 < fields.len() { ",\n" } else { "\n" });
            }
            out.push_str(&format!("{}}}", " ".repeat(depth)));
        }
        Value::Array(items) if !items.is_empty() => {
            out.push_str("[\n");
            for (index, item) in items.iter().enumerate() {
                out.push_str(&pad);
                print(shape, path, item, depth + 1, out);
                out.push_str(if index + 1 < items.len() { ",\n" } else { "\n" });
            }
            out.push_str(&format!("{}]", " ".repeat(depth)));
        }
        other => out.push_str(&other.to_string()),
    }
}

/// Keys of maps stay; field names are capitalized.
fn go_name(path: &[&str], key: &str) -> String {
    let is_map = path.last().is_some_and(|last| matches!(*last, "requests" | "limits" | "matchLabels" | "nodeSelector" | "overhead"));
    if is_map {
        return key.to_owned();
    }
    let mut characters = key.chars();
    characters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + characters.as_str())
}

/// Hunks with three lines of context.
fn unified(old: &[String], new: &[String]) -> String {
    const CONTEXT: usize = 3;
    let edits = edits(old, new);
    let mut out = String::new();
    let (mut index, mut counted, mut lines_before, mut shown) = (0, 0, (0, 0), 0);
    while let Some(first) = (index..edits.len()).find(|at| edits[*at].0 != ' ') {
        let start = first.saturating_sub(CONTEXT).max(index);
        let mut last = first;
        while let Some(next) = (last + 1..edits.len().min(last + 2 + 2 * CONTEXT)).find(|at| edits[*at].0 != ' ') {
            last = next;
        }
        let end = (last + 1 + CONTEXT).min(edits.len());
        let hunk = &edits[start..end];
        for (kind, _) in &edits[counted..start] {
            lines_before.0 += usize::from(*kind != '+');
            lines_before.1 += usize::from(*kind != '-');
        }
        counted = start;
        let count = |side: char| hunk.iter().filter(|(kind, _)| *kind != side).count();
        let range = |start: usize, count: usize| match count {
            1 => format!("{}", start + 1),
            0 => format!("{start},0"),
            _ => format!("{},{count}", start + 1),
        };
        out.push_str(&format!("@@ -{} +{} @@\n", range(lines_before.0, count('+')), range(lines_before.1, count('-'))));
        shown += 1;
        for (offset, (kind, line)) in hunk.iter().enumerate() {
            if shown == MAX_SHOWN {
                out.push_str(&format!("... {} more lines\n", edits.len() - start - offset));
                return out;
            }
            out.push_str(&format!("{kind}{line}\n"));
            shown += 1;
        }
        index = end;
    }
    out
}

/// Lines with ' ', '-' or '+'.
fn edits<'a>(old: &'a [String], new: &'a [String]) -> Vec<(char, &'a str)> {
    let prefix = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (before, old, new) = (&old[..prefix], &old[prefix..], &new[prefix..]);
    let mut out: Vec<(char, &str)> = before.iter().map(|line| (' ', line.as_str())).collect();
    if old.len().saturating_mul(new.len()) <= MAX_CELLS {
        subsequence(old, new, &mut out);
        return out;
    }
    let suffix = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, after) = old.split_at(old.len() - suffix);
    let new = &new[..new.len() - suffix];
    if old.len().saturating_mul(new.len()) <= MAX_CELLS {
        subsequence(old, new, &mut out);
    } else {
        out.extend(old.iter().map(|line| ('-', line.as_str())));
        out.extend(new.iter().map(|line| ('+', line.as_str())));
    }
    out.extend(after.iter().map(|line| (' ', line.as_str())));
    out
}

/// By longest common subsequence.
fn subsequence<'a>(old: &'a [String], new: &'a [String], out: &mut Vec<(char, &'a str)>) {
    let width = new.len() + 1;
    let mut longest = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i * width + j] = if old[i] == new[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            out.push((' ', old[i].as_str()));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
            out.push(('-', old[i].as_str()));
            i += 1;
        } else {
            out.push(('+', new[j].as_str()));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(count: usize, from: usize) -> Vec<String> {
        (from..from + count).map(|number| format!("line {number}")).collect()
    }

    #[test]
    fn security_07_a_difference_is_bounded_whatever_the_number_of_lines() {
        // Quadratic in these, the table would hold 4e10 cells.
        let (old, mut new) = (lines_of(200_000, 0), lines_of(200_000, 0));
        new[150_000] = "another".to_owned();
        assert_eq!(unified(&old, &new).lines().count(), 9);
        let all = unified(&old, &lines_of(200_000, 1_000_000));
        assert_eq!(all.lines().count(), MAX_SHOWN + 1);
        assert!(all.ends_with("... 398001 more lines\n"), "{}", all.lines().last().unwrap_or_default());
    }
}
