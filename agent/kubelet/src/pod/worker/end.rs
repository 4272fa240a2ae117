//! Takes a pod down, and removes the attempts of a living one that no request can name any more.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use trireme_client::DeleteOptions;

use super::{Desired, Next, Worker};
use crate::{
    clock::blocking,
    container::sandbox,
    error::Result,
    pod::{
        kill,
        observed::{Observed, State},
        spec,
    },
    volume,
};

/// A dead pod's last processes take a moment to go.
const REMOVE_TRIES: u32 = 40;
const REMOVE_PAUSE: Duration = Duration::from_millis(50);

impl Worker {
    /// Stops what runs, says so, and gives everything back; done when the object is gone.
    pub(super) async fn end(&mut self, desired: &Desired) -> Result<Next> {
        let pod = &desired.pod;
        self.probes.stop();
        let observed = self.observe(pod).await?;
        if observed.is_anything_running() {
            // A second, shorter grace period cuts the first one short.
            let asked = spec::grace_period_secs(pod);
            let grace = self.verdict.as_ref().map_or(asked, |verdict| verdict.grace_secs(asked));
            let core = self.core.clone();
            tokio::select! {
                result = kill::kill_pod(&core, pod, &observed, None, grace) => result?,
                () = shorter(self.desired.clone(), grace) => return Ok(Next::At(Some(self.core.now()))),
            }
        }
        let observed = self.observe(pod).await?;
        if observed.is_anything_running() {
            return Ok(Next::At(Some(self.core.now() + SignedDuration::from_secs(1))));
        }
        if !desired.gone {
            self.report(pod, &observed, true).await?;
        }
        self.release(pod).await?;
        if desired.gone {
            self.erase(pod, &observed).await?;
            return Ok(Next::Done);
        }
        if spec::is_deleted(pod) {
            let options = DeleteOptions::uid(self.uid.clone()).grace_period_secs(0);
            match self.core.client.delete::<Pod>(Some(spec::namespace(pod)), spec::name(pod), &options).await {
                Err(e) if !e.is_not_found() && !e.is_conflict() => return Err(e.into()),
                _ => {}
            }
        }
        Ok(Next::At(None))
    }

    /// Gives back what a stopped pod no longer needs; its dead containers and logs stay until the object is gone.
    pub(super) async fn release(&mut self, pod: &Pod) -> Result<()> {
        if self.torn_down {
            return Ok(());
        }
        let pod_dir = self.core.options.pod_dir(&self.uid);
        self.core.csi.release_pod(&self.uid).await?;
        blocking(|| volume::unmount(&pod_dir))?;
        let mut tries = 0;
        while let Err(error) = blocking(|| self.core.cgroups.remove_pod(&self.uid)) {
            tries += 1;
            if tries == REMOVE_TRIES {
                return Err(error);
            }
            tokio::time::sleep(REMOVE_PAUSE).await;
        }
        self.core.devices.release(&self.uid);
        self.core.objects.release(&self.uid);
        self.core.tokens.forget(&self.uid);
        self.core.images.forget(&self.uid);
        tracing::debug!(pod = spec::display(pod), "pod released");
        self.torn_down = true;
        Ok(())
    }

    /// Removes the last traces.
    async fn erase(&self, pod: &Pod, observed: &Observed) -> Result<()> {
        for run in &observed.containers {
            self.core.runtime.remove_container(&run.id).await?;
        }
        for sandbox in &observed.sandboxes {
            self.core.runtime.stop_sandbox(&sandbox.id).await?;
            self.core.runtime.remove_sandbox(&sandbox.id).await?;
        }
        let pod_dir = self.core.options.pod_dir(&self.uid);
        blocking(|| volume::tear_down(&pod_dir))?;
        let logs = sandbox::log_directory(pod, &self.core.options);
        match tokio::fs::remove_dir_all(&logs).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(error = %e, logs = %logs.display(), "cannot remove a pod's logs")
            }
            _ => {}
        }
        Ok(())
    }

    /// Removes attempts that no request can name any more: one ended run is kept for each container.
    pub(super) async fn sweep(&self, observed: &Observed) {
        let newest = observed.sandboxes.first().map(|s| s.id.as_str());
        for run in observed.containers.iter().filter(|c| c.state == State::Exited) {
            let latest = observed.latest(&run.name).is_some_and(|l| l.id == run.id);
            let before =
                observed.latest(&run.name).and_then(|l| observed.last_exited(&run.name, Some(&l.id))).is_some_and(|b| b.id == run.id);
            if !latest && !before {
                if let Err(error) = self.core.runtime.remove_container(&run.id).await {
                    tracing::debug!(%error, container = run.id, "cannot remove an old container");
                }
                let _ = tokio::fs::remove_file(&run.log_path).await;
            }
        }
        for old in observed.sandboxes.iter().filter(|s| !s.ready && Some(s.id.as_str()) != newest) {
            if !observed.containers.iter().any(|c| c.sandbox_id == old.id) {
                let _ = self.core.runtime.remove_sandbox(&old.id).await;
            }
        }
    }
}

/// Returns when a shorter grace period is given.
async fn shorter(mut desired: watch::Receiver<Desired>, than: i64) {
    if desired.wait_for(|d| spec::grace_period_secs(&d.pod) < than).await.is_err() {
        std::future::pending::<()>().await;
    }
}
