//! `/debug/api_priority_and_fairness/`: what flow control does at this moment, as tables.
//!
//! Names the levels, queues and requests that wait; no user is named. Columns have upstream's names; those that this server has no
//! number for are left out.
//! <https://kubernetes.io/docs/reference/debug-cluster/flow-control/>

use std::fmt::Write as _;

use http::Response;

use crate::flowcontrol::level::State;
use crate::http::respond::{self, Body, path_not_found};
use crate::server::Server;

/// Answers one of the three paths.
pub fn answer(server: &Server, table: &str) -> Response<Body> {
    let Some(control) = &server.flowcontrol else { return path_not_found() };
    let (head, rows): (&str, fn(&mut String, &str, &State)) = match table {
        "dump_priority_levels" => ("PriorityLevelName, ActiveQueues, IsIdle, WaitingRequests, ExecutingRequests, Seats", levels),
        "dump_queues" => ("PriorityLevelName, Index, PendingRequests, ExecutingRequests, NextDispatchR", queues),
        "dump_requests" => ("PriorityLevelName, QueueIndex, RequestIndexInQueue, Seats", requests),
        _ => return path_not_found(),
    };
    let mut text = format!("{head}\n");
    for level in control.levels().all().iter() {
        level.inspect(|state, _| rows(&mut text, &level.name, state));
    }
    respond::text(200, text)
}

fn levels(text: &mut String, name: &str, state: &State) {
    let (executing, waiting) = state.queues.requests();
    let active = state.queues.in_use().filter(|(_, pending, ..)| *pending > 0).count();
    let is_idle = executing == 0 && waiting == 0;
    let _ = writeln!(text, "{name}, {active}, {is_idle}, {waiting}, {executing}, {}", state.limit.seats);
}

fn queues(text: &mut String, name: &str, state: &State) {
    for (index, pending, executing, next) in state.queues.in_use() {
        let _ = writeln!(text, "{name}, {index}, {pending}, {executing}, {next:.6}");
    }
}

fn requests(text: &mut String, name: &str, state: &State) {
    for (queue, at, seats) in state.queues.waiting() {
        let _ = writeln!(text, "{name}, {queue}, {at}, {seats}");
    }
}
