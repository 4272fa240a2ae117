//! Reading the prost attributes of k8s-pb's source.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};

/// How often a field is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Once or not at all.
    Single,
    /// Repeated.
    List,
    /// A map from strings.
    Map,
}

/// A field of a message.
#[derive(Clone, Debug)]
pub struct ProtoField {
    /// Its name in Rust.
    pub name: String,
    /// Its number.
    pub number: u16,
    /// `string`, `int32`... of itself, its items or its values.
    pub wire: String,
    /// How often it is there.
    pub shape: Shape,
    /// The message that it is or holds: `io.k8s.api.core.v1.PodSpec`.
    pub message: Option<String>,
}

/// All messages below a source folder, by names like those of the OpenAPI definitions.
pub fn read(folder: &Path) -> anyhow::Result<BTreeMap<String, Vec<ProtoField>>> {
    let mut messages = BTreeMap::new();
    walk(folder, &mut Vec::new(), &mut messages)?;
    if messages.is_empty() {
        bail!("no messages in {}", folder.display());
    }
    Ok(messages)
}

fn walk(folder: &Path, path: &mut Vec<String>, messages: &mut BTreeMap<String, Vec<ProtoField>>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            path.push(name);
            walk(&entry.path(), path, messages)?;
            path.pop();
        } else if name == "mod.rs" {
            let text = std::fs::read_to_string(entry.path())?;
            parse(&text, path, messages).with_context(|| entry.path().display().to_string())?;
        }
    }
    Ok(())
}

fn parse(text: &str, module: &[String], messages: &mut BTreeMap<String, Vec<ProtoField>>) -> anyhow::Result<()> {
    let (mut current, mut attribute): (Option<(String, Vec<ProtoField>)>, Option<String>) = (None, None);
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line.starts_with("//") {
            continue;
        }
        if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.split([' ', '{']).next().unwrap_or_default();
            current = Some((full_name(module, name), Vec::new()));
            // `pub struct Empty {}`
            if !line.ends_with('{') {
                messages.extend(current.take());
            }
        } else if line == "}" {
            messages.extend(current.take());
        } else if line.starts_with("#[prost(") {
            attribute = Some(until(line, &mut lines, |text| text.ends_with(")]")));
        } else if let (Some(rest), Some(attribute)) = (line.strip_prefix("pub "), attribute.take()) {
            let declaration = until(rest, &mut lines, |text| text.ends_with(',') && text.matches('<').count() == text.matches('>').count());
            if let Some((_, fields)) = &mut current {
                fields.push(field(&declaration, &attribute, module)?);
            }
        }
    }
    Ok(())
}

/// Joins lines to a complete item.
fn until<'a>(first: &str, lines: &mut impl Iterator<Item = &'a str>, complete: impl Fn(&str) -> bool) -> String {
    let mut text = first.to_owned();
    while !complete(&text) {
        let Some(line) = lines.next() else { break };
        text.push_str(line);
    }
    text
}

fn field(declaration: &str, attribute: &str, module: &[String]) -> anyhow::Result<ProtoField> {
    let (name, rust_type) = declaration.split_once(':').context("a field without a type")?;
    let number = attribute.split("tag = \"").nth(1).and_then(|t| t.split('"').next()).context("a field without a number")?;
    let kinds = attribute.trim_start_matches("#[prost(");
    let (shape, wire) = if let Some(rest) = kinds.strip_prefix("btree_map = \"") {
        let (key, value) = rest.split_once('"').map(|(t, _)| t).and_then(|t| t.split_once(", ")).context("a map without types")?;
        if key != "string" {
            bail!("{name}: keys of type {key}");
        }
        (Shape::Map, value)
    } else {
        let shape = if kinds.contains("repeated") { Shape::List } else { Shape::Single };
        (shape, kinds.split([',', ' ', '=']).next().unwrap_or_default())
    };
    let message = (wire == "message").then(|| message_name(rust_type, module));
    Ok(ProtoField { name: name.trim().trim_start_matches("r#").to_owned(), number: number.parse()?, wire: wire.to_owned(), shape, message })
}

/// The definition's name of the innermost type of `Option<Box<super::PodSpec>>`.
fn message_name(rust_type: &str, module: &[String]) -> String {
    let inner = rust_type.trim().trim_end_matches([',', '>', ' ']);
    let inner = inner.rsplit(['<', ',']).next().unwrap_or_default().trim();
    let mut path = module.to_vec();
    let mut segments: Vec<&str> = inner.split("::").collect();
    let name = segments.pop().unwrap_or_default();
    for segment in segments {
        if segment == "super" {
            path.pop();
        } else {
            path.push(segment.to_owned());
        }
    }
    full_name(&path, name)
}

fn full_name(module: &[String], name: &str) -> String {
    format!("io.k8s.{}.{name}", module.join("."))
}
