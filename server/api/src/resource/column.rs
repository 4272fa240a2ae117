//! Columns of a Table.

use crate::gvk::Name;

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Header, as written.
    pub name: Name,
    /// `string`, `integer`, `boolean` or `date`.
    pub type_: Name,
    /// `name` for the object's name, else empty.
    pub format: Name,
    /// What the column means; may be empty.
    pub description: Name,
    /// 0: always shown, 1: with `-o wide`.
    pub priority: i32,
}

impl Column {
    /// Reads columns written as `name`, separated by bars: a leading `+` is a column of the wide output, `:i`, `:b` and `:d`
    /// make it an integer, a boolean or a date instead of a string, `#` marks the object's name.
    pub fn parse(text: &'static str) -> Vec<Column> {
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
                Column { name: name.into(), type_: type_.into(), format: format.into(), description: describe(name).into(), priority }
            })
            .collect()
    }
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
