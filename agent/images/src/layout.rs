//! From an archive's documents to what the runtime must hold: which images, under which names, of which blobs. Pure.

mod docker;
mod oci;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, archive::Archive};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What to import.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) images: Vec<PlannedImage>,
    /// By digest.
    pub(crate) blobs: BTreeMap<String, Blob>,
}

/// One image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PlannedImage {
    /// Full names.
    pub(crate) names: Vec<String>,
    /// Digest of this machine's configuration: what CRI calls the image's id.
    pub(crate) id: String,
    pub(crate) target: Descriptor,
}

/// One blob.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) source: Source,
    pub(crate) size: u64,
    /// Which other blobs the runtime must keep as long as this one.
    pub(crate) labels: BTreeMap<String, String>,
}

/// Where a blob's content is.
#[derive(Debug)]
pub(crate) enum Source {
    /// The archive's file of this number.
    File(usize),
    /// Here: made by us.
    Made(Bytes),
}

/// What points at a blob.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
}

#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// The architecture of this machine, as images call it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Plans the import of an archive on a machine of this architecture.
pub(crate) fn plan(archive: &Archive, architecture: &str) -> Result<Plan, Error> {
    let mut planner = Planner { archive, architecture, plan: Plan::default() };
    // An archive that is both has the names in its index, or only in docker's manifest.
    if archive.at("index.json").is_some() {
        planner.index()?;
    }
    if planner.plan.images.is_empty() && archive.at("manifest.json").is_some() {
        planner.docker()?;
    }
    if !planner.plan.images.is_empty() {
        return Ok(planner.plan);
    }
    Err(Error::Archive(match archive.at("index.json").or(archive.at("manifest.json")) {
        Some(_) => "no image in it has a name: save it with one (docker save NAME:TAG, or the annotation io.containerd.image.name)".into(),
        None => "it has neither index.json nor manifest.json: this is no image archive".into(),
    }))
}

struct Planner<'a> {
    archive: &'a Archive,
    architecture: &'a str,
    plan: Plan,
}

impl Planner<'_> {
    fn document<T: serde::de::DeserializeOwned>(&self, what: &str, number: usize) -> Result<T, Error> {
        let document = self.archive.file(number).document.as_ref();
        let document = document.ok_or_else(|| Error::Archive(format!("{what} is no JSON document of an image")))?;
        serde_json::from_slice(document).map_err(|e| Error::Archive(format!("{what}: {e}")))
    }

    fn has_architecture(&self, config: &Config) -> bool {
        config.architecture == self.architecture && (config.os.is_empty() || config.os == "linux")
    }

    fn wrong_architecture(&self, name: &str, found: &str) -> Error {
        Error::Archive(format!("{name} is for {found}, and this machine is linux/{}", self.architecture))
    }

    /// Notes a file of the archive as a blob to import; its digest and size.
    fn take(&mut self, number: usize, labels: BTreeMap<String, String>) -> (String, u64) {
        let file = self.archive.file(number);
        self.plan.blobs.insert(file.digest.clone(), Blob { source: Source::File(number), size: file.size, labels });
        (file.digest.clone(), file.size)
    }

    /// Notes a document that we made as a blob to import.
    fn make(&mut self, media_type: &str, content: Vec<u8>, labels: BTreeMap<String, String>) -> Descriptor {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&content)));
        let size = content.len() as u64;
        self.plan.blobs.insert(digest.clone(), Blob { source: Source::Made(content.into()), size, labels });
        Descriptor { media_type: media_type.into(), digest, size, ..Descriptor::default() }
    }
}

/// The labels by which the runtime's garbage collector follows a manifest to its configuration and layers.
fn manifest_labels<'a>(config: &str, layers: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let layers = layers.enumerate().map(|(n, digest)| (format!("containerd.io/gc.ref.content.l.{n}"), digest.to_owned()));
    layers.chain([("containerd.io/gc.ref.content.config".to_owned(), config.to_owned())]).collect()
}
