//! The parameters of a connection as the object that admission sees.
//!
//! Answers to upstream's `PodExecOptions` and its like (`k8s.io/api/core/v1`), decoded from the query.

use serde_json::{Map, Value, json};

use crate::http::parameters::Parameters;

/// The object of `kind`; `path` is what follows the subresource.
pub fn object(kind: &str, query: &Parameters, path: &str) -> Value {
    let mut object = Map::new();
    object.insert("kind".to_owned(), json!(kind));
    object.insert("apiVersion".to_owned(), json!("v1"));
    match kind {
        "PodExecOptions" | "PodAttachOptions" => {
            for stream in ["stdin", "stdout", "stderr", "tty"] {
                // Attaching shows the output unless it is turned off.
                let by_default = kind == "PodAttachOptions" && matches!(stream, "stdout" | "stderr") && query.get(stream).is_none();
                if query.flag(stream) || by_default {
                    object.insert(stream.to_owned(), json!(true));
                }
            }
            insert_text(&mut object, "container", query.get("container").unwrap_or_default());
            let command: Vec<&str> = query.all("command").collect();
            if kind == "PodExecOptions" && !command.is_empty() {
                object.insert("command".to_owned(), json!(command));
            }
        }
        "PodPortForwardOptions" => {
            let ports: Vec<i64> = query.all("ports").flat_map(|ports| ports.split(',')).filter_map(|port| port.parse().ok()).collect();
            if !ports.is_empty() {
                object.insert("ports".to_owned(), json!(ports));
            }
        }
        _ => insert_text(&mut object, "path", path),
    }
    Value::Object(object)
}

fn insert_text(object: &mut Map<String, Value>, field: &str, text: &str) {
    if !text.is_empty() {
        object.insert(field.to_owned(), json!(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Parameters {
        Parameters::parse(query)
    }

    #[test]
    fn parameters_become_the_options_that_upstream_shows() {
        let query = parse("stdin=true&container=c&command=sh&command=-c&tty=false");
        assert_eq!(
            object("PodExecOptions", &query, ""),
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "container": "c", "command": ["sh", "-c"]})
        );
        assert_eq!(
            object("PodAttachOptions", &query, ""),
            json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": true, "stdout": true, "stderr": true, "container": "c"})
        );
        assert_eq!(object("PodPortForwardOptions", &parse("ports=80,81"), "")["ports"], json!([80, 81]));
        assert_eq!(object("PodProxyOptions", &parse(""), "/a")["path"], "/a");
    }
}
