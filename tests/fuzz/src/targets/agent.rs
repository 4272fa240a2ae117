//! What containers, runtimes, clients of streams and image builders send to a node.

use std::io::Write;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use trireme_kubelet::fuzzing;

use super::{Target, texts};

pub fn targets() -> Vec<Target> {
    vec![
        Target { name: "logs", what: "log files of containers", corpus: logs, run: read_log },
        Target { name: "spdy", what: "SPDY frames of a runtime", corpus: spdy, run: |bytes| wait(fuzzing::spdy(bytes)) },
        Target { name: "websocket", what: "WebSocket frames of a client", corpus: websocket, run: |bytes| wait(fuzzing::websocket(bytes)) },
        Target { name: "images", what: "image tarballs", corpus: images, run: |bytes| trireme_images::fuzzing::archive(bytes.to_vec()) },
    ]
}

fn wait(work: impl Future<Output = ()>) {
    thread_local! {
        static RUNTIME: Option<tokio::runtime::Runtime> = tokio::runtime::Builder::new_current_thread().enable_all().build().ok();
    }
    RUNTIME.with(|runtime| runtime.as_ref().map(|runtime| runtime.block_on(work)));
}

fn logs() -> Vec<Vec<u8>> {
    texts(&[
        "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02.123456789Z stderr P tw\n2026-01-01T00:00:02Z stderr F o\n",
        "2026-01-01T00:00:01+02:00 stdout F:x \n\n2026-01-01T00:00:03Z stdout P without an end",
        "2026-01-01T00:00:01Z stdout F\nnonsense\n2026-01-01T00:00:01Z nowhere F x\n",
    ])
}

fn read_log(bytes: &[u8]) {
    let path = std::env::temp_dir().join(format!("trireme-fuzz-{}.log", std::process::id()));
    if std::fs::write(&path, bytes).is_ok() {
        wait(fuzzing::log_file(&path));
        drop(std::fs::remove_file(&path));
    }
}

fn spdy() -> Vec<Vec<u8>> {
    let control = |kind: u8, payload: &[u8]| [&[0x80, 3, 0, kind, 0, 0, 0, u8::try_from(payload.len()).unwrap_or(0)], payload].concat();
    vec![
        [&[0, 0, 0, 1, 0, 0, 0, 5][..], b"hello", &[0, 0, 0, 1, 1, 0, 0, 0]].concat(),
        [control(2, &[0, 0, 0, 1, 0x78, 0x01]), control(6, &[0, 0, 0, 7]), control(3, &[0, 0, 0, 3, 0, 0, 0, 5])].concat(),
        [control(4, &[0; 12]), control(7, &[0; 8])].concat(),
    ]
}

/// Frames of a client: masked, whole and in parts, with control frames between them.
fn websocket() -> Vec<Vec<u8>> {
    let frame = |first: u8, payload: &[u8]| {
        let mask = [1, 2, 3, 4];
        let masked: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        [&[first, 0x80 | u8::try_from(payload.len()).unwrap_or(0)][..], &mask, &masked].concat()
    };
    let encoded = format!("0{}", BASE64_STANDARD.encode("input"));
    vec![
        [frame(0x82, b"\0input"), frame(0x82, b"\x04{\"Width\":80,\"Height\":24}"), frame(0x82, b"\xff\0"), frame(0x88, &[3, 0xe8])]
            .concat(),
        [frame(0x81, encoded.as_bytes()), frame(0x89, b"ping"), frame(0x02, b"\0in"), frame(0x8a, b""), frame(0x80, b"put")].concat(),
        encoded.into_bytes(),
    ]
}

fn images() -> Vec<Vec<u8>> {
    let layer = tarball(&[("file", b"content")]);
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:00"]}}"#;
    let docker = tarball(&[
        ("manifest.json", br#"[{"Config":"c.json","RepoTags":["localhost/a:1"],"Layers":["l/layer.tar"]}]"#),
        ("c.json", config),
        ("l/layer.tar", &layer),
    ]);
    let digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":2,"annotations":{{"io.containerd.image.name":"localhost/a:1"}}}}]}}"#
    );
    let path = format!("blobs/sha256/{}", &digest["sha256:".len()..]);
    let oci = tarball(&[("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#), ("index.json", index.as_bytes()), (&path, b"{}")]);
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    drop(zipped.write_all(&docker));
    vec![docker, oci, zipped.finish().unwrap_or_default()]
}

fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        drop(builder.append_data(&mut header, name, *content));
    }
    builder.into_inner().unwrap_or_default()
}
