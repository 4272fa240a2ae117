//! The objects of a manifest: documents and lists taken apart. Pure, but for reading the file.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::Value;
use trireme_api::schema;

use super::folder::FILE_BYTES_MAX;

/// Objects of one file.
const OBJECTS_MAX: usize = 2000;
/// Lists within lists.
const LIST_DEPTH_MAX: usize = 3;

/// Reads the objects of a file.
pub(super) fn read(path: &Path) -> Result<Vec<Value>, String> {
    // The file may have become a link since the folder was looked at.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path).map_err(|e| e.to_string())?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
    }
    objects(&text)
}

/// The objects of a text of YAML or JSON documents.
fn objects(text: &str) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for (index, document) in split(text).into_iter().enumerate() {
        let at = |why: String| format!("document {}: {why}", index + 1);
        if document.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        let value = schema::parse_yaml(document.as_bytes()).map_err(|error| at(error.to_string()))?;
        if !value.is_null() {
            expand(value, 0, &mut objects).map_err(at)?;
        }
    }
    Ok(objects)
}

/// Documents are separated by lines that begin with `---`.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.starts_with("---") {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    documents
}

fn expand(value: Value, depth: usize, objects: &mut Vec<Value>) -> Result<(), String> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("kind").is_empty() || text("apiVersion").is_empty() {
        return Err("an object needs apiVersion and kind".to_owned());
    }
    if text("kind").ends_with("List") && value.get("items").is_some_and(Value::is_array) {
        if depth >= LIST_DEPTH_MAX {
            return Err(format!("lists are nested more than {LIST_DEPTH_MAX} deep"));
        }
        let items = value.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        return items.into_iter().try_for_each(|item| expand(item, depth + 1, objects));
    }
    if value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().is_empty() {
        return Err(format!("{}: metadata.name is missing", text("kind")));
    }
    if objects.len() >= OBJECTS_MAX {
        return Err(format!("more than {OBJECTS_MAX} objects"));
    }
    objects.push(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn d14_documents_and_lists_become_objects() {
        let text = "# a comment\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n--- # next\n\n---\napiVersion: v1\nkind: List\nitems:\n\
                    - {apiVersion: v1, kind: Secret, metadata: {name: b}}\n- {apiVersion: v1, kind: Namespace, metadata: {name: c}}\n";
        let names: Vec<_> = objects(text).unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(objects("").unwrap().is_empty());
        assert_eq!(objects("{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"j\"}}").unwrap().len(), 1);
        for (bad, why) in [
            ("a: [", "document 1"),
            ("kind: ConfigMap", "apiVersion and kind"),
            ("apiVersion: v1\nkind: ConfigMap\nmetadata: {}", "metadata.name"),
        ] {
            let error = objects(bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
