//! What FlowSchemas and PriorityLevelConfigurations say, read from the objects.
//!
//! Owns the reading, and that the two mandatory objects of each kind are there even if the store has none: every request has a level.
//! Objects in the store have passed validation; what is missing in one all the same reads as the default.
//! <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/flow-schema-v1/>

use serde_json::Value;
use trireme_api::{bootstrap, meta};

use crate::flowcontrol::queues::Shape;
use crate::flowcontrol::shares::Share;
use crate::storage::lookup::ObjectReader;

/// The group of both kinds.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// The plural of FlowSchemas.
pub const SCHEMAS: &str = "flowschemas";
/// The plural of PriorityLevelConfigurations.
pub const LEVELS: &str = "prioritylevelconfigurations";
/// The objects of either kind that there must be.
pub const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// A priority level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelSpec {
    /// Its name.
    pub name: String,
    /// The uid of its object; empty if the store has none.
    pub uid: String,
    /// Its part of the seats.
    pub share: Share,
    /// Its queues; none if it refuses what cannot run at once.
    pub shape: Shape,
}

/// What makes flows of the requests of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinguisher {
    /// All requests are one flow.
    None,
    /// Each user.
    User,
    /// Each namespace.
    Namespace,
}

/// Which requests go to which level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaSpec {
    /// Its name.
    pub name: String,
    /// The uid of its object; empty if the store has none.
    pub uid: String,
    /// Of several schemas that match, that with the lowest precedence counts.
    pub precedence: i64,
    /// The name of the level.
    pub level: String,
    /// What makes flows of its requests.
    pub distinguisher: Distinguisher,
    /// A request matches if it matches one of these.
    pub rules: Vec<Rule>,
}

/// Subjects and what they ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Who asks.
    pub subjects: Vec<Subject>,
    /// For which resources.
    pub resources: Vec<ResourceRule>,
    /// For which other paths.
    pub paths: Vec<PathRule>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A user, `*` for all.
    User(String),
    /// A group, `*` for all.
    Group(String),
    /// A service account: namespace and name, `*` for all of the namespace.
    ServiceAccount(String, String),
}

/// Requests for resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceRule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// Groups, `*` for all.
    pub groups: Vec<String>,
    /// Resources and `resource/subresource`, `*` for all.
    pub resources: Vec<String>,
    /// Whether requests without a namespace match.
    pub cluster_scope: bool,
    /// Namespaces, `*` for all.
    pub namespaces: Vec<String>,
}

/// Requests for paths that are no resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// Paths; one that ends with `*` is a prefix.
    pub urls: Vec<String>,
}

/// Both kinds, as the store has them now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// By precedence and name. Those whose level does not exist are left out.
    pub schemas: Vec<SchemaSpec>,
    /// By name.
    pub levels: Vec<LevelSpec>,
}

impl Configuration {
    /// Reads all objects.
    pub fn read(reader: &dyn ObjectReader) -> Configuration {
        let list = |plural| reader.list(GROUP, plural, None).into_iter().map(|one| one.object).collect::<Vec<_>>();
        let (schemas, levels) = (list(SCHEMAS), list(LEVELS));
        Configuration::of(schemas.iter().map(AsRef::as_ref), levels.iter().map(AsRef::as_ref))
    }

    /// What these objects say.
    pub fn of<'a>(schemas: impl Iterator<Item = &'a Value>, levels: impl Iterator<Item = &'a Value>) -> Configuration {
        let mut levels: Vec<LevelSpec> = levels.map(LevelSpec::of).collect();
        let mut schemas: Vec<SchemaSpec> = schemas.map(SchemaSpec::of).collect();
        for name in MANDATORY {
            if levels.iter().all(|level| level.name != name) {
                levels.extend(bootstrap::priority_levels().iter().filter(|one| meta::name(one) == name).map(LevelSpec::of));
            }
            if schemas.iter().all(|schema| schema.name != name) {
                schemas.extend(bootstrap::flow_schemas().iter().filter(|one| meta::name(one) == name).map(SchemaSpec::of));
            }
        }
        levels.sort_by(|a, b| a.name.cmp(&b.name));
        schemas.retain(|schema| levels.iter().any(|level| level.name == schema.level));
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        Configuration { schemas, levels }
    }
}

