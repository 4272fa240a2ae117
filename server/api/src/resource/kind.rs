//! The trait for everything that is specific to one kind.
//!
//! Every method is provided and does what most kinds do, so a kind states only where it differs. A kind is pure: it reads
//! no clock and no other object, and it allocates nothing. Identity, time, allocation and storage belong to the API
//! server's registry.

use serde_json::Value;

use super::cells::{Cells, RowCondition};
use super::column::Column;
use super::scale::Scaled;
use super::selectable::SelectableField;
use crate::apply::Untracked;
use crate::custom::conversion::ConversionWebhook;
use crate::gvk::{GroupVersionKind, Name};
use crate::names;
use crate::time::Timestamp;
use crate::validate::{At, NameRule};

/// What happens to the dependents of a deleted object when the request does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    /// The garbage collector deletes them.
    Background,
    /// They lose their owner and stay.
    Orphan,
    /// Objects of this kind never have dependents: the propagation policy of a request is ignored.
    None,
}

/// Something that an object takes from a pool of the cluster in the transaction that writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Cluster addresses from the Service ranges.
    ClusterAddresses,
    /// Ports from the node port range.
    NodePorts,
}

/// All that is special about one kind.
///
/// The steps of a write call it in this order: [`Kind::default`], `prepare_for_*`, `validate_*`, [`Kind::warnings`].
/// Objects are in the storage version. [`crate::resource::Definition`] adds what holds for every kind (metadata,
/// generation, status).
pub trait Kind: Send + Sync {
    // === conventions ===

    /// Whether the status is written through `/status` alone.
    fn has_status(&self) -> bool {
        true
    }

    /// Whether a creator may set the status.
    fn status_on_create(&self) -> bool {
        false
    }

    /// Whether `metadata.generation` counts changes.
    fn counts_generation(&self) -> bool {
        true
    }

    /// Fields of `metadata` whose change counts as a new generation.
    fn generation_metadata(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether a PUT of a missing name creates it.
    fn create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without a resourceVersion replaces whatever is there.
    fn unconditional_update(&self) -> bool {
        false
    }

    /// The rule for `metadata.name`.
    fn name_rule(&self) -> NameRule {
        names::is_dns1123_subdomain
    }

    /// Whether finalizers without a domain may have other names than Kubernetes' own.
    fn accepts_bare_finalizers(&self) -> bool {
        false
    }

    /// Whether stored values are encrypted.
    fn is_sealed(&self) -> bool {
        false
    }

    /// How long an object is kept after its last write, in seconds. None: it does not expire.
    fn ttl_secs(&self) -> Option<i64> {
        None
    }

    /// What an object takes from the pools of the cluster.
    fn allocations(&self) -> &'static [Allocation] {
        &[]
    }

