//! Images: whether one must be pulled, with whose credentials, and how long to wait after a failure.
//!
//! Answers to <https://kubernetes.io/docs/concepts/containers/images/>.

pub(crate) mod collector;
pub(crate) mod credentials;
pub(crate) mod inventory;
pub(crate) mod kept;
pub(crate) mod reference;

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use trireme_client::EventKind;
use trireme_proto::cri;

use crate::{
    clock::Clock,
    error::Error,
    events::Events,
    objects::Objects,
    pod::{backoff::Backoff, spec, status::Waiting},
    runtime::Runtime,
};

/// An image that may not be pulled is looked for again after this, as upstream's pod workers do it: an operator may have imported it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How many pulls run at once.
const PARALLEL_PULLS: usize = 3;

struct Failed {
    backoff: Backoff,
    at: Timestamp,
    message: String,
}

/// Pulls images.
pub(crate) struct Images {
    runtime: Arc<dyn Runtime>,
    clock: Clock,
    permits: Semaphore,
    /// By pod UID and image: one pod's broken pull secret does not hold back another pod.
    failed: Mutex<HashMap<(String, String), Failed>>,
}

/// An image that is not there, in the words of a container's status, and when to try again.
pub(crate) struct Missing {
    pub(crate) waiting: Waiting,
    pub(crate) retry_at: Option<Timestamp>,
}

