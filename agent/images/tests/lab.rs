//! Tarballs in a folder, and a real containerd.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../kubelet/tests/lab/containerd.rs"]
mod containerd;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use containerd::Containerd;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use trireme_images::ImagesOptions;

struct Importer {
    first_pass: Option<oneshot::Receiver<()>>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Importer {
    fn start(lab: &Containerd) -> Self {
        let (done, first_pass) = oneshot::channel();
        let cancel = CancellationToken::new();
        let options = ImagesOptions { folder: lab.path("images"), runtime_endpoint: lab.socket() };
        Self { first_pass: Some(first_pass), task: tokio::spawn(trireme_images::run(options, done, cancel.clone())), cancel }
    }

    async fn first_pass(&mut self) {
        tokio::time::timeout(Duration::from_secs(60), self.first_pass.take().unwrap()).await.expect("the first pass ends").unwrap();
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap();
    }
}

/// A tarball with one layer that holds the static busybox and a file with `text`.
fn tarball(at: &Path, name: &str, text: &str) {
    let script = r#"
set -e
w=$(mktemp -d); trap 'rm -rf "$w"' EXIT
mkdir -p "$w/root/bin"; cp /bin/busybox "$w/root/bin/busybox"; ln -s busybox "$w/root/bin/cat"; echo "$3" > "$w/root/text"
tar -C "$w/root" --numeric-owner --owner=0 --group=0 -cf "$w/layer.tar" .
sum=$(sha256sum "$w/layer.tar" | cut -d' ' -f1)
echo '{"architecture":"'$(dpkg --print-architecture)'","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:'$sum'"]}}' > "$w/config.json"
echo '[{"Config":"config.json","RepoTags":["'"$2"'"],"Layers":["layer.tar"]}]' > "$w/manifest.json"
tar -C "$w" -cf "$w/image.tar" config.json manifest.json layer.tar
case $1 in *gz) gzip "$w/image.tar"; mv "$w/image.tar.gz" "$1" ;; *) cp "$w/image.tar" "$1" ;; esac
"#;
    let output = Command::new("sh").args(["-c", script, "tarball"]).arg(at).args([name, text]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn ctr(lab: &Containerd, args: &[&str]) -> String {
    let output = lab.ctr(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What an image holds in its /text.
fn text_in(lab: &Containerd, image: &str) -> String {
    let at = lab.path("mounted");
    std::fs::create_dir_all(&at).unwrap();
    ctr(lab, &["images", "mount", image, at.to_str().unwrap()]);
    let text = std::fs::read_to_string(at.join("text")).unwrap();
    ctr(lab, &["images", "unmount", "--rm", at.to_str().unwrap()]);
    text
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tarballs_are_in_the_runtime_before_pods_and_as_they_appear() {
    let mut lab = Containerd::start();
    let folder: PathBuf = lab.path("images");
    std::fs::create_dir(&folder).unwrap();
    tarball(&folder.join("a.tar"), "localhost/x/a:1", "one");
    std::fs::write(folder.join("broken.tar"), "nothing that anybody could read, at any length".repeat(100)).unwrap();
    tarball(&folder.join("z.tar.gz"), "x/z:1", "zipped");
    let mut importer = Importer::start(&lab);
    importer.first_pass().await;
    let names = ctr(&lab, &["images", "ls", "-q"]);
    assert!(names.contains("localhost/x/a:1\n") && names.contains("docker.io/x/z:1\n"), "{names}");
    let check = ctr(&lab, &["images", "check"]);
    let line = check.lines().find(|l| l.starts_with("localhost/x/a:1")).unwrap();
    assert!(line.contains("complete (2/2)"), "{line}");

    // What appears later, what replaces it, and what is garbage then.
    tarball(&folder.join(".b.tar.part"), "localhost/x/b:1", "first");
    std::fs::rename(folder.join(".b.tar.part"), folder.join("b.tar")).unwrap();
    until("a file that was moved here is imported", || ctr(&lab, &["images", "ls", "-q"]).contains("localhost/x/b:1\n")).await;
    let before = ctr(&lab, &["images", "ls", "name==localhost/x/b:1"]);
    tarball(&folder.join("b.tar"), "localhost/x/b:1", "second");
    until("a file that was written over is imported again", || ctr(&lab, &["images", "ls", "name==localhost/x/b:1"]) != before).await;
    assert_eq!(text_in(&lab, "localhost/x/b:1"), "second\n");
    ctr(&lab, &["images", "rm", "--sync", "docker.io/x/z:1"]);
    let line = ctr(&lab, &["images", "check", "name==localhost/x/a:1"]);
    assert!(line.contains("complete (2/2)"), "the collection took something that an image needs: {line}");

    // Both are restarted: nothing is lost, and an image that was removed is imported again.
    importer.stop().await;
    lab.restart();
    let mut importer = Importer::start(&lab);
    importer.first_pass().await;
    assert!(ctr(&lab, &["images", "ls", "-q"]).contains("docker.io/x/z:1\n"));
    assert_eq!(text_in(&lab, "localhost/x/a:1"), "one\n");
    assert_eq!(ctr(&lab, &["leases", "ls", "-q"]), "", "nothing is held any more");

    // A runtime that is down delays nothing.
    importer.stop().await;
    lab.kill();
    tarball(&folder.join("late.tar"), "localhost/x/late:1", "late");
    let mut importer = Importer::start(&lab);
    importer.first_pass().await;
    lab.restart();
    until("it is imported when the runtime is back", || ctr(&lab, &["images", "ls", "-q"]).contains("localhost/x/late:1\n")).await;
    importer.stop().await;
}
