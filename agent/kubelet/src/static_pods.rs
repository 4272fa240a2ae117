//! Static pods: pods that this node runs because a file in its folder of manifests says so, whatever the API server says.
//!
//! Owns the folder and the mirror pods by which the API server shows static pods. Their workers are those of any pod: `pods` starts and ends
//! them. Must not: make a static pod depend on the API server. What refers to objects there is refused with the manifest.
//!
//! Answers to <https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/>.

mod folder;
mod manifest;
mod mirror;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;

use crate::{core::Core, pod::spec, pods::Pods};
use folder::{Folder, Manifest};

pub(crate) use mirror::{is_mirror, is_mirror_of};

/// Files that are written one after the other are read together.
const SETTLE: Duration = Duration::from_millis(100);

/// Follows the folder until cancelled.
pub(crate) async fn follow(core: Arc<Core>, pods: Arc<Pods>) {
    let directory = core.options.static_pods_dir.clone();
    let folder = match Folder::open(&directory) {
        Ok(folder) => folder,
        Err(error) => return tracing::error!("static pods do not run: {}: {error}", directory.display()),
    };
    let mut known = BTreeMap::new();
    loop {
        let found = folder.read();
        if found != known {
            core.pods.set_statics(pods_of(&core, &found));
            known = found;
            pods.settle_statics();
        }
        folder.changed().await;
        tokio::time::sleep(SETTLE).await;
    }
}

/// Keeps the mirror pods until cancelled. `changed` is told of static pods and of mirrors.
pub(crate) async fn keep_mirrors(core: Arc<Core>, changed: Arc<Notify>) {
    mirror::keep(core, changed).await;
}

/// The pods of the manifests. Of two with one name the file that comes first counts.
fn pods_of(core: &Core, files: &BTreeMap<String, Manifest>) -> Vec<Arc<Pod>> {
    let mut pods: Vec<Arc<Pod>> = Vec::new();
    for (name, file) in files {
        let path = core.options.static_pods_dir.join(name);
        match read(core, &path, file) {
            Ok(pod)
                if pods.iter().any(|other| spec::name(other) == spec::name(&pod) && spec::namespace(other) == spec::namespace(&pod)) =>
            {
                tracing::error!(
                    "{}: another manifest has a pod {} in namespace {}",
                    path.display(),
                    spec::name(&pod),
                    spec::namespace(&pod)
                );
            }
            Ok(pod) => pods.push(Arc::new(pod)),
            Err(why) => tracing::error!("{}: no static pod: {why}", path.display()),
        }
    }
    pods
}

fn read(core: &Core, path: &Path, file: &Manifest) -> Result<Pod, String> {
    match file {
        Manifest::Text(text) => manifest::read(text, path, &core.options.node_name, core.now()),
        Manifest::Unreadable(why) => Err(why.clone()),
    }
}
