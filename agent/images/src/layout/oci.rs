//! OCI image layout: index.json points at manifests and nested indexes, by digest. An archive may hold a part of the platforms only.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Config, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, OCI_INDEX, OCI_MANIFEST, PlannedImage, Planner, manifest_labels};
use crate::{Error, name};

/// Indexes within indexes, at most.
const MAX_DEPTH: u32 = 4;
/// Where names are, the better one first.
const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// What was found below a descriptor: the configuration for this machine, if there is one, and for what the others are.
#[derive(Default)]
struct Found {
    id: Option<String>,
    others: Vec<String>,
}

impl Planner<'_> {
    pub(super) fn index(&mut self) -> Result<(), Error> {
        let Some(number) = self.archive.at("index.json") else { return Ok(()) };
        let index: Index = self.document("index.json", number)?;
        // Two names of one image are two entries with the same digest.
        let mut images: Vec<(Descriptor, Vec<String>)> = Vec::new();
        for entry in index.manifests {
            let Some(name) = name_of(&entry)? else { continue };
            match images.iter_mut().find(|(known, _)| known.digest == entry.digest) {
                Some((_, names)) => names.push(name),
                None => images.push((entry, vec![name])),
            }
        }
        for (target, names) in images {
            let what = names.join(", ");
            let found = self.descend(&target, &what, 0)?;
            let id = found.id.ok_or_else(|| self.wrong_architecture(&what, &found.others.join(", ")))?;
            self.plan.images.push(PlannedImage {
                names,
                id,
                target: Descriptor { annotations: BTreeMap::new(), platform: None, ..target },
            });
        }
        Ok(())
    }

    fn descend(&mut self, target: &Descriptor, what: &str, depth: u32) -> Result<Found, Error> {
        match target.media_type.as_str() {
            OCI_INDEX | DOCKER_INDEX if depth < MAX_DEPTH => self.nested(target, what, depth),
            OCI_INDEX | DOCKER_INDEX => Err(Error::Archive(format!("{what}: indexes nested more than {MAX_DEPTH} deep"))),
            OCI_MANIFEST | DOCKER_MANIFEST => self.manifest(target, what),
            other => Err(Error::Archive(format!("{what}: {} has the unknown media type {other:?}", target.digest))),
        }
    }

    fn nested(&mut self, target: &Descriptor, what: &str, depth: u32) -> Result<Found, Error> {
        let number = self.blob(target, what)?;
        let index: Index = self.document(&target.digest, number)?;
        let mut found = Found::default();
        let mut labels = BTreeMap::new();
        for (n, child) in index.manifests.iter().enumerate() {
            // Not every platform is in the archive; whether this machine's is there is checked at the end.
            if self.archive.with_digest(&child.digest).is_none() {
                continue;
            }
            labels.insert(format!("containerd.io/gc.ref.content.m.{n}"), child.digest.clone());
            let below = self.descend(child, what, depth + 1)?;
            found.id = found.id.or(below.id);
            found.others.extend(below.others);
        }
        self.take(number, labels);
        Ok(found)
    }

    fn manifest(&mut self, target: &Descriptor, what: &str) -> Result<Found, Error> {
        let number = self.blob(target, what)?;
        let manifest: Manifest = self.document(&target.digest, number)?;
        let config_file = self.blob(&manifest.config, what)?;
        self.take(config_file, BTreeMap::new());
        for layer in &manifest.layers {
            let layer = self.blob(layer, what)?;
            self.take(layer, BTreeMap::new());
        }
        self.take(number, manifest_labels(&manifest.config.digest, manifest.layers.iter().map(|l| l.digest.as_str())));
        // Builders attach provenance to an image as a manifest for an unknown platform.
        if target.platform.as_ref().is_some_and(|p| p.os == "unknown") {
            return Ok(Found::default());
        }
        let config: Config = self.document(&manifest.config.digest, config_file)?;
        Ok(if self.has_architecture(&config) {
            Found { id: Some(manifest.config.digest), others: Vec::new() }
        } else {
            Found { id: None, others: vec![config.architecture] }
        })
    }

    fn blob(&self, descriptor: &Descriptor, what: &str) -> Result<usize, Error> {
        let found = self.archive.with_digest(&descriptor.digest);
        found.ok_or_else(|| Error::Archive(format!("{what}: the blob {} is missing or damaged", descriptor.digest)))
    }
}

fn name_of(entry: &Descriptor) -> Result<Option<String>, Error> {
    if let Some(name) = entry.annotations.get(IMAGE_NAME) {
        return name::full(name).map(Some).ok_or_else(|| Error::Archive(format!("index.json: {name:?} is no image name")));
    }
    // The reference may be a bare tag, which names nothing.
    Ok(entry.annotations.get(REF_NAME).filter(|r| r.contains(['/', ':'])).and_then(|r| name::full(r)))
}
