//! The cells of a pod. Its status in one word names the container that keeps it from running, and the reason.

use serde_json::{Value, json};

use crate::kinds::text::{NONE, condition};
use crate::meta;
use crate::resource::Cells;

/// Ready, Status, Restarts, Age, IP, Node, Nominated Node, Readiness Gates.
pub(crate) fn pod(cells: &Cells<'_>) -> Vec<Value> {
    let story = Story::of(cells);
    let restarts = match (story.restarts, story.last_restart) {
        (count, Some(time)) if count != 0 => format!("{count} ({} ago)", cells.since(time)),
        (count, _) => count.to_string(),
    };
    let first_ip = cells.list(&["status", "podIPs"]).first().map(|entry| entry["ip"].as_str().unwrap_or_default());
    let ip = first_ip.filter(|ip| !ip.is_empty()).unwrap_or(cells.text(&["status", "podIP"]));
    vec![
        json!(format!("{}/{}", story.ready, story.total)),
        json!(story.reason),
        json!(restarts),
        cells.age(),
        json!(if ip.is_empty() { NONE } else { ip }),
        cells.text_or(&["spec", "nodeName"], NONE),
        cells.text_or(&["status", "nominatedNodeName"], NONE),
        json!(readiness_gates(cells)),
    ]
}

fn readiness_gates(cells: &Cells<'_>) -> String {
    let gates = cells.list(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| {
            let kind = gate["conditionType"].as_str().unwrap_or_default();
            condition(cells.object, kind).is_some_and(|condition| condition["status"] == "True")
        })
        .count();
    format!("{open}/{}", gates.len())
}

/// What is known of a pod's containers.
struct Story<'a> {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<&'a str>,
}

impl<'a> Story<'a> {
    fn of(cells: &Cells<'a>) -> Story<'a> {
        let sidecars = cells.list(&["spec", "initContainers"]).iter().filter(|container| is_sidecar(container)).count();
        let reason = match cells.text(&["status", "reason"]) {
            "" => cells.text(&["status", "phase"]),
            reason => reason,
        };
        let mut story = Story {
            reason: reason.to_owned(),
            ready: 0,
            total: cells.list(&["spec", "containers"]).len() + sidecars,
            restarts: 0,
            last_restart: None,
        };
        let gated = |condition: &&Value| condition["reason"] == "SchedulingGated";
        if condition(cells.object, "PodScheduled").filter(gated).is_some() {
            story.reason = "SchedulingGated".to_owned();
        }
        let (waiting, sidecar_restarts, sidecar_last) = story.init_containers(cells);
        let initialized = condition(cells.object, "Initialized").is_some_and(|condition| condition["status"] == "True");
        if !waiting || initialized {
            story.restarts = sidecar_restarts;
            story.last_restart = sidecar_last;
            story.containers(cells);
        }
        if meta::deletion_timestamp(cells.object).is_some() {
            if cells.text(&["status", "reason"]) == "NodeLost" {
                story.reason = "Unknown".to_owned();
            } else if !matches!(cells.text(&["status", "phase"]), "Succeeded" | "Failed") {
                story.reason = "Terminating".to_owned();
            }
        }
        story
    }

    /// Init containers run one after another: the first that isn't done is the story. Returns whether there was one,
    /// and the restarts of sidecars.
    fn init_containers(&mut self, cells: &Cells<'a>) -> (bool, i64, Option<&'a str>) {
        let specs = cells.list(&["spec", "initContainers"]);
        let (mut restarts, mut last) = (0, None);
        for (index, status) in cells.list(&["status", "initContainerStatuses"]).iter().enumerate() {
            let sidecar = specs.iter().any(|spec| spec["name"] == status["name"] && is_sidecar(spec));
            self.count_restarts(status);
            if sidecar {
                restarts += status["restartCount"].as_i64().unwrap_or(0);
                last = later(last, finished(status));
            }
            let state = &status["state"];
            let terminated = state.get("terminated").filter(|state| !state.is_null());
            if terminated.is_some_and(|state| state["exitCode"].as_i64().unwrap_or(0) == 0) {
                continue;
            }
            if sidecar && status["started"] == Value::Bool(true) {
                self.ready += usize::from(status["ready"] == Value::Bool(true));
                continue;
            }
            let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
            self.reason = match terminated {
                Some(state) => format!("Init:{}", ending(state)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{index}/{}", specs.len()),
            };
            return (true, restarts, last);
        }
        (false, restarts, last)
    }

    fn containers(&mut self, cells: &Cells<'a>) {
        let mut running = false;
        for status in cells.list(&["status", "containerStatuses"]).iter().rev() {
            self.count_restarts(status);
            let state = &status["state"];
            let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
            let terminated = state.get("terminated").filter(|state| !state.is_null());
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(state) = terminated {
                self.reason = ending(state);
            } else if status["ready"] == Value::Bool(true) && state["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        // One container is done and another still runs: the pod as a whole isn't completed.
        if self.reason == "Completed" && running {
            let ready = condition(cells.object, "Ready").is_some_and(|condition| condition["status"] == "True");
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn count_restarts(&mut self, status: &'a Value) {
        self.restarts += status["restartCount"].as_i64().unwrap_or(0);
        self.last_restart = later(self.last_restart, finished(status));
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn finished(status: &Value) -> Option<&str> {
    status["lastState"]["terminated"]["finishedAt"].as_str()
}

fn later<'a>(a: Option<&'a str>, b: Option<&'a str>) -> Option<&'a str> {
    let time = |text: Option<&str>| text.and_then(crate::time::parse);
    if time(b) > time(a) { b } else { a }
}

/// Why a container ended.
fn ending(state: &Value) -> String {
    match state["reason"].as_str().unwrap_or_default() {
        "" => match state["signal"].as_i64().unwrap_or(0) {
            0 => format!("ExitCode:{}", state["exitCode"].as_i64().unwrap_or(0)),
            signal => format!("Signal:{signal}"),
        },
        reason => reason.to_owned(),
    }
}
