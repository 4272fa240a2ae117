//! A pod's volumes on this host: made before its containers, kept fresh while it runs, taken away after it.
//!
//! Paths are deterministic (`pods/<uid>/volumes/<plugin>/<name>`, upstream's layout) and setting up is idempotent, so a restarted
//! agent finds what it made: the directories on disk record which volumes must be torn down. Each kind of volume is a [`Plugin`].
//! Answers to <https://kubernetes.io/docs/concepts/storage/volumes/>.

mod claim;
pub(crate) mod content;
mod csi;
mod emptydir;
mod hostpath;
pub(crate) mod local;
pub(crate) mod mounts;
pub(crate) mod ownership;
pub(crate) mod plugin;
mod plugins;
pub(crate) mod subpath;
mod teardown;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

pub(crate) use plugin::{Context, Mounted};
pub(crate) use teardown::{tear_down, unmount};

use crate::{
    error::{Error, Result},
    pod::spec,
};

/// The outcome for a whole pod.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) mounted: BTreeMap<String, Mounted>,
    /// When the first volume has to be set up again.
    pub(crate) refresh_at: Option<Timestamp>,
}

/// Which volume could not be set up, and why.
pub(crate) struct Failure {
    pub(crate) volume: String,
    pub(crate) error: Error,
}

/// Makes or refreshes all volumes of a pod.
pub(crate) async fn set_up(context: &Context<'_>) -> Result<Prepared, Failure> {
    let mut prepared = Prepared::default();
    for volume in spec::pod_spec(context.pod).volumes.iter().flatten() {
        let failed = |error: Error| Failure { volume: volume.name.clone(), error };
        let plugin = plugins::of(volume).ok_or_else(|| {
            let kind = plugins::kind(volume);
            failed(Error::Config(format!("volume {:?} is of a type that this node does not support yet ({kind})", volume.name)))
        })?;
        let path = context.pod_dir.join("volumes").join(plugin.directory()).join(&volume.name);
        let ready = plugin.set_up(volume, path, context).await.map_err(failed)?;
        prepared.mounted.insert(volume.name.clone(), ready.mounted);
        prepared.refresh_at = [prepared.refresh_at, ready.refresh_at].into_iter().flatten().min();
    }
    Ok(prepared)
}

/// True when a change of a ConfigMap, a Secret or the pod itself has to reach the pod's files.
pub(crate) fn follows_objects(pod: &Pod) -> bool {
    let volumes = spec::pod_spec(pod).volumes.iter().flatten();
    volumes.filter_map(plugins::of).any(|plugin| plugin.follows_objects())
}
