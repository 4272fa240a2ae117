//! Archives made here, and what is planned of them. No runtime.

use std::io::Write;

use flate2::{Compression as Level, write::GzEncoder};
use serde_json::{Value, json};

use super::*;
use crate::archive::Piece;

/// An archive in the making.
#[derive(Default)]
struct Tarball {
    files: Vec<(String, Vec<u8>)>,
    links: Vec<(String, String)>,
}

impl Tarball {
    fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.into(), content.into()));
        self
    }

    fn link(mut self, path: &str, target: &str) -> Self {
        self.links.push((path.into(), target.into()));
        self
    }

    fn json(self, path: &str, document: &Value) -> Self {
        self.file(path, document.to_string())
    }

    /// A blob of an OCI layout; a descriptor of it.
    fn blob(&mut self, media_type: &str, content: impl Into<Vec<u8>>) -> Value {
        let content = content.into();
        let digest = digest(&content);
        let size = content.len();
        self.files.push((format!("blobs/sha256/{}", &digest["sha256:".len()..]), content));
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }

    /// A manifest for one architecture, with one layer.
    fn manifest(&mut self, architecture: &str, layer: &str) -> Value {
        let config = self.blob("application/vnd.oci.image.config.v1+json", config(architecture, &[]));
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", layer);
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        self.blob(OCI_MANIFEST, manifest.to_string())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, target) in &self.links {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, path, target).unwrap();
        }
        for (path, content) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, content.as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn plan(&self) -> Result<Plan, String> {
        plan_of(&self.bytes())
    }
}

fn with_archive<T>(bytes: &[u8], then: impl FnOnce(Archive) -> Result<T, Error>) -> Result<T, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    then(Archive::read(file.path())?)
}

fn plan_of(bytes: &[u8]) -> Result<Plan, String> {
    with_archive(bytes, |archive| plan(&archive, "amd64")).map_err(|e| e.to_string())
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

fn config(architecture: &str, layers: &[&str]) -> String {
    let ids: Vec<String> = layers.iter().map(|l| digest(l.as_bytes())).collect();
    json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}).to_string()
}

/// What `docker save` writes: two layers, the second one a link to where an older image has it.
fn saved(tags: Value) -> Tarball {
    Tarball::default()
        .json("manifest.json", &json!([{"Config": "c.json", "RepoTags": tags, "Layers": ["one/layer.tar", "two/layer.tar"]}]))
        .link("two/layer.tar", "../three/layer.tar")
        .file("c.json", config("amd64", &["first layer", "second layer"]))
        .file("one/layer.tar", "first layer")
        .file("three/layer.tar", "second layer")
}

#[test]
fn a_docker_archive_gets_a_manifest() {
    let plan = saved(json!(["box:1", "localhost/trireme/box:2"])).plan().unwrap();
    let [image] = plan.images.as_slice() else { panic!("{:?}", plan.images) };
    assert_eq!(image.names, ["docker.io/library/box:1", "localhost/trireme/box:2"]);
    let id = digest(config("amd64", &["first layer", "second layer"]).as_bytes());
    assert_eq!(image.id, id);
    let manifest = &plan.blobs[&image.target.digest];
    let Source::Made(content) = &manifest.source else { panic!("{manifest:?}") };
    assert_eq!(digest(content), image.target.digest);
    let content: Value = serde_json::from_slice(content).unwrap();
    assert_eq!(content["layers"][1]["digest"], digest(b"second layer"));
    assert_eq!(content["layers"][1]["size"], 12);
    let labels = [("config", id), ("l.0", digest(b"first layer")), ("l.1", digest(b"second layer"))];
    assert_eq!(manifest.labels, labels.map(|(k, v)| (format!("containerd.io/gc.ref.content.{k}"), v)).into());
    assert_eq!(plan.blobs.len(), 4, "a manifest, a configuration, two layers");
}

#[test]
fn gzip_around_the_archive_and_around_a_layer_is_seen() {
    let gzip = |content: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    };
    let layer = gzip(b"a layer");
    let tarball = Tarball::default()
        .json("manifest.json", &json!([{"Config": "c.json", "RepoTags": ["a/b:1"], "Layers": ["l.tar.gz"]}]))
        .file("c.json", config("amd64", &["a layer"]))
        .file("l.tar.gz", layer.clone());
    let plan = plan_of(&gzip(&tarball.bytes())).unwrap();
    let Source::Made(manifest) = &plan.blobs[&plan.images[0].target.digest].source else { panic!() };
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(manifest["layers"][0]["digest"], digest(&layer));
}

