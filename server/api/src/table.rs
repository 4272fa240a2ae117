//! Tables: what `kubectl get` shows of each kind.
//!
//! Owns the columns (names, types, formats and priorities equal upstream's) and the cells. Must not know HTTP: the API
//! server wraps rows into `meta.k8s.io/v1 Table`. All cells are made as for wide output; kubectl drops columns of
//! priority 1 itself. Upstream: `pkg/printers/internalversion/printers.go`.

mod apps;
mod columns;
mod core;
mod other;
mod pod;
mod text;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::meta;
use crate::time::Timestamp;

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Header, as written.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub type_: &'static str,
    /// `name` for the object's name, else empty.
    pub format: &'static str,
    /// What the column means; may be empty.
    pub description: &'static str,
    /// 0: always shown, 1: with `-o wide`.
    pub priority: i32,
}

/// Name and Age, for what has no columns of its own.
const PLAIN: &str = "Name#|Age";

/// By group, then plural.
static COLUMNS: LazyLock<HashMap<&'static str, HashMap<&'static str, Vec<Column>>>> = LazyLock::new(|| {
    let mut groups: HashMap<_, HashMap<_, _>> = HashMap::new();
    for (group, plural, columns) in columns::COLUMNS {
        groups.entry(*group).or_default().insert(*plural, parse(columns));
    }
    groups
});

static PLAIN_COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| parse(PLAIN));

/// The columns of a resource.
pub fn columns(group: &str, plural: &str) -> &'static [Column] {
    let columns = COLUMNS.get(group).and_then(|plurals| plurals.get(plural));
    columns.unwrap_or(&PLAIN_COLUMNS)
}

/// The cells of one object, one for each column, at the time `now`.
pub fn row(group: &str, plural: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    let cells = Cells { object, now };
    let mut row = vec![json!(meta::name(object))];
    match (group, plural) {
        ("", "pods") => row.extend(pod::pod(&cells)),
        ("" | "events.k8s.io", "events") => return core::event(&cells),
        ("", _) => core::row(plural, &cells, &mut row),
        ("apps" | "batch" | "autoscaling", _) => apps::row(plural, &cells, &mut row),
        _ => other::row(group, plural, &cells, &mut row),
    }
    if row.len() == 1 {
        row.push(cells.age());
    }
    row
}

/// What a row says about itself beside its cells: a finished pod is marked, so that clients may hide it.
pub fn row_conditions(group: &str, plural: &str, object: &Value) -> Vec<Value> {
    let condition =
        |reason: &str, message: &str| vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})];
    match (group, plural, meta::str_at(object, &["status", "phase"])) {
        ("", "pods", "Succeeded") => condition("Succeeded", "The pod has completed successfully."),
        ("", "pods", "Failed") => condition("Failed", "The pod failed."),
        _ => Vec::new(),
    }
}

/// An object being written as cells.
struct Cells<'a> {
    object: &'a Value,
    now: Timestamp,
}

impl<'a> Cells<'a> {
    fn at(&self, path: &[&str]) -> &'a Value {
        meta::get(self.object, path).unwrap_or(&Value::Null)
    }

    fn text(&self, path: &[&str]) -> &'a str {
        meta::str_at(self.object, path)
    }

    fn list(&self, path: &[&str]) -> &'a [Value] {
        meta::list_at(self.object, path)
    }

    /// An integer cell; 0 if absent.
    fn int(&self, path: &[&str]) -> i64 {
        meta::i64_at(self.object, path).unwrap_or_default()
    }

    /// A string cell; `otherwise` if absent or empty.
    fn text_or(&self, path: &[&str], otherwise: &str) -> Value {
        let text = self.text(path);
        json!(if text.is_empty() { otherwise } else { text })
    }

    fn age(&self) -> Value {
        json!(self.since(meta::creation_timestamp(self.object)))
    }

    /// How long ago that was, `<unknown>` for an absent time.
    fn since(&self, time: &str) -> String {
        crate::time::age(time, self.now)
    }

    fn created_at(&self) -> Value {
        json!(meta::creation_timestamp(self.object))
    }
}

fn parse(text: &'static str) -> Vec<Column> {
    text.split('|')
        .map(|column| {
            let (column, priority) = column.strip_prefix('+').map_or((column, 0), |rest| (rest, 1));
            let (column, format) = column.strip_suffix('#').map_or((column, ""), |rest| (rest, "name"));
            let (name, type_) = match column.rsplit_once(':') {
                Some((name, "i")) => (name, "integer"),
                Some((name, "b")) => (name, "boolean"),
                Some((name, "d")) => (name, "date"),
                _ => (column, "string"),
            };
            Column { name, type_, format, description: describe(name), priority }
        })
        .collect()
}

/// A sentence for the columns that many kinds have.
fn describe(name: &str) -> &'static str {
    match name {
        "Name" => "Name of the object, unique among its kind within its namespace.",
        "Age" | "Created At" => "When the server created the object, or how long ago that was.",
        "Status" => "What the object is doing, in a word.",
        "Ready" => "How many of the wanted parts are ready.",
        "Restarts" => "How often containers were restarted, and when that happened last.",
        "Containers" => "Names of the containers.",
        "Images" => "Images of the containers.",
        "Selector" => "Labels that select the dependents.",
        "Desired" => "How many are wanted.",
        "Current" => "How many there are.",
        "Up-to-date" => "How many are made from the current template.",
        "Available" => "How many have been ready for long enough.",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
