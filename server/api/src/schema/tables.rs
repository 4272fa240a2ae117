//! Reading the generated tables.
//!
//! ```text
//! TEXT, STRINGS   all strings in one; string i is TEXT[STRINGS[i]..STRINGS[i+1]]; string 0 is empty
//! TYPES           [name, kind, first field | element type, number of fields, flags]
//! FIELDS          [name, type, flags, merge key, list map keys (comma-joined)], sorted by name within a type
//! ROOTS           [group, version, kind, type], sorted by the three names
//! ```

use super::generated::{FIELDS, ROOTS, STRINGS, TEXT, TYPES};

/// A type of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(u16);

/// A field of a struct type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(&'static [u16; 5]);

/// What a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An object with known fields.
    Struct,
    /// A string.
    String,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating-point number.
    Double,
    /// A boolean.
    Bool,
    /// Bytes in base64.
    Bytes,
    /// A number or a string.
    IntOrString,
    /// A quantity.
    Quantity,
    /// An RFC 3339 time of whole seconds.
    Time,
    /// An RFC 3339 time of microseconds.
    MicroTime,
    /// Any JSON.
    Any,
    /// Any JSON object.
    AnyObject,
    /// A list of one type.
    List(TypeId),
    /// A map from strings to one type.
    Map(TypeId),
}

/// How the items of a list relate (x-kubernetes-list-type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    Atomic,
    /// Scalars, each once.
    Set,
    /// Objects, identified by their key fields.
    Map,
}

fn string(index: u16) -> &'static str {
    let index = usize::from(index);
    match (STRINGS.get(index), STRINGS.get(index + 1)) {
        (Some(start), Some(end)) => TEXT.get(*start as usize..*end as usize).unwrap_or_default(),
        _ => "",
    }
}

/// The type of a kind in a group and version.
pub fn type_of(group: &str, version: &str, kind: &str) -> Option<TypeId> {
    let row = ROOTS.binary_search_by(|[g, v, k, _]| (string(*g), string(*v), string(*k)).cmp(&(group, version, kind))).ok()?;
    Some(TypeId(ROOTS[row][3]))
}

/// All root types: (group, version, kind, type), sorted.
pub fn roots() -> impl Iterator<Item = (&'static str, &'static str, &'static str, TypeId)> {
    ROOTS.iter().map(|[g, v, k, t]| (string(*g), string(*v), string(*k), TypeId(*t)))
}

/// The named type of a definition like `io.k8s.api.core.v1.PodSpec`.
pub fn definition(name: &str) -> Option<TypeId> {
    types().find(|t| t.name() == name)
}

/// All named types, sorted by name.
pub fn types() -> impl Iterator<Item = TypeId> {
    (0..TYPES.len()).filter_map(|i| u16::try_from(i).ok().map(TypeId)).filter(|t| !t.name().is_empty())
}

/// A digest of all tables.
pub(super) fn digest() -> [u8; 32] {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha256::new();
    hasher.update(TEXT);
    for row in TYPES.iter().chain(&FIELDS) {
        row.iter().for_each(|n| hasher.update(n.to_le_bytes()));
    }
    ROOTS.iter().flatten().for_each(|n| hasher.update(n.to_le_bytes()));
    hasher.finalize().into()
}

// === impl TypeId ===

impl TypeId {
    fn row(self) -> &'static [u16; 5] {
        &TYPES[usize::from(self.0)]
    }

    /// Name of the definition; empty for scalars, lists and maps.
    pub fn name(self) -> &'static str {
        string(self.row()[0])
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        let row = self.row();
        match row[1] {
            1 => Kind::String,
            2 => Kind::Int32,
            3 => Kind::Int64,
            4 => Kind::Double,
            5 => Kind::Bool,
            6 => Kind::Bytes,
            7 => Kind::IntOrString,
            8 => Kind::Quantity,
            9 => Kind::Time,
            10 => Kind::MicroTime,
            11 => Kind::Any,
            12 => Kind::AnyObject,
            13 => Kind::List(TypeId(row[2])),
            14 => Kind::Map(TypeId(row[2])),
            _ => Kind::Struct,
        }
    }

    /// The fields of a struct, sorted by name.
    pub fn fields(self) -> impl ExactSizeIterator<Item = Field> {
        self.rows().iter().map(Field)
    }

    fn rows(self) -> &'static [[u16; 5]] {
        let [_, kind, first, len, _] = *self.row();
        match kind {
            0 => &FIELDS[usize::from(first)..usize::from(first) + usize::from(len)],
            _ => &[],
        }
    }

    /// A field of a struct.
    pub fn field(self, name: &str) -> Option<Field> {
        let rows = self.rows();
        rows.binary_search_by(|row| string(row[0]).cmp(name)).ok().map(|i| Field(&rows[i]))
    }

    /// Element type of a list or map.
    pub fn element(self) -> Option<TypeId> {
        match self.kind() {
            Kind::List(element) | Kind::Map(element) => Some(element),
            _ => None,
        }
    }

    /// Whether server-side apply owns it as a whole (x-kubernetes-map-type: atomic).
    pub fn is_atomic(self) -> bool {
        self.row()[4] & 1 << 6 != 0
    }
}

