//! CronJobs.

use serde_json::{Value, json};

use super::job_spec::job_spec;
use super::schedule;
use crate::default::{Lit::*, Set, fill};
use crate::kinds::core::pod;
use crate::kinds::text::{NONE, containers, flag};
use crate::kinds::workload::{self, selector_of};
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, NameRule};

const CRON_JOB: &[Set] = &[
    Set("spec", "concurrencyPolicy", S("Allow")),
    Set("spec", "suspend", B(false)),
    Set("spec", "successfulJobsHistoryLimit", I(3)),
    Set("spec", "failedJobsHistoryLimit", I(1)),
];

/// Jobs at fixed times.
pub(crate) struct CronJob;

impl Kind for CronJob {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "names of time zones are believed within a known area"
    }

    fn name_rule(&self) -> NameRule {
        cron_job_name
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(
            object,
            &[
                Set("", "spec", Obj),
                Set("spec", "jobTemplate", Obj),
                Set("spec.jobTemplate", "metadata", Obj),
                Set("spec.jobTemplate", "spec", Obj),
                Set("", "status", Obj),
            ],
        );
        pod::default::template(object, "spec.jobTemplate.spec.template");
        fill(object, CRON_JOB);
    }

    fn validate_create(&self, object: &At<'_>) {
        cron_job(object, None);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        cron_job(object, Some(old));
    }

    fn validate_status(&self, object: &At<'_>, _old: &At<'_>) {
        workload::status(object);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() {
            pod::warnings::host_name(object, &mut warnings);
        }
        warnings.extend(pod::warnings::template(object, old, "spec.jobTemplate.spec.template"));
        warnings
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Schedule|Timezone|Suspend:b|Active:i|Last Schedule|Age|+Containers|+Images|+Selector")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let last = match cells.text(&["status", "lastScheduleTime"]) {
            "" => NONE.to_owned(),
            time => cells.since(time),
        };
        let mut row = vec![
            cells.name(),
            json!(cells.text(&["spec", "schedule"])),
            cells.text_or(&["spec", "timeZone"], NONE),
            json!(flag(cells.at(&["spec", "suspend"]))),
            json!(cells.list(&["status", "active"]).len()),
            json!(last),
            cells.age(),
        ];
        row.extend(containers(cells.list(&["spec", "jobTemplate", "spec", "template", "spec", "containers"])));
        row.push(json!(selector_of(cells.at(&["spec", "jobTemplate", "spec", "selector"]))));
        row
    }
}

fn cron_job(object: &At<'_>, old: Option<&At<'_>>) {
    let spec = object.at("spec");
    let schedule = spec.at("schedule");
    let changed = old.is_none_or(|old| old.at("spec").at("schedule").value != schedule.value);
    if schedule.text().is_empty() {
        schedule.required("");
    } else {
        if let Err(message) = schedule::parse(schedule.text()) {
            schedule.invalid(message);
        }
        if changed && schedule.text().contains("TZ") {
            schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
    }
    spec.at("startingDeadlineSeconds").non_negative();
    let zone = spec.at("timeZone");
    if zone.is_set() {
        schedule::time_zone(&zone);
    }
    spec.at("concurrencyPolicy").one_of(&["Allow", "Forbid", "Replace"]);
    spec.at("successfulJobsHistoryLimit").non_negative();
    spec.at("failedJobsHistoryLimit").non_negative();
    let template = spec.at("jobTemplate").at("spec");
    job_spec(&template);
    if template.at("selector").is_set() {
        template.at("selector").invalid("`selector` will be auto-generated");
    }
    if template.at("manualSelector").flag() {
        template.at("manualSelector").not_supported(&["nil", "false"]);
    }
}

/// Eleven characters are left for the suffix of the Jobs.
fn cron_job_name(name: &str) -> Vec<String> {
    let mut messages = crate::names::is_dns1123_subdomain(name);
    if name.len() > 52 {
        messages.push("must be no more than 52 characters".to_owned());
    }
    messages
}