impl LevelSpec {
    fn of(object: &Value) -> LevelSpec {
        let spec = &object["spec"];
        let is_exempt = meta::str_at(spec, &["type"]) == "Exempt";
        let section = if is_exempt { &spec["exempt"] } else { &spec["limited"] };
        let queuing = &section["limitResponse"]["queuing"];
        let shape = match meta::str_at(section, &["limitResponse", "type"]) {
            "Queue" => Shape {
                queues: number(&queuing["queues"], 64),
                hand: number(&queuing["handSize"], 8),
                length: number(&queuing["queueLengthLimit"], 50),
            },
            _ => Shape::default(),
        };
        let share = Share {
            is_exempt,
            shares: number(&section["nominalConcurrencyShares"], if is_exempt { 0 } else { 30 }),
            lendable_percent: number(&section["lendablePercent"], 0).min(100),
            borrowing_percent: section.get("borrowingLimitPercent").and_then(Value::as_u64).map(clamped),
        };
        LevelSpec { name: meta::name(object).to_owned(), uid: meta::uid(object).to_owned(), share, shape }
    }
}

impl SchemaSpec {
    fn of(object: &Value) -> SchemaSpec {
        let spec = &object["spec"];
        let distinguisher = match meta::str_at(spec, &["distinguisherMethod", "type"]) {
            "ByUser" => Distinguisher::User,
            "ByNamespace" => Distinguisher::Namespace,
            _ => Distinguisher::None,
        };
        SchemaSpec {
            name: meta::name(object).to_owned(),
            uid: meta::uid(object).to_owned(),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
            level: meta::str_at(spec, &["priorityLevelConfiguration", "name"]).to_owned(),
            distinguisher,
            rules: meta::list_at(spec, &["rules"]).iter().map(Rule::of).collect(),
        }
    }
}

impl Rule {
    fn of(rule: &Value) -> Rule {
        let resource = |rule: &Value| ResourceRule {
            verbs: strings(rule, "verbs"),
            groups: strings(rule, "apiGroups"),
            resources: strings(rule, "resources"),
            cluster_scope: rule["clusterScope"].as_bool().unwrap_or(false),
            namespaces: strings(rule, "namespaces"),
        };
        let path = |rule: &Value| PathRule { verbs: strings(rule, "verbs"), urls: strings(rule, "nonResourceURLs") };
        Rule {
            subjects: meta::list_at(rule, &["subjects"]).iter().filter_map(Subject::of).collect(),
            resources: meta::list_at(rule, &["resourceRules"]).iter().map(resource).collect(),
            paths: meta::list_at(rule, &["nonResourceRules"]).iter().map(path).collect(),
        }
    }
}

impl Subject {
    fn of(subject: &Value) -> Option<Subject> {
        let text = |path: &[&str]| meta::str_at(subject, path).to_owned();
        match meta::str_at(subject, &["kind"]) {
            "User" => Some(Subject::User(text(&["user", "name"]))),
            "Group" => Some(Subject::Group(text(&["group", "name"]))),
            "ServiceAccount" => Some(Subject::ServiceAccount(text(&["serviceAccount", "namespace"]), text(&["serviceAccount", "name"]))),
            _ => None,
        }
    }
}

fn strings(object: &Value, key: &str) -> Vec<String> {
    meta::list_at(object, &[key]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn number(value: &Value, default: u32) -> u32 {
    value.as_u64().map_or(default, clamped)
}

fn clamped(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_defaults_are_read_whole() {
        let (schemas, levels) = (bootstrap::flow_schemas(), bootstrap::priority_levels());
        let read = Configuration::of(schemas.iter(), levels.iter());
        assert_eq!((read.schemas.len(), read.levels.len()), (schemas.len(), levels.len()));
        let ends = (read.schemas.first().unwrap().name.as_str(), read.schemas.last().unwrap().name.as_str());
        assert_eq!(ends, ("exempt", "catch-all"));
        let low = read.levels.iter().find(|level| level.name == "workload-low").unwrap();
        assert_eq!((low.share.shares, low.share.lendable_percent, low.share.borrowing_percent), (100, 90, None));
        assert_eq!(low.shape, Shape { queues: 128, hand: 6, length: 50 });
    }

    #[test]
    fn the_mandatory_objects_need_no_store_and_a_schema_needs_its_level() {
        let stray = json!({"metadata": {"name": "stray"}, "spec": {"priorityLevelConfiguration": {"name": "none"}}});
        let read = Configuration::of([&stray].into_iter(), std::iter::empty());
        let names = |all: &[String]| all.join(" ");
        assert_eq!(names(&read.schemas.iter().map(|one| one.name.clone()).collect::<Vec<_>>()), "exempt catch-all");
        assert_eq!(names(&read.levels.iter().map(|one| one.name.clone()).collect::<Vec<_>>()), "catch-all exempt");
    }
}
