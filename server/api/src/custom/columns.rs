//! Printer columns: cells that a path finds in an object.
//!
//! Upstream: `apiextensions-apiserver/pkg/registry/customresource/tableconvertor`.

use serde_json::{Value, json};

use super::json_path::JsonPath;
use crate::resource::{Cells, Column};
use crate::time;

/// One column.
#[derive(Clone, Debug)]
pub struct PrinterColumn {
    /// How it is announced.
    pub column: Column,
    /// Where its cells come from; None for a path that finds nothing.
    path: Option<JsonPath>,
}

/// The columns of a version (`additionalPrinterColumns`); the age where it names none.
pub fn of(version: &Value) -> Vec<PrinterColumn> {
    let given = version["additionalPrinterColumns"].as_array().map(Vec::as_slice).unwrap_or_default();
    if given.is_empty() {
        let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": "When the server created the object, or how long ago that was."});
        return vec![column(&age)];
    }
    given.iter().map(column).collect()
}

fn column(given: &Value) -> PrinterColumn {
    let text = |key: &str| given[key].as_str().unwrap_or_default().to_owned();
    let (path, description) = (text("jsonPath"), text("description"));
    let described = if description.is_empty() { format!("Column of the custom resource definition, from {path}") } else { description };
    PrinterColumn {
        column: Column {
            name: text("name").into(),
            type_: text("type").into(),
            format: text("format").into(),
            description: described.into(),
            priority: given["priority"].as_i64().and_then(|priority| i32::try_from(priority).ok()).unwrap_or(0),
        },
        path: JsonPath::parse(&path).ok(),
    }
}

impl PrinterColumn {
    /// The cell of an object.
    pub fn cell(&self, cells: &Cells<'_>) -> Value {
        let found = self.path.as_ref().map(|path| path.find(cells.object)).unwrap_or_default();
        let Some(value) = found.first().filter(|value| !value.is_null()) else { return Value::Null };
        match &*self.column.type_ {
            "string" => Value::String(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
            "integer" => match (value.as_i64(), value.as_f64()) {
                (Some(whole), _) => json!(whole),
                (None, Some(float)) => json!(float as i64),
                _ => Value::Null,
            },
            "number" => value.as_f64().map_or(Value::Null, |float| json!(float)),
            "boolean" => value.as_bool().map_or(Value::Null, |flag| json!(flag)),
            "date" => match value.as_str() {
                Some(text) if time::parse(text).is_some() => json!(cells.since(text)),
                Some(_) => json!("<invalid>"),
                None => Value::Null,
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_the_type_of_their_column() {
        let version = json!({"additionalPrinterColumns": [
            {"name": "A", "type": "string", "jsonPath": ".s"}, {"name": "B", "type": "string", "jsonPath": ".o"},
            {"name": "C", "type": "integer", "jsonPath": ".n", "priority": 1}, {"name": "D", "type": "number", "jsonPath": ".n"},
            {"name": "E", "type": "boolean", "jsonPath": ".b"}, {"name": "F", "type": "date", "jsonPath": ".d"},
            {"name": "G", "type": "date", "jsonPath": ".s"}, {"name": "H", "type": "string", "jsonPath": ".nope"},
            {"name": "I", "type": "integer", "jsonPath": ".s"}, {"name": "J", "type": "string", "jsonPath": "..x"}]});
        let object = json!({"s": "x", "o": {"a": [1]}, "n": 5.0, "b": true, "d": "2024-01-01T00:00:00Z"});
        let cells = Cells { object: &object, now: time::parse("2024-01-01T00:05:00Z").unwrap() };
        let columns = of(&version);
        let row: Vec<Value> = columns.iter().map(|column| column.cell(&cells)).collect();
        assert_eq!(json!(row), json!(["x", "{\"a\":[1]}", 5, 5.0, true, "5m", "<invalid>", null, null, null]));
        assert_eq!(columns[2].column.priority, 1);
        assert_eq!(of(&json!({}))[0].column.name, "Age");
    }
}
