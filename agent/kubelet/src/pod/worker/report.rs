//! Writes the pod's status.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use trireme_client::Patch;

use super::Worker;
use crate::{
    error::Result,
    pod::{
        holds::Hold,
        observed::Observed,
        spec,
        status::{self, Facts},
        status_patch,
    },
};

const RETRY_STATUS: SignedDuration = SignedDuration::from_secs(2);

impl Worker {
    /// Writes the status if it differs from what the API server has.
    pub(super) async fn report(&mut self, pod: &Pod, observed: &Observed, terminated: bool) -> Result<()> {
        let host_ips = self.core.host_ips();
        let mut basis = pod.clone();
        // Our own last write may be newer than what the watch has brought so far.
        if let Some((_, reported)) = self.reported.as_ref().filter(|(revision, _)| *revision > revision_of(pod)) {
            basis.status = Some(reported.clone());
        }
        let health = self.probes.health();
        let facts = Facts {
            pod: &basis,
            observed,
            health: &health,
            waiting: &self.waiting,
            resizing: &self.resizing,
            terminated,
            verdict: self.verdict.as_ref(),
            host_ips: &host_ips,
            now: self.core.now(),
        };
        let mut fresh = status::status(&facts);
        self.core.devices.show_health(&self.uid, &mut fresh);
        self.holds.lift(&Hold::Status);
        // The mirror of a static pod may not be there yet: its event wakes this worker.
        let Some(uid) = self.core.pods.uid_at_server(pod) else { return Ok(()) };
        let Some(patch) = status_patch::patch(&uid, basis.status.as_ref(), &fresh) else { return Ok(()) };
        match self.core.client.patch_status::<Pod>(Some(spec::namespace(pod)), spec::name(pod), &Patch::Strategic(patch)).await {
            Ok(stored) => {
                self.reported = stored.status.clone().map(|status| (revision_of(&stored), status));
                Ok(())
            }
            // Gone, or another pod of that name: the watch will tell.
            Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
            Err(e) => {
                if terminated {
                    return Err(e.into());
                }
                tracing::info!(pod = spec::display(pod), error = %e, "pod status not written, will be retried");
                self.holds.set(Hold::Status, self.core.now() + RETRY_STATUS);
                Ok(())
            }
        }
    }
}

fn revision_of(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
}
