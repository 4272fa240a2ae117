//! The file of `--admission-control-config-file`: which plugin is configured how.
//!
//! Owns the form of the file. Must not do: read what a section says; that is its plugin's part. Answers to upstream's
//! [`AdmissionConfiguration`](https://kubernetes.io/docs/reference/config-api/apiserver-config.v1/#apiserver-config-k8s-io-v1-AdmissionConfiguration).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use trireme_api::meta;
use trireme_api::schema::parse_yaml;

/// The largest file.
const FILE_BYTES_MAX: usize = 1 << 20;
const KIND: &str = "AdmissionConfiguration";
const API_VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];

/// The sections of the file, by plugin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    sections: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    plugins: Vec<Section>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    name: String,
    #[serde(default)]
    path: String,
    configuration: Option<Value>,
}

// === impl Configuration ===

impl Configuration {
    /// Reads a file, and those that it names; their paths are relative to its folder.
    ///
    /// # Errors
    /// Which file is wrong, and what about it.
    pub fn open(path: &Path) -> Result<Configuration, String> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let parsed = read(path).and_then(|text| Configuration::parse(&text, |other| read(&folder.join(other))));
        parsed.map_err(|why| format!("{}: {why}", path.display()))
    }

    /// Parses a file in YAML or JSON; `read` gives the text of another file.
    fn parse(text: &[u8], read: impl Fn(&str) -> Result<Vec<u8>, String>) -> Result<Configuration, String> {
        let value = parse_yaml(text)?;
        let version = API_VERSIONS.into_iter().find(|version| meta::api_version(&value) == *version).unwrap_or(API_VERSIONS[0]);
        let file = typed::<File>(&value, version, KIND)?;
        let mut sections = BTreeMap::new();
        for Section { name, path, configuration } in file.plugins {
            let section = match configuration {
                Some(section) => section,
                None if path.is_empty() => continue,
                None => read(&path).and_then(|text| parse_yaml(&text)).map_err(|why| format!("plugin {name}: {path}: {why}"))?,
            };
            if sections.insert(name.clone(), section).is_some() {
                return Err(format!("plugin {name} is configured twice"));
            }
        }
        Ok(Configuration { sections })
    }

    /// The section of a plugin.
    pub fn section(&self, plugin: &str) -> Option<&Value> {
        self.sections.get(plugin)
    }

    /// The plugins that have a section.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// A configuration of one section, for tests.
    #[cfg(test)]
    pub fn of(plugin: &str, section: Value) -> Configuration {
        Configuration { sections: BTreeMap::from([(plugin.to_owned(), section)]) }
    }
}

/// The fields of an object that must be of this version and kind. A field that is not known is refused.
///
/// # Errors
/// What is wrong with it.
pub fn typed<T: DeserializeOwned>(object: &Value, api_version: &str, kind: &str) -> Result<T, String> {
    if (meta::api_version(object), meta::kind(object)) != (api_version, kind) {
        return Err(format!("expected kind {kind} of {api_version}, not a {:?} of {:?}", meta::kind(object), meta::api_version(object)));
    }
    let mut fields = object.clone();
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|field, _| field != "apiVersion" && field != "kind");
    }
    serde_json::from_value(fields).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    if text.len() > FILE_BYTES_MAX {
        return Err(format!("it has {} bytes, more than {FILE_BYTES_MAX}", text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Configuration, String> {
        Configuration::parse(text.as_bytes(), |path| match path {
            "other.yaml" => Ok(b"a: 1".to_vec()),
            _ => Err("no such file".to_owned()),
        })
    }

    #[test]
    fn sections_are_inside_or_in_files() {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n";
        let text = "plugins:\n- name: A\n  configuration: {b: 2}\n- {name: B, path: other.yaml}\n- {name: C, path: absent, configuration: {c: 3}}\n- name: D\n";
        let configuration = parse(&format!("{head}{text}")).unwrap();
        let section = |name| configuration.section(name).cloned();
        assert_eq!((section("A"), section("B"), section("C")), (Some(json!({"b": 2})), Some(json!({"a": 1})), Some(json!({"c": 3}))));
        assert_eq!(configuration.names().collect::<Vec<_>>(), ["A", "B", "C"]);
        for (text, part) in [
            (format!("{head}plugins: [{{name: A, path: absent}}]"), "plugin A: absent: no such file"),
            (
                format!("{head}plugins: [{{name: A, configuration: {{}}}}, {{name: A, configuration: {{}}}}]"),
                "plugin A is configured twice",
            ),
            (format!("{head}plugin: []"), "plugin"),
            (format!("{head}plugins: [{{name: A, config: {{}}}}]"), "config"),
            (
                "podNodeSelectorPluginConfig: {}".to_owned(),
                "expected kind AdmissionConfiguration of apiserver.config.k8s.io/v1, not a \"\"",
            ),
            (
                "apiVersion: apiserver.config.k8s.io/v1\nkind: Other".to_owned(),
                "expected kind AdmissionConfiguration of apiserver.config.k8s.io/v1, not a \"Other\"",
            ),
            ("[1".to_owned(), "line 1"),
        ] {
            let why = parse(&text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }
}
