//! Reads and writes the entries of `metadata.managedFields`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fields_v1;
use super::set::Set;

/// The number of `Update` entries that an object keeps; [`Managed::cap`] merges the oldest beyond it.
const UPDATERS_MAX: usize = 10;
/// The manager name of merged entries.
const ANCIENT: &str = "ancient-changes";

/// The kind of write by which a manager got its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// The identity of a manager. Conflicts are reported in the order of this type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name of the manager.
    pub manager: String,
    /// The kind of write by which it owns its fields.
    pub operation: Operation,
    /// The API version of its updates; empty for `Apply`: an applier has one entry, whichever version it uses.
    pub version: String,
    /// The subresource that it writes; empty for the object itself.
    pub subresource: String,
}

/// The fields of a manager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// The fields.
    pub fields: Set,
    /// The version of which these are fields.
    pub api_version: String,
    /// When they last changed.
    pub time: Option<String>,
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed {
    /// Each with its fields.
    pub entries: BTreeMap<Entry, Owned>,
}

// === impl Operation ===

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }

    fn parse(text: &str) -> Option<Operation> {
        match text {
            "Apply" => Some(Operation::Apply),
            "Update" => Some(Operation::Update),
            _ => None,
        }
    }
}

// === impl Entry ===

impl Entry {
    /// The entry of `manager` for writes of `api_version` through `subresource`.
    pub fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Entry {
        let version = if operation == Operation::Apply { "" } else { api_version };
        let manager = if manager.is_empty() { "unknown" } else { manager };
        Entry { manager: manager.to_owned(), operation, version: version.to_owned(), subresource: subresource.to_owned() }
    }
}

// === impl Managed ===

impl Managed {
    /// Reads the list.
    ///
    /// # Errors
    /// Upstream's words for what is wrong with it.
    pub fn parse(list: &Value) -> Result<Managed, String> {
        let mut managed = Managed::default();
        for (index, value) in list.as_array().into_iter().flatten().enumerate() {
            let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
            let operation = Operation::parse(text("operation")).ok_or("operation must be `Apply` or `Update`")?;
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
                other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
            }
            let fields = match value.get("fieldsV1") {
                None | Some(Value::Null) => Set::default(),
                Some(fields) => fields_v1::decode(fields).map_err(|why| format!("error decoding set: {why}"))?,
            };
            let version = if operation == Operation::Apply { "" } else { api_version };
            let entry = Entry {
                manager: text("manager").to_owned(),
                operation,
                version: version.to_owned(),
                subresource: text("subresource").to_owned(),
            };
            let time = Some(text("time")).filter(|time| !time.is_empty()).map(str::to_owned);
            managed.entries.insert(entry, Owned { fields, api_version: api_version.to_owned(), time });
        }
        Ok(managed)
    }

    /// Writes the list; `None` if there is no manager.
    pub fn to_value(&self) -> Option<Value> {
        if self.entries.is_empty() {
            return None;
        }
        let mut entries: Vec<(&Entry, &Owned)> = self.entries.iter().collect();
        entries.sort_by_key(|(entry, owned)| {
            (entry.operation, owned.time.as_deref().unwrap_or_default(), &entry.manager, &owned.api_version, &entry.subresource)
        });
        Some(entries.into_iter().map(|(entry, owned)| entry_value(entry, owned)).collect())
    }

    /// Merges the oldest `Update` entries of each version until at most `UPDATERS_MAX` are left.
    pub fn cap(&mut self) {
        let mut updaters: Vec<(Option<String>, Entry)> = self
            .entries
            .iter()
            .filter(|(entry, _)| entry.operation == Operation::Update)
            .map(|(entry, owned)| (owned.time.clone(), entry.clone()))
            .collect();
        if updaters.len() <= UPDATERS_MAX {
            return;
        }
        updaters.sort();
        let mut count = updaters.len();
        let mut first_of_version: BTreeMap<String, Entry> = BTreeMap::new();
        for (time, entry) in updaters {
            if count <= UPDATERS_MAX {
                return;
            }
            let Some(api_version) = self.entries.get(&entry).map(|owned| owned.api_version.clone()) else { continue };
            let Some(first) = first_of_version.get(&api_version) else {
                first_of_version.insert(api_version, entry);
                continue;
            };
            let bucket = Entry::new(ANCIENT, Operation::Update, &api_version, "");
            if !self.entries.contains_key(&bucket)
                && let Some(oldest) = self.entries.remove(first)
            {
                self.entries.insert(bucket.clone(), oldest);
            }
            if entry == bucket {
                continue;
            }
            if let Some(merged) = self.entries.remove(&entry)
                && let Some(into) = self.entries.get_mut(&bucket)
            {
                into.fields = into.fields.union(&merged.fields);
                into.time = time;
                count -= 1;
            }
        }
    }
}

fn entry_value(entry: &Entry, owned: &Owned) -> Value {
    let mut map = Map::new();
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            map.insert(key.to_owned(), Value::from(value));
        }
    };
    text("manager", &entry.manager);
    text("operation", entry.operation.text());
    text("apiVersion", &owned.api_version);
    text("time", owned.time.as_deref().unwrap_or_default());
    text("fieldsType", "FieldsV1");
    text("subresource", &entry.subresource);
    map.insert("fieldsV1".to_owned(), fields_v1::encode(&owned.fields));
    Value::Object(map)
}

/// Whether a list that a client sent clears the managers: it is empty, or its only entry is.
pub fn is_reset(list: &Value) -> bool {
    match list.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => *only == json!({}),
        _ => false,
    }
}

/// Whether two lists differ in nothing but times, and in these.
pub fn differ_in_times_alone(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_array(), new.as_array()) else { return false };
    let same = |a: &Value, b: &Value| {
        let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
        let rest = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key("time"));
        rest(a) == rest(b) && a.iter().filter(|(key, _)| *key != "time").all(|(key, value)| b.get(key) == Some(value))
    };
    old.len() == new.len() && old != new && old.iter().zip(new).all(|(a, b)| same(a, b))
}