    /// The component that would act on objects of this kind and that this release lacks. A new object then answers with a
    /// warning.
    fn missing_actor(&self) -> Option<&'static str> {
        None
    }

    /// What upstream does for this kind and this release does not, for readers; empty where nothing is known to be missing.
    fn missing_behaviour(&self) -> &'static str {
        ""
    }

    /// The warning for everyone who uses a version that upstream has deprecated.
    fn deprecation(&self, _version: &str) -> Option<Name> {
        None
    }

    // === writing ===

    /// Fills in what upstream's `SetDefaults_*` functions do, and the fields that its encoder always writes. Idempotent.
    fn default(&self, _version: &str, _object: &mut Value) {}

    /// Clears what a creator may not set and sets what a new object starts with. The object has its UID and its name.
    fn prepare_for_create(&self, _object: &mut Value, _now: Timestamp) {}

    /// Puts back what an update of the main resource may not change.
    fn prepare_for_update(&self, _object: &mut Value, _old: &Value) {}

    /// Puts back what an update of `status` may not change, beside the rest of the object.
    fn prepare_for_status_update(&self, _object: &mut Value, _old: &Value, _now: Timestamp) {}

    /// Puts back what an update of another subresource (`approval`, `finalize`, `resize`) may not change.
    fn prepare_for_subresource(&self, _subresource: &str, _object: &mut Value, _old: &Value, _now: Timestamp) {}

    /// The paths that an update of the status leaves as they are, beside what an update of any subresource does.
    fn kept_by_status(&self) -> &'static [&'static str] {
        &["spec"]
    }

    /// The fields that a write of `subresource` (empty: of the object itself) leaves unchanged, so that the write gives them no manager.
    /// Upstream: `GetResetFields`.
    fn untracked(&self, subresource: &str) -> Untracked {
        match subresource {
            "" if self.has_status() => Untracked::Only(&["status"]),
            "status" => Untracked::Only(self.kept_by_status()),
            _ => Untracked::NONE,
        }
    }

    /// Checks an object by itself.
    fn validate(&self, _object: &At<'_>) {}

    /// Checks a new object.
    fn validate_create(&self, object: &At<'_>) {
        self.validate(object);
    }

    /// Checks a changed object against the stored one.
    fn validate_update(&self, object: &At<'_>, _old: &At<'_>) {
        self.validate(object);
    }

    /// Checks an update of the status.
    fn validate_status(&self, _object: &At<'_>, _old: &At<'_>) {}

    /// Checks an update of another subresource that carries the whole object.
    fn validate_subresource(&self, _subresource: &str, object: &At<'_>, old: &At<'_>) {
        self.validate_update(object, old);
    }

    /// Whether checks evaluate expressions: they then take bounded, but not little time, and do not run on a thread that serves requests.
    fn evaluates(&self) -> bool {
        false
    }

    /// What to tell the author of a new object (`old` is None) or of a change.
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Converts between two versions of the kind (or between two groups that share a storage). An error names what has no
    /// counterpart.
    fn convert(&self, object: Value, from: &GroupVersionKind, to: &GroupVersionKind) -> Result<Value, String> {
        if from == to { Ok(object) } else { Err(format!("{from} cannot be converted to {to}")) }
    }

    /// The webhook that converts between versions, where one does. [`Kind::convert`] then has no part in it: objects keep the version that
    /// they were written in until they are shown, and writes are prepared and judged in the version that the client addresses.
    fn conversion_webhook(&self) -> Option<&ConversionWebhook> {
        None
    }

    /// Makes what a webhook has converted fit the version that it is in now. An error says what is malformed.
    fn fit_converted(&self, _object: &mut Value) -> Result<(), String> {
        Ok(())
    }

    // === storage ===

    /// Whether stored objects are shown through [`Kind::restore`].
    fn restores(&self) -> bool {
        false
    }

    /// Converts a stored object of any version to the current storage version. Where a webhook converts, the object stays in its own
    /// version and is adapted to that version's current schema. An error says why it cannot be shown.
    fn restore(&self, _object: &mut Value) -> Result<(), String> {
        Ok(())
    }

    /// Drops what the storage version cannot hold from an object that was written in another version.
    fn fit_storage(&self, _object: &mut Value) {}

    // === scaling ===

    /// How many replicas there are and should be. An error names what is no number.
    fn scaled(&self, object: &Value) -> Result<Scaled, String> {
        Ok(Scaled::of(object))
    }

    /// Sets how many replicas there should be.
    fn scale(&self, object: &mut Value, replicas: i64) {
        Scaled::set(object, replicas);
    }

    /// Where an object says how many there should be; None: it cannot be scaled.
    fn replicas_path(&self) -> Option<Vec<String>> {
        Some(vec!["spec".to_owned(), "replicas".to_owned()])
    }

    // === deleting ===

    /// For kinds that are deleted gracefully: the seconds until the object goes, given what the request asks for.
    fn grace_period_secs(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether something other than `metadata.finalizers` keeps a deleted object in place.
    fn is_held(&self, _object: &Value) -> bool {
        false
    }

    /// Completes an object that was marked as being deleted and stays for now.
    fn mark_deleted(&self, _object: &mut Value, _old: &Value) {}

    /// Completes an object that was marked as being deleted because it is evicted.
    fn mark_evicted(&self, _object: &mut Value, _now: Timestamp) {}

    /// What happens to dependents by default.
    fn dependents(&self) -> Dependents {
        Dependents::Background
    }

    /// Whether a completed delete answers with the object in place of a Status.
    fn returns_deleted(&self) -> bool {
        false
    }

    // === reading ===

    /// The columns of a Table.
    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Age")
    }

    /// The cells of one object, one for each column.
    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![cells.name(), cells.age()]
    }

    /// What a table row says about its object beside the cells.
    fn row_conditions(&self, _object: &Value) -> Vec<RowCondition> {
        Vec::new()
    }

    /// The fields of a field selector, beside `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self) -> Vec<SelectableField> {
        Vec::new()
    }
}

/// A kind without anything special.
pub struct Plain;

impl Kind for Plain {}