#[test]
fn an_oci_layout_is_imported_with_the_platforms_that_it_holds() {
    let mut tarball = Tarball::default();
    let (ours, theirs) = (tarball.manifest("amd64", "our layer"), tarball.manifest("arm64", "their layer"));
    let absent = json!({"mediaType": OCI_MANIFEST, "digest": digest(b"absent"), "size": 6});
    let index = tarball.blob(OCI_INDEX, json!({"manifests": [absent, theirs, ours]}).to_string());
    let mut named = index.clone();
    named["annotations"] = json!({"io.containerd.image.name": "docker.io/a/b:1", "org.opencontainers.image.ref.name": "1"});
    let mut again = index.clone();
    again["annotations"] = json!({"org.opencontainers.image.ref.name": "localhost/c:2"});
    let mut unnamed = ours.clone();
    unnamed["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let tarball = tarball.json("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}));
    let plan = tarball.json("index.json", &json!({"manifests": [named, again, unnamed]})).plan().unwrap();
    let [image] = plan.images.as_slice() else { panic!("{:?}", plan.images) };
    assert_eq!(image.names, ["docker.io/a/b:1", "localhost/c:2"]);
    assert_eq!(
        (image.target.digest.as_str(), image.id.as_str()),
        (index["digest"].as_str().unwrap(), digest(config("amd64", &[]).as_bytes()).as_str())
    );
    let labels: Vec<_> = plan.blobs[&image.target.digest].labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["containerd.io/gc.ref.content.m.1", "containerd.io/gc.ref.content.m.2"]);
    assert_eq!(plan.blobs.len(), 7, "an index, and manifest, configuration and layer for two platforms");
}

#[test]
fn what_is_streamed_is_what_was_read() {
    // Longer than a piece, and no multiple of one.
    let long: Vec<u8> = (0..700_001u32).map(|n| n as u8).collect();
    let tarball = Tarball::default().file("a", "x").file("b", long.clone()).file("c", "").file("d", "y");
    let (mut got, mut ended) = (BTreeMap::<usize, Vec<u8>>::new(), Vec::new());
    let sink = |piece: Piece| {
        match piece {
            Piece::Data(n, data) => got.entry(n).or_default().extend_from_slice(&data),
            Piece::End(n) => ended.push(n),
        }
        true
    };
    with_archive(&tarball.bytes(), |archive| archive.stream(&[1, 2, 3].into(), sink)).unwrap();
    assert_eq!((got.remove(&1).unwrap(), got.remove(&3).unwrap()), (long, b"y".to_vec()));
    assert!(got.is_empty());
    assert_eq!(ended, [1, 2, 3]);
}

#[test]
fn a_file_that_is_no_image_says_why() {
    let cut = |mut bytes: Vec<u8>, at: usize| {
        bytes.truncate(at);
        bytes
    };
    let good = saved(json!(["a/b:1"]));
    let mut other_machine = Tarball::default();
    let mut arm = other_machine.manifest("arm64", "layer");
    arm["annotations"] = json!({"io.containerd.image.name": "a/b:1"});
    let mut damaged = Tarball::default();
    let mut entry = damaged.manifest("amd64", "layer");
    entry["annotations"] = json!({"io.containerd.image.name": "a/b:1"});
    damaged.files.iter_mut().find(|(_, content)| content == b"layer").unwrap().1 = b"LAYER".to_vec();
    let two_layers = json!([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l", "gone"]}]);
    for (bytes, says) in [
        (b"not an archive at all, but text that goes on for long enough to fill what a header takes".repeat(10), "no readable tar archive"),
        (Vec::new(), "there is no file in it"),
        (vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0], "zstd"),
        (Tarball::default().file("readme", "hello").bytes(), "neither index.json nor manifest.json"),
        (saved(Value::Null).bytes(), "no image in it has a name"),
        (saved(json!(["Not A Name"])).bytes(), "is no image name"),
        (Tarball::default().file("manifest.json", "[{").bytes(), "manifest.json: EOF"),
        (cut(good.bytes(), good.bytes().len() - 1024 - 505), "cut short"),
        (
            Tarball::default().json("manifest.json", &two_layers).file("c.json", config("amd64", &[])).file("l", "x").bytes(),
            "gone, which manifest.json names, is missing",
        ),
        (saved(json!(["a:1"])).file("one/layer.tar", "another layer").bytes(), "one/layer.tar is damaged"),
        (other_machine.json("index.json", &json!({"manifests": [arm]})).bytes(), "is for arm64, and this machine is linux/amd64"),
        (
            damaged.json("index.json", &json!({"manifests": [entry]})).bytes(),
            &format!("the blob {} is missing or damaged", digest(b"layer")),
        ),
    ] {
        let said = plan_of(&bytes).unwrap_err();
        assert!(said.contains(says), "{said:?} does not say {says:?}");
        assert!(!said.contains('\n'));
    }
}

#[test]
fn archives_of_strangers_are_bounded_and_broken_ones_end_without_harm() {
    let links = (0..=10_000).fold(Tarball::default(), |tarball, n| tarball.link(&format!("l{n}"), "x"));
    let error = crate::image_names(std::io::Cursor::new(links.bytes()), "amd64").unwrap_err();
    assert!(error.to_string().contains("more than 10000 links"), "{error}");
    let mut tarball = Tarball::default();
    let manifest = tarball.manifest("amd64", "layer");
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    let whole = tarball.json("index.json", &index).bytes();
    for cut in (0..whole.len()).step_by(97) {
        drop(crate::image_names(std::io::Cursor::new(whole[..cut].to_vec()), "amd64"));
    }
    for position in (0..whole.len()).step_by(13) {
        let mut broken = whole.clone();
        broken[position] ^= 0x41;
        drop(crate::image_names(std::io::Cursor::new(broken), "amd64"));
    }
}