impl Images {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, clock: Clock) -> Images {
        Images { runtime, clock, permits: Semaphore::new(PARALLEL_PULLS), failed: Mutex::default() }
    }

    /// The pod is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.failed.lock().retain(|(holder, _), _| holder != uid);
    }

    /// Whether the runtime has every image that this pod names and need not pull anew. The sandbox's own image has no name here: while
    /// there is no sandbox on this node, it may be missing too.
    pub(crate) async fn has_all(&self, pod: &Pod) -> Result<bool, Error> {
        if self.runtime.list_sandboxes(None).await?.is_empty() {
            return Ok(false);
        }
        for (_, container) in spec::all_containers(pod) {
            // An invalid name is reported when the container is to start.
            let Ok(image) = reference::normalize(container.image.as_deref().unwrap_or_default()) else { continue };
            if self.runtime.image_status(&image).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The image of a container, pulled if its policy says so.
    pub(crate) async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        sandbox: &cri::PodSandboxConfig,
        objects: &Objects,
        events: &Events,
    ) -> Result<cri::Image, Missing> {
        let wanted = container.image.as_deref().unwrap_or_default();
        let missing = |reason: &str, message: String, retry_at: Option<Timestamp>| Missing {
            waiting: Waiting { reason: reason.into(), message },
            retry_at,
        };
        let image = match reference::normalize(wanted) {
            Ok(image) => image,
            Err(why) => {
                let message = format!("Failed to apply default image tag {wanted:?}: couldn't parse image name {wanted:?}: {why}");
                events.container(pod, &container.name, EventKind::Warning, "InspectFailed", &message);
                return Err(missing("InvalidImageName", message, None));
            }
        };
        let failure = |e: Error| {
            missing(
                "ImageInspectError",
                format!("Failed to inspect image {wanted:?}: {e}"),
                Some(self.clock.now_secs() + Duration::from_secs(5)),
            )
        };
        let present = self.runtime.image_status(&image).await.map_err(failure)?;
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        match (present, policy) {
            (Some(present), "Never" | "IfNotPresent") => {
                events.container(
                    pod,
                    &container.name,
                    EventKind::Normal,
                    "Pulled",
                    &format!("Container image {wanted:?} already present on machine"),
                );
                return Ok(present);
            }
            (None, "Never") => {
                let message = format!("Container image {wanted:?} is not present with pull policy of Never");
                events.container(pod, &container.name, EventKind::Warning, "ErrImageNeverPull", &message);
                return Err(missing("ErrImageNeverPull", message, Some(self.clock.now_secs() + LOOK_AGAIN)));
            }
            _ => {}
        }
        let key = (spec::uid(pod).to_string(), image.clone());
        let held = self
            .failed
            .lock()
            .get(&key)
            .and_then(|f| f.backoff.waiting(f.at, self.clock.now_secs()).map(|(_, until)| (until, f.message.clone())));
        if let Some((until, before)) = held {
            let message = format!("Back-off pulling image {wanted:?}");
            events.container(pod, &container.name, EventKind::Normal, "BackOff", &message);
            return Err(missing("ImagePullBackOff", format!("{message}: {before}"), Some(until)));
        }
        match self.pull(pod, container, &image, sandbox, objects, events).await {
            Ok(pulled) => {
                self.failed.lock().remove(&key);
                Ok(pulled)
            }
            Err(error) => {
                let now = self.clock.now_secs();
                let message = error.to_string();
                events.container(
                    pod,
                    &container.name,
                    EventKind::Warning,
                    "Failed",
                    &format!("Failed to pull image {wanted:?}: {message}"),
                );
                let mut failed = self.failed.lock();
                let entry = failed.entry(key).or_insert(Failed { backoff: Backoff::default(), at: now, message: String::new() });
                let before = entry.at;
                entry.backoff.retried(before, now);
                entry.at = now;
                entry.message = format!("ErrImagePull: {message}");
                let retry_at = entry.backoff.waiting(now, now).map(|(_, until)| until);
                // The status turns to ImagePullBackOff as soon as it is looked at again.
                Err(missing("ErrImagePull", message, retry_at.map(|_| now + Duration::from_secs(1))))
            }
        }
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        image: &str,
        sandbox: &cri::PodSandboxConfig,
        objects: &Objects,
        events: &Events,
    ) -> Result<cri::Image, Error> {
        let wanted = container.image.as_deref().unwrap_or_default();
        let queued = tokio::time::Instant::now();
        let _permit = self.permits.acquire().await.map_err(|_| Error::Config("the kubelet is stopping".into()))?;
        events.container(pod, &container.name, EventKind::Normal, "Pulling", &format!("Pulling image {wanted:?}"));
        let started = tokio::time::Instant::now();
        let credentials = credentials::of(pod, image, objects).await;
        let pulled = self.pull_with(credentials, image, sandbox).await?;
        let status = match self.runtime.image_status(&pulled).await? {
            Some(status) => status,
            None => self
                .runtime
                .image_status(image)
                .await?
                .ok_or_else(|| Error::Config(format!("the runtime lost image {pulled:?} after pulling it")))?,
        };
        let (took, waited) = (started.elapsed(), queued.elapsed());
        let text = format!(
            "Successfully pulled image {wanted:?} in {} ({} including waiting). Image size: {} bytes.",
            seconds(took),
            seconds(waited),
            status.size
        );
        events.container(pod, &container.name, EventKind::Normal, "Pulled", &text);
        Ok(status)
    }

    /// Tries each of the credentials until one is accepted. Without credentials only where there are none, or a wrong password would be
    /// reported as a missing one.
    async fn pull_with(&self, credentials: Vec<cri::AuthConfig>, image: &str, sandbox: &cri::PodSandboxConfig) -> Result<String, Error> {
        if credentials.is_empty() {
            return self.runtime.pull_image(image, None, Some(sandbox.clone())).await;
        }
        let mut refusals = Vec::new();
        for auth in credentials {
            match self.runtime.pull_image(image, Some(auth), Some(sandbox.clone())).await {
                Ok(pulled) => return Ok(pulled),
                Err(error) => refusals.push(error),
            }
        }
        if refusals.len() > 1 {
            let all: Vec<String> = refusals.iter().map(ToString::to_string).collect();
            return Err(Error::Config(format!("[{}]", all.join(", "))));
        }
        Err(refusals.pop().unwrap_or_else(|| Error::Config("no attempt was made".into())))
    }
}

/// `1.234s`, `56ms`: as Go prints a duration rounded to milliseconds.
fn seconds(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 { format!("{millis}ms") } else { format!("{}s", millis as f64 / 1000.0) }
}
