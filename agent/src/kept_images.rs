//! Joins the kubelet, which collects unused images, and the import of tarballs, which knows those that must stay.

use std::{collections::BTreeSet, path::PathBuf};

use futures::{FutureExt, future::BoxFuture};

/// The images that came from tarballs into the runtime with this socket.
pub(crate) struct ImportedImages(pub(crate) PathBuf);

impl trireme_kubelet::KeptImages for ImportedImages {
    fn names(&self) -> BoxFuture<'_, Result<BTreeSet<String>, String>> {
        async { trireme_images::pinned(self.0.clone()).await.map_err(|error| error.to_string()) }.boxed()
    }
}
