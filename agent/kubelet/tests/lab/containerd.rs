//! A containerd of our own: own root, state, socket, network plugin and cgroup parent; killed by pid at the end.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The image that test pods run: a static busybox.
pub const IMAGE: &str = "docker.io/library/trireme-test:1";

pub struct Containerd {
    pub dir: tempfile::TempDir,
    pub cgroup_root: String,
    child: Option<Child>,
}

impl Containerd {
    /// Starts containerd and imports the image.
    pub fn start() -> Containerd {
        let dir = tempfile::Builder::new().prefix("trireme-kubelet-").tempdir_in("/tmp").unwrap();
        let name = dir.path().file_name().unwrap().to_string_lossy().into_owned();
        let mut lab = Containerd { cgroup_root: format!("/trireme-test/{name}"), dir, child: None };
        lab.write_configuration();
        lab.launch();
        lab.import_image();
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("containerd.sock")
    }

    fn write_configuration(&self) {
        let d = self.dir.path().display();
        std::fs::create_dir_all(self.path("cni/bin")).unwrap();
        std::fs::create_dir_all(self.path("cni/conf")).unwrap();
        std::fs::write(
            self.path("config.toml"),
            format!(
                r#"version = 2
root = "{d}/root"
state = "{d}/state"
[grpc]
  address = "{d}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{d}/cni/bin"
    conf_dir = "{d}/cni/conf"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"#
            ),
        )
        .unwrap();
        std::fs::write(self.path("cni/conf/10-test.conflist"), r#"{"cniVersion":"0.4.0","name":"test","plugins":[{"type":"testnet"}]}"#)
            .unwrap();
        // An address that lives inside the pod only: enough to have a pod IP.
        let plugin = self.path("cni/bin/testnet");
        std::fs::write(
            &plugin,
            r#"#!/bin/sh
case "$CNI_COMMAND" in
ADD)
  n=$(printf %d 0x$(echo "$CNI_CONTAINERID" | cut -c1-2)); m=$(printf %d 0x$(echo "$CNI_CONTAINERID" | cut -c3-4))
  nsenter --net="$CNI_NETNS" ip link set lo up
  nsenter --net="$CNI_NETNS" ip addr add 10.99.$n.$m/32 dev lo
  echo "{\"cniVersion\":\"0.4.0\",\"interfaces\":[{\"name\":\"eth0\",\"sandbox\":\"$CNI_NETNS\"}],\"ips\":[{\"version\":\"4\",\"interface\":0,\"address\":\"10.99.$n.$m/32\"}]}"
  ;;
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
esac
"#,
        )
        .unwrap();
        // containerd 1.6 calls the loopback plugin for every sandbox, configured or not.
        let loopback = self.path("cni/bin/loopback");
        std::fs::write(
            &loopback,
            "#!/bin/sh\n[ \"$CNI_COMMAND\" = ADD ] && nsenter --net=\"$CNI_NETNS\" ip link set lo up\necho '{\"cniVersion\":\"0.3.1\"}'\n",
        )
        .unwrap();
        for plugin in [plugin, loopback] {
            std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn launch(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("containerd.log")).unwrap();
        let child = Command::new("containerd").arg("-c").arg(self.path("config.toml")).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.expect("containerd must be installed: apt-get install containerd runc"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.ctr(&["version"]).status.success() {
            assert!(
                Instant::now() < deadline,
                "containerd did not start: {}",
                std::fs::read_to_string(self.path("containerd.log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// SIGKILL, as a crash. Containers run on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    pub fn ctr(&self, args: &[&str]) -> std::process::Output {
        Command::new("ctr").arg("-a").arg(self.socket()).args(["-n", "k8s.io"]).args(args).output().unwrap()
    }

    /// The network namespaces of our sandboxes, which are kept by a mount outside our folder.
    fn network_namespaces(&self) -> Vec<PathBuf> {
        let containers = self.ctr(&["containers", "ls", "-q"]).stdout;
        let mut found = Vec::new();
        for id in String::from_utf8_lossy(&containers).split_whitespace() {
            let info = self.ctr(&["containers", "info", id]).stdout;
            let info = String::from_utf8_lossy(&info);
            found.extend(info.split('"').filter(|text| text.contains("/run/netns/cni-")).map(PathBuf::from));
        }
        found.sort();
        found.dedup();
        found
    }

    fn import_image(&self) {
        let tarball = self.path("image.tar");
        make_image(self.dir.path(), &tarball);
        let output = self.ctr(&["images", "import", tarball.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // A test that failed while it was away.
        if self.child.is_none() {
            self.launch();
        }
        let netns = self.network_namespaces();
        // Containers first, while containerd is there to stop them.
        let tasks = self.ctr(&["tasks", "ls", "-q"]);
        for id in String::from_utf8_lossy(&tasks.stdout).split_whitespace() {
            self.ctr(&["tasks", "kill", "-s", "SIGKILL", id]);
            self.ctr(&["tasks", "delete", "--force", id]);
        }
        self.kill();
        // A shim outlives its containerd, and sometimes its last task.
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let is_shim = std::fs::read(process.path().join("cmdline"))
                .is_ok_and(|c| String::from_utf8_lossy(&c).contains(&*self.socket().to_string_lossy()));
            if is_shim {
                let _ = Command::new("sh").args(["-c", "kill -9 \"$0\""]).arg(process.file_name()).status();
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = mounts.lines().filter_map(|l| l.split(' ').nth(1)).filter(|p| Path::new(p).starts_with(self.dir.path()));
        for mount in ours.collect::<Vec<_>>().into_iter().rev() {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
        for path in netns {
            let _ = Command::new("umount").args(["-l"]).arg(&path).stderr(Stdio::null()).status();
            let _ = std::fs::remove_file(path);
        }
        for tree in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let root = tree.path().join(self.cgroup_root.trim_start_matches('/'));
            let _ =
                Command::new("find").arg(&root).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]).stderr(Stdio::null()).status();
            let _ = root.parent().map(std::fs::remove_dir);
        }
    }
}

/// A docker archive with one layer: busybox and its links.
fn make_image(dir: &Path, tarball: &Path) {
    let script = r#"
set -e
cd "$1"; rm -rf img; mkdir -p img/rootfs/bin img/rootfs/etc img/rootfs/tmp img/rootfs/proc img/rootfs/sys img/rootfs/dev img/rootfs/root
cp /bin/busybox img/rootfs/bin/busybox
for t in sh sleep cat echo ls env id hostname kill wc head tail touch true false nc httpd mkdir stat readlink dd tr seq stty pidof ps date printf test grep; do ln -s busybox img/rootfs/bin/$t; done
echo 'root:x:0:0:root:/root:/bin/sh' > img/rootfs/etc/passwd; echo 'root:x:0:' > img/rootfs/etc/group; chmod 1777 img/rootfs/tmp
tar -C img/rootfs --numeric-owner --owner=0 --group=0 -cf img/layer.tar .
sum=$(sha256sum img/layer.tar | cut -d' ' -f1)
cat > img/config.json <<CONF
{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["/bin/sleep","1000000"]},"rootfs":{"type":"layers","diff_ids":["sha256:$sum"]}}
CONF
echo '[{"Config":"config.json","RepoTags":["'"$2"'"],"Layers":["layer.tar"]}]' > img/manifest.json
tar -C img -cf "$3" config.json manifest.json layer.tar
rm -rf img
"#;
    let output = Command::new("sh")
        .args(["-c", script, "make-image"])
        .arg(dir)
        .arg(IMAGE.trim_start_matches("docker.io/library/"))
        .arg(tarball)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
