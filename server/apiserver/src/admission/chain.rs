//! The admission plugins in their order: the registry's [`Admission`].

use std::time::Instant;

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::status::Status;

use super::effects::Effects;
use super::metrics::AdmissionMetrics;
use super::plugin::{Phase, Plugin};
use super::request::AdmissionRequest;
use crate::admission::{Admission, Removed};
use crate::error::Answer;

/// An ordered list of plugins.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
    metrics: AdmissionMetrics,
}

// === impl Chain ===

impl Chain {
    /// Runs `plugins` in this order.
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Chain {
        Chain { plugins, metrics: AdmissionMetrics::new() }
    }

    /// The plugins' names, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.plugins.iter().map(|plugin| plugin.name()).collect()
    }

    /// What it counts.
    pub fn metrics(&self) -> &AdmissionMetrics {
        &self.metrics
    }

    fn of(&self, phase: Phase, request: &AdmissionRequest) -> Vec<&dyn Plugin> {
        self.plugins.iter().map(|plugin| &**plugin).filter(|p| p.phases().contains(&phase) && p.handles(request)).collect()
    }

    async fn run_mutating(&self, request: &mut AdmissionRequest) -> Answer<Effects> {
        let (started, operation) = (Instant::now(), request.operation);
        let outcome = self.mutate(request).await;
        self.metrics.step(Phase::Admit, operation, started.elapsed(), outcome.is_err());
        let mut effects = outcome?;
        if effects.wants_reinvocation() {
            // The object may have changed since the first round: its conditions and operations are discarded and computed again.
            let warnings = effects.take_warnings();
            request.webhooks.begin_second();
            request.policies.begin_second();
            effects = self.mutate(request).await?;
            warnings.into_iter().for_each(|text| effects.warn(text));
        }
        Ok(effects)
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Answer<Effects> {
        let mut effects = Effects::default();
        for plugin in self.of(Phase::Admit, request) {
            refuse_side_effects(plugin, request)?;
            let started = Instant::now();
            let outcome = plugin.admit(request, &mut effects).await;
            self.metrics.plugin(plugin.name(), Phase::Admit, request.operation, started.elapsed(), outcome.is_err());
            outcome?;
        }
        Ok(effects)
    }

    async fn run_validating(&self, request: &AdmissionRequest, effects: &mut Effects) -> Answer<()> {
        let started = Instant::now();
        let outcome = self.judge(request, effects).await;
        self.metrics.step(Phase::Validate, request.operation, started.elapsed(), outcome.is_err());
        outcome
    }

    async fn judge(&self, request: &AdmissionRequest, effects: &mut Effects) -> Answer<()> {
        for plugin in self.of(Phase::Validate, request) {
            refuse_side_effects(plugin, request)?;
            let started = Instant::now();
            let outcome = plugin.validate(request, effects).await;
            self.metrics.plugin(plugin.name(), Phase::Validate, request.operation, started.elapsed(), outcome.is_err());
            outcome?;
        }
        Ok(())
    }
}

fn refuse_side_effects(plugin: &dyn Plugin, request: &AdmissionRequest) -> Answer<()> {
    if request.dry_run && plugin.has_side_effects() {
        return Err(Status::bad_request(format!("admission plugin {} does not support dry run", plugin.name())).into());
    }
    Ok(())
}

impl Admission for Chain {
    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> BoxFuture<'a, Answer<Effects>> {
        Box::pin(self.run_mutating(request))
    }

    fn allocate(&self, request: &mut AdmissionRequest, effects: &mut Effects) -> Answer<()> {
        self.of(Phase::Allocate, request).into_iter().try_for_each(|plugin| plugin.allocate(request, effects))
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.run_validating(request, effects))
    }

    fn release(&self, removed: Removed<'_>, object: &Value, effects: &mut Effects) {
        self.plugins.iter().for_each(|plugin| plugin.release(removed, object, effects));
    }
}
