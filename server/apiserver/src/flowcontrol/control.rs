//! Which level a request goes to, and the levels.
//!
//! Owns the table that requests are classified with. It is replaced as a whole when an object changes; a request holds the one that it
//! was classified with, and levels that are in both keep their requests. A level that is in no table any more serves the requests that it has and
//! ends with them.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use http::HeaderValue;
use parking_lot::RwLock;
use prometheus::{IntGaugeVec, Registry};

use crate::flowcontrol::classify::{Index, distinguish};
use crate::flowcontrol::collector::LevelCollector;
use crate::flowcontrol::configuration::{Configuration, LevelSpec, SchemaSpec};
use crate::flowcontrol::level::{Entry, Level};
use crate::flowcontrol::levels::Levels;
use crate::flowcontrol::metrics::{FlowMetrics, RequestKind, SchemaMetrics};
use crate::flowcontrol::queues::Work;
use crate::flowcontrol::shares::{self, SEATS_MAX};
use crate::http::request_info::RequestInfo;
use crate::user::UserInfo;

/// The name of the schema and the level for what matches nothing.
const CATCH_ALL: &str = "catch-all";

/// A schema, the level of its requests, and what it counts.
#[derive(Debug)]
struct Schema {
    level: Arc<Level>,
    /// The uids of schema and level, where the store has objects for them.
    uids: [Option<HeaderValue>; 2],
    metrics: Arc<SchemaMetrics>,
}

/// What requests are classified with.
#[derive(Debug, Default)]
struct Table {
    configuration: Configuration,
    index: Index,
    /// In the order of the configuration's.
    schemas: Vec<Schema>,
    levels: Arc<Vec<Arc<Level>>>,
}

/// Flow control of this server.
#[derive(Debug)]
pub struct FlowControl {
    table: RwLock<Arc<Table>>,
    levels: Arc<Levels>,
    metrics: FlowMetrics,
    server_seats: u32,
    /// Strangers cannot choose names that share a hand of queues.
    hasher: RandomState,
}

/// The schema and level of a request.
#[derive(Clone, Debug)]
pub struct Class {
    table: Arc<Table>,
    position: usize,
    flow: u64,
}

// === impl FlowControl ===

impl FlowControl {
    /// With the mandatory objects, until [`FlowControl::configure`] brings others. `limits`: requests in flight that read, and that
    /// change something.
    pub fn new(limits: [usize; 2], in_flight: IntGaugeVec) -> FlowControl {
        let seats = limits[0].saturating_add(limits[1]);
        let control = FlowControl {
            table: RwLock::default(),
            levels: Arc::default(),
            metrics: FlowMetrics::new(in_flight, limits),
            server_seats: u32::try_from(seats).unwrap_or(SEATS_MAX).clamp(1, SEATS_MAX),
            hasher: RandomState::new(),
        };
        control.configure(Configuration::of(std::iter::empty(), std::iter::empty()));
        control
    }

    /// Shows its metrics in `registry`.
    pub fn register(&self, registry: &Registry) {
        self.metrics.register(registry);
        registry.register(Box::new(LevelCollector::new(self.levels.clone()))).expect("invariant: registered once");
    }

    /// The level of a request.
    pub fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Option<Class> {
        let table = self.table.read().clone();
        let schemas = &table.configuration.schemas;
        let found = table.index.find(schemas, user, info);
        let position = found.or_else(|| schemas.iter().position(|schema| schema.name == CATCH_ALL))?;
        let schema = schemas.get(position)?;
        let flow = self.hasher.hash_one((&schema.name, distinguish(schema, user, info)));
        Some(Class { table, position, flow })
    }

    /// Takes over another configuration. Called by one task.
    pub fn configure(&self, configuration: Configuration) {
        let old = self.table.read().clone();
        if old.configuration == configuration {
            return;
        }
        let all: Vec<_> = configuration.levels.iter().map(|level| level.share).collect();
        let bounds = shares::nominal(&all, self.server_seats);
        let known = |name: &str| old.levels.iter().find(|level| level.name == name).cloned();
        let make = |(spec, bounds): (&LevelSpec, shares::Bounds)| match known(&spec.name) {
            Some(level) => {
                level.configure(spec.clone(), bounds);
                level
            }
            None => Arc::new(Level::new(spec.clone(), bounds)),
        };
        let levels: Arc<Vec<Arc<Level>>> = Arc::new(configuration.levels.iter().zip(bounds).map(make).collect());
        let kept = |schema: &SchemaSpec| {
            let at = old.configuration.schemas.iter().position(|one| one.name == schema.name && one.level == schema.level)?;
            Some(old.schemas.get(at)?.metrics.clone())
        };
        let schema = |schema: &SchemaSpec| {
            let at = configuration.levels.iter().position(|level| level.name == schema.level)?;
            Some(Schema {
                level: levels.get(at)?.clone(),
                uids: [&schema.uid, &configuration.levels.get(at)?.uid].map(|uid| header(uid)),
                metrics: kept(schema).unwrap_or_else(|| Arc::new(self.metrics.schema(&schema.name, &schema.level))),
            })
        };
        // Invariant: each schema has its level, so none is left out here.
        let schemas: Vec<Schema> = configuration.schemas.iter().filter_map(schema).collect();
        let has = |gone: &SchemaSpec| configuration.schemas.iter().any(|one| one.name == gone.name && one.level == gone.level);
        for gone in old.configuration.schemas.iter().filter(|schema| !has(schema)) {
            self.metrics.forget(&gone.name, &gone.level);
        }
        let index = Index::new(&configuration.schemas);
        self.levels.replace(levels.clone());
        *self.table.write() = Arc::new(Table { configuration, index, schemas, levels });
    }

    /// Divides the seats among the levels by what was asked for since the last time.
    pub fn divide(&self) {
        let levels = self.levels.all();
        let demands: Vec<_> = levels
            .iter()
            .map(|level| {
                let demand = level.end_period();
                level.inspect(|state, _| (state.spec.share, state.bounds, demand))
            })
            .collect();
        let (limits, fraction) = shares::by_demand(&demands);
        for (level, limit) in levels.iter().zip(limits) {
            level.set_limit(limit);
        }
        self.levels.set_fraction(fraction);
    }

    /// The levels.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }
}

fn header(uid: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(uid).ok().filter(|uid| !uid.is_empty())
}

// === impl Class ===

impl Class {
    /// The uids of the schema and of the level; none where the store has no object.
    pub fn uids(&self) -> [Option<HeaderValue>; 2] {
        self.table.schemas.get(self.position).map(|schema| schema.uids.clone()).unwrap_or_default()
    }

    /// The names of the schema and of the level.
    pub fn names(&self) -> (&str, &str) {
        self.table.configuration.schemas.get(self.position).map_or(("", ""), |schema| (&schema.name, &schema.level))
    }

    /// The most seats that a request of this level may take.
    pub fn seats_max(&self) -> u32 {
        self.table.schemas.get(self.position).map_or(1, |schema| schema.level.width_max())
    }

    /// Asks for seats. `watchers`: how many watchers the request reaches, if it is a change.
    pub fn enter(&self, work: Work, watchers: Option<usize>, kind: RequestKind) -> Option<Entry> {
        let schema = self.table.schemas.get(self.position)?;
        schema.metrics.estimate(work.width(), watchers);
        Some(schema.level.enter(self.flow, work, kind, &schema.metrics))
    }
}

#[cfg(test)]
mod tests;
