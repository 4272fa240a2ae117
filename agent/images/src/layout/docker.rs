//! `docker save`: manifest.json names configurations and layers by their paths. What it lacks is a manifest: we make one.

use serde::{Deserialize, Serialize};

use super::{Config, Descriptor, OCI_MANIFEST, PlannedImage, Planner, manifest_labels};
use crate::{Error, archive::Compression, name};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MadeManifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Planner<'_> {
    pub(super) fn docker(&mut self) -> Result<(), Error> {
        let Some(number) = self.archive.at("manifest.json") else { return Ok(()) };
        let saved: Vec<Saved> = self.document("manifest.json", number)?;
        for image in saved {
            let mut names = Vec::new();
            for tag in image.repo_tags.iter().flatten() {
                names.push(name::full(tag).ok_or_else(|| Error::Archive(format!("manifest.json: {tag:?} is no image name")))?);
            }
            if !names.is_empty() {
                self.docker_image(&image, names)?;
            }
        }
        Ok(())
    }

    fn docker_image(&mut self, image: &Saved, names: Vec<String>) -> Result<(), Error> {
        let what = names.join(", ");
        let find = |path: &str| {
            self.archive.at(path).ok_or_else(|| Error::Archive(format!("{what}: {path}, which manifest.json names, is missing")))
        };
        let config_file = find(&image.config)?;
        let layer_files = image.layers.iter().map(|path| find(path)).collect::<Result<Vec<_>, _>>()?;
        let config: Config = self.document(&image.config, config_file)?;
        if !self.has_architecture(&config) {
            return Err(self.wrong_architecture(&what, &config.architecture));
        }
        if config.rootfs.diff_ids.len() != layer_files.len() {
            let (has, wants) = (layer_files.len(), config.rootfs.diff_ids.len());
            return Err(Error::Archive(format!("{what}: {has} layers where its configuration tells of {wants}")));
        }
        for ((path, &layer), diff_id) in image.layers.iter().zip(&layer_files).zip(&config.rootfs.diff_ids) {
            let file = self.archive.file(layer);
            if file.compression == Compression::None && file.digest != *diff_id {
                return Err(Error::Archive(format!("{what}: {path} is damaged: it is {} and should be {diff_id}", file.digest)));
            }
        }
        let (id, size) = self.take(config_file, Default::default());
        let config = descriptor("application/vnd.oci.image.config.v1+json", &id, size);
        let mut layers = Vec::new();
        for layer in layer_files {
            let media_type = match self.archive.file(layer).compression {
                Compression::None => "application/vnd.oci.image.layer.v1.tar",
                Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
                Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            };
            let (digest, size) = self.take(layer, Default::default());
            layers.push(descriptor(media_type, &digest, size));
        }
        let labels = manifest_labels(&id, layers.iter().map(|l| l.digest.as_str()));
        let manifest = MadeManifest { schema_version: 2, media_type: OCI_MANIFEST, config, layers };
        let content = serde_json::to_vec(&manifest).map_err(|e| Error::Archive(e.to_string()))?;
        let target = self.make(OCI_MANIFEST, content, labels);
        self.plan.images.push(PlannedImage { names, id, target });
        Ok(())
    }
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.into(), digest: digest.into(), size, ..Descriptor::default() }
}