// === impl Field ===

impl Field {
    /// Name in JSON.
    pub fn name(self) -> &'static str {
        string(self.0[0])
    }

    /// Type of its value.
    pub fn type_id(self) -> TypeId {
        TypeId(self.0[1])
    }

    /// Whether the schema demands it.
    pub fn is_required(self) -> bool {
        self.0[2] & 1 != 0
    }

    /// x-kubernetes-list-type.
    pub fn list_type(self) -> Option<ListType> {
        match self.0[2] >> 1 & 7 {
            1 => Some(ListType::Atomic),
            2 => Some(ListType::Set),
            4 => Some(ListType::Map),
            _ => None,
        }
    }

    /// x-kubernetes-list-map-keys.
    pub fn list_map_keys(self) -> impl Iterator<Item = &'static str> {
        string(self.0[4]).split(',').filter(|k| !k.is_empty())
    }

    /// Whether a strategic merge patch merges the list or map (x-kubernetes-patch-strategy: merge).
    pub fn patch_merges(self) -> bool {
        self.0[2] & 1 << 4 != 0
    }

    /// Whether a strategic merge patch drops the keys that it doesn't list (retainKeys).
    pub fn patch_retains_keys(self) -> bool {
        self.0[2] & 1 << 5 != 0
    }

    /// x-kubernetes-patch-merge-key.
    pub fn merge_key(self) -> Option<&'static str> {
        Some(string(self.0[3])).filter(|k| !k.is_empty())
    }

    /// Whether a zero (an empty string, 0, false) is the same as none: Go's JSON never shows it.
    pub fn omits_zero(self) -> bool {
        self.0[2] & 1 << 7 != 0
    }

    /// Whether server-side apply owns the map as a whole.
    pub fn is_atomic_map(self) -> bool {
        self.0[2] & 1 << 6 != 0
    }

    /// Whether server-side apply owns the map field by field though its type is atomic (x-kubernetes-map-type: granular).
    pub fn is_granular_map(self) -> bool {
        self.0[2] & 1 << 8 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found() {
        let deployment = type_of("apps", "v1", "Deployment").expect("known");
        let spec = deployment.field("spec").expect("field").type_id();
        assert_eq!(spec.name(), "io.k8s.api.apps.v1.DeploymentSpec");
        assert!(spec.field("selector").is_some_and(Field::is_required));
        assert_eq!(spec.field("replicas").map(|f| f.type_id().kind()), Some(Kind::Int32));
        let pod_spec = definition("io.k8s.api.core.v1.PodSpec").expect("known");
        let containers = pod_spec.field("containers").expect("field");
        assert_eq!((containers.merge_key(), containers.patch_merges()), (Some("name"), true));
        assert_eq!(containers.list_type(), Some(ListType::Map));
        assert!(pod_spec.field("volumes").is_some_and(|f| f.patch_retains_keys() && f.patch_merges()));
        let ports = definition("io.k8s.api.core.v1.ServiceSpec").and_then(|t| t.field("ports")).expect("field");
        assert_eq!(ports.list_map_keys().collect::<Vec<_>>(), ["port", "protocol"]);
        let claim = definition("io.k8s.api.core.v1.PersistentVolumeSpec").and_then(|t| t.field("claimRef")).expect("field");
        assert!(claim.type_id().is_atomic() && claim.is_granular_map() && !claim.is_atomic_map());
        assert!(type_of("apps", "v1", "Nope").is_none() && pod_spec.field("nope").is_none());
    }

    #[test]
    fn tables_are_sound() {
        for ty in types() {
            let names: Vec<_> = ty.fields().map(Field::name).collect();
            assert!(names.is_sorted() && names.iter().all(|n| !n.is_empty()), "{}", ty.name());
            for field in ty.fields().filter(|f| f.list_type() == Some(ListType::Map)) {
                let element = field.type_id().element().expect("a list");
                assert!(field.list_map_keys().all(|k| element.field(k).is_some()), "{}.{}", ty.name(), field.name());
            }
        }
        for resource in crate::resources::builtin() {
            for version in resource.versions.iter() {
                assert!(type_of(&resource.group, version, &resource.kind).is_some(), "{version} {}", resource.kind);
            }
        }
    }
}
