//! What the runtime has of one pod, read from its lists, labels and annotations.

use std::collections::HashMap;

use jiff::Timestamp;
use trireme_proto::cri;

use crate::{
    error::Result,
    runtime::{Runtime, keys},
};

/// A container's state as the runtime tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

impl From<i32> for State {
    fn from(value: i32) -> State {
        match cri::ContainerState::try_from(value) {
            Ok(cri::ContainerState::ContainerCreated) => State::Created,
            Ok(cri::ContainerState::ContainerRunning) => State::Running,
            Ok(cri::ContainerState::ContainerExited) => State::Exited,
            _ => State::Unknown,
        }
    }
}

/// One attempt at running one container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContainerRun {
    pub(crate) id: String,
    pub(crate) sandbox_id: String,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) state: State,
    pub(crate) hash: String,
    pub(crate) image: String,
    pub(crate) image_ref: String,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) log_path: String,
}

#[cfg(test)]
impl ContainerRun {
    /// A run for tests, in sandbox `s0` and of no particular image.
    pub(crate) fn sample(id: &str, name: &str, state: State, at: Timestamp) -> ContainerRun {
        ContainerRun {
            id: id.into(),
            sandbox_id: "s0".into(),
            name: name.into(),
            attempt: 0,
            state,
            hash: String::new(),
            image: "i".into(),
            image_ref: "sha256:1".into(),
            created_at: at,
            started_at: None,
            finished_at: Some(at),
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            log_path: String::new(),
        }
    }
}

/// One attempt at the pod's sandbox.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) ready: bool,
    /// The pod's addresses; empty for pods on the host's network.
    pub(crate) ips: Vec<String>,
}

/// All of one pod in the runtime, newest attempts first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Observed {
    pub(crate) sandboxes: Vec<Sandbox>,
    pub(crate) containers: Vec<ContainerRun>,
}

impl Observed {
    /// The newest attempt of a container.
    pub(crate) fn latest(&self, name: &str) -> Option<&ContainerRun> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest attempt that has ended, before `than` if given.
    pub(crate) fn last_exited(&self, name: &str, than: Option<&str>) -> Option<&ContainerRun> {
        self.containers.iter().find(|c| c.name == name && c.state == State::Exited && Some(c.id.as_str()) != than)
    }

    /// The newest sandbox, if it is ready.
    pub(crate) fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|s| s.ready)
    }

    pub(crate) fn is_anything_running(&self) -> bool {
        self.sandboxes.iter().any(|s| s.ready)
            || self.containers.iter().any(|c| matches!(c.state, State::Running | State::Created | State::Unknown))
    }
}

/// Reads pods from the runtime and remembers what cannot change any more, so that a look at a quiet pod costs two small calls.
#[derive(Default)]
pub(crate) struct Observer {
    runs: HashMap<String, ContainerRun>,
    ips: HashMap<String, Vec<String>>,
}

impl Observer {
    /// The pod with this UID as the runtime has it now.
    pub(crate) async fn observe(&mut self, runtime: &dyn Runtime, uid: &str) -> Result<Observed> {
        let mut observed = Observed::default();
        for sandbox in runtime.list_sandboxes(Some(uid)).await? {
            let ready = sandbox.state == cri::PodSandboxState::SandboxReady as i32;
            let ips = match self.ips.get(&sandbox.id) {
                Some(ips) => ips.clone(),
                None if ready => {
                    let network = runtime.sandbox_status(&sandbox.id).await?.network.unwrap_or_default();
                    let ips: Vec<String> = std::iter::once(network.ip)
                        .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
                        .filter(|ip| !ip.is_empty())
                        .collect();
                    self.ips.insert(sandbox.id.clone(), ips.clone());
                    ips
                }
                None => Vec::new(),
            };
            observed.sandboxes.push(Sandbox {
                attempt: sandbox.metadata.map(|m| m.attempt).unwrap_or_default(),
                id: sandbox.id,
                ready,
                ips,
            });
        }
        for listed in runtime.list_containers(Some(uid)).await? {
            let state = State::from(listed.state);
            let run = match self.runs.get(&listed.id) {
                Some(run) if run.state == state && state != State::Unknown => run.clone(),
                _ => match runtime.container_status(&listed.id).await {
                    Ok(status) => {
                        let run = run_of(listed, status);
                        self.runs.insert(run.id.clone(), run.clone());
                        run
                    }
                    Err(e) if e.is_runtime_not_found() => continue,
                    Err(e) => return Err(e),
                },
            };
            observed.containers.push(run);
        }
        observed.sandboxes.sort_by_key(|s| std::cmp::Reverse(s.attempt));
        observed.containers.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
        self.runs.retain(|id, _| observed.containers.iter().any(|c| &c.id == id));
        self.ips.retain(|id, _| observed.sandboxes.iter().any(|s| &s.id == id));
        Ok(observed)
    }
}

fn run_of(listed: cri::Container, status: cri::ContainerStatus) -> ContainerRun {
    let annotation = |key: &str| listed.annotations.get(key).cloned().unwrap_or_default();
    let metadata = listed.metadata.clone().unwrap_or_default();
    let time = |nanos: i64| (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten();
    ContainerRun {
        name: listed.labels.get(keys::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        attempt: annotation(keys::RESTART_COUNT).parse().unwrap_or(metadata.attempt),
        hash: annotation(keys::HASH),
        sandbox_id: listed.pod_sandbox_id,
        state: State::from(status.state),
        image: status.image.map(|i| i.image).filter(|i| !i.is_empty()).or(listed.image.map(|i| i.image)).unwrap_or_default(),
        image_ref: if status.image_ref.is_empty() { listed.image_ref } else { status.image_ref },
        created_at: time(status.created_at).unwrap_or_default(),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        log_path: status.log_path,
        id: status.id,
    }
}
