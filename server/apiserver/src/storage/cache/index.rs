//! Reads labels and selectable fields out of an object's JSON without building the object.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What an index pass finds.
#[derive(Debug, Default)]
pub struct Indexed {
    /// Labels, sorted by key.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// One value per requested path; empty where the object has none.
    pub fields: Vec<Box<str>>,
}

/// Reads `metadata.labels` and the dotted `paths` of `json`.
pub fn index(json: &[u8], paths: &[impl AsRef<str>]) -> Result<Indexed, serde_json::Error> {
    let mut out = Indexed { labels: Vec::new(), fields: vec![Box::from(""); paths.len()] };
    let split: Vec<Vec<&str>> = paths.iter().map(|p| p.as_ref().split('.').collect()).collect();
    let wanted: Vec<usize> = (0..paths.len()).collect();
    let mut de = serde_json::Deserializer::from_slice(json);
    Walk { split: &split, wanted, depth: 0, at: Place::Root, out: &mut out }.deserialize(&mut de)?;
    out.labels.sort();
    Ok(out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Metadata,
    Labels,
    Elsewhere,
}

/// One value on the way: `wanted` are the paths that lead through it.
struct Walk<'a> {
    split: &'a [Vec<&'a str>],
    wanted: Vec<usize>,
    depth: usize,
    at: Place,
    out: &'a mut Indexed,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Walk<'_> {
    fn leaf(self, text: &str) {
        for path in self.wanted {
            if self.split[path].len() == self.depth {
                self.out.fields[path] = text.into();
            }
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<(), E> {
        self.leaf(if v { "true" } else { "false" });
        Ok(())
    }
    fn visit_i64<E>(self, v: i64) -> Result<(), E> {
        self.leaf(&v.to_string());
        Ok(())
    }
    fn visit_u64<E>(self, v: u64) -> Result<(), E> {
        self.leaf(&v.to_string());
        Ok(())
    }
    fn visit_f64<E>(self, v: f64) -> Result<(), E> {
        self.leaf(&v.to_string());
        Ok(())
    }
    fn visit_str<E>(self, v: &str) -> Result<(), E> {
        self.leaf(v);
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.at == Place::Labels {
            while let Some((key, value)) = map.next_entry::<Box<str>, Option<Box<str>>>()? {
                self.out.labels.push((key, value.unwrap_or_default()));
            }
            return Ok(());
        }
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let at = match (self.at, &*key) {
                (Place::Root, "metadata") => Place::Metadata,
                (Place::Metadata, "labels") => Place::Labels,
                _ => Place::Elsewhere,
            };
            let wanted: Vec<usize> =
                self.wanted.iter().copied().filter(|&p| self.split[p].get(self.depth).is_some_and(|part| *part == key)).collect();
            if wanted.is_empty() && at == Place::Elsewhere {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Walk { split: self.split, wanted, depth: self.depth + 1, at, out: self.out })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_labels_and_paths() {
        let json = br#"{"kind":"Pod","metadata":{"name":"a","labels":{"b":"2","a":"1"}},"spec":{"nodeName":"n1","hostNetwork":true,"containers":[{"nodeName":"no"}]},"status":{"phase":"Running"}}"#;
        let got = index(json, &["metadata.name", "spec.nodeName", "status.phase", "spec.hostNetwork", "spec.nope"]).unwrap();
        assert_eq!(got.labels, vec![("a".into(), "1".into()), ("b".into(), "2".into())]);
        let fields: Vec<&str> = got.fields.iter().map(|f| &**f).collect();
        assert_eq!(fields, ["a", "n1", "Running", "true", ""]);
    }
}
