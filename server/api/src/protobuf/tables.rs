//! Reading the generated tables.
//!
//! ```text
//! TEXT, STRINGS   all strings in one; string i is TEXT[STRINGS[i]..STRINGS[i+1]]; string 0 is empty
//! MESSAGES        [name, first field, number of fields], sorted by name (as the schema tables spell it)
//! FIELDS          [name in JSON, number << 5 | flags, type], sorted by number within a message
//! ```
//! Types from 32 on are messages. Flags: 1 a list, 2 a map from strings, 4 in JSON its fields are the parent's own,
//! 8 shown in JSON even when zero, 16 required.

use super::generated::{FIELDS, MESSAGES, STRINGS, TEXT};

/// A message of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message(usize);

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field(&'static [u16; 3]);

/// How often a field is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Single,
    List,
    Map,
}

/// What a field, an item of a list or a value of a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    String,
    Bytes,
    Int32,
    Int64,
    Bool,
    Double,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// JSON text in bytes.
    RawJson,
    /// A schema, or a list of them.
    SchemaOrArray,
    /// A schema, or a boolean.
    SchemaOrBool,
    /// A schema, or a list of names.
    SchemaOrStrings,
    /// A list of strings in a message of its own.
    Strings,
    Message(Message),
}

fn string(index: u16) -> &'static str {
    let index = usize::from(index);
    match (STRINGS.get(index), STRINGS.get(index + 1)) {
        (Some(start), Some(end)) => TEXT.get(*start as usize..*end as usize).unwrap_or_default(),
        _ => "",
    }
}

// === impl Message ===

impl Message {
    /// The message of a definition like `io.k8s.api.core.v1.Pod`.
    pub(super) fn named(name: &str) -> Option<Message> {
        MESSAGES.binary_search_by(|row| string(row[0]).cmp(name)).ok().map(Message)
    }

    /// The schema of a custom resource.
    pub(super) fn json_schema() -> Option<Message> {
        Message::named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    }

    fn rows(self) -> &'static [[u16; 3]] {
        let [_, first, len] = MESSAGES[self.0];
        &FIELDS[usize::from(first)..usize::from(first) + usize::from(len)]
    }

    /// The fields, by number.
    pub(super) fn fields(self) -> impl Iterator<Item = Field> {
        self.rows().iter().map(Field)
    }

    /// The field of a number.
    pub(super) fn field(self, number: u32) -> Option<Field> {
        let rows = self.rows();
        rows.binary_search_by_key(&number, |row| Field(row).number()).ok().map(|at| Field(&rows[at]))
    }
}

// === impl Field ===

impl Field {
    /// Name in JSON; empty if inline.
    pub(super) fn name(self) -> &'static str {
        string(self.0[0])
    }

    pub(super) fn number(self) -> u32 {
        u32::from(self.0[1] >> 5)
    }

    pub(super) fn shape(self) -> Shape {
        match self.0[1] & 3 {
            0 => Shape::Single,
            1 => Shape::List,
            _ => Shape::Map,
        }
    }

    /// Whether its own fields are the parent's in JSON.
    pub(super) fn is_inline(self) -> bool {
        self.0[1] & 1 << 2 != 0
    }

    /// Whether JSON shows it when it is there and zero.
    pub(super) fn shows_zero(self) -> bool {
        self.0[1] & 1 << 3 != 0
    }

    pub(super) fn target(self) -> Target {
        match self.0[2] {
            0 => Target::String,
            1 => Target::Bytes,
            2 => Target::Int32,
            3 => Target::Int64,
            4 => Target::Bool,
            5 => Target::Double,
            6 => Target::Quantity,
            7 => Target::IntOrString,
            8 => Target::Time,
            9 => Target::MicroTime,
            10..=12 => Target::RawJson,
            13 => Target::SchemaOrArray,
            14 => Target::SchemaOrBool,
            15 => Target::SchemaOrStrings,
            16..=31 => Target::Strings,
            message => Target::Message(Message(usize::from(message) - 32)),
        }
    }
}
