//! Where images come from: a registry, a registry that wants a password, a tarball in a folder; and what a pod says without one.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use trireme_e2e::registry::{PASSWORD, Registry, USER, skopeo};
use trireme_harness::{Cluster, Namespace, eventually};

const LONG: Duration = Duration::from_secs(90);
/// Where the single server's node looks for tarballs.
const TARBALLS: &str = "/var/lib/trireme/agent/images";

fn pod(ns: &Namespace, name: &str, image: &str, policy: &str, options: &str) -> anyhow::Result<()> {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  {options}\n  containers:\n  \
         - {{name: main, image: '{image}', imagePullPolicy: {policy}, command: [sleep, '1000']}}\n"
    );
    ns.kubectl_with(&["apply", "-f", "-"], &pod).map(drop)
}

fn runs(ns: &Namespace, name: &str) -> anyhow::Result<()> {
    ns.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=90s"]).map(drop)
}

/// Waits until the container waits for one of these reasons, with all of the words in the message.
fn waits(ns: &Namespace, name: &str, reasons: &[&str], words: &[&str]) -> anyhow::Result<()> {
    eventually(&format!("{name} to say {reasons:?}"), LONG, || {
        let path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}: {.status.containerStatuses[0].state.waiting.message}";
        let said = ns.kubectl(&["get", "pod", name, "-o", path])?;
        ensure!(reasons.iter().any(|r| said.starts_with(&format!("{r}: "))) && words.iter().all(|w| said.contains(w)), "{said}");
        Ok(())
    })
}

fn events(ns: &Namespace, name: &str) -> anyhow::Result<String> {
    ns.kubectl(&[
        "get",
        "events",
        "--field-selector",
        &format!("involvedObject.name={name}"),
        "-o",
        "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}",
    ])
}

#[test]
fn images_are_pulled_from_a_registry() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("pull")?;
    let registry = Registry::open()?;
    let image = registry.push_box("team/box:1")?;
    let pulled = format!("Pulled: Successfully pulled image \"{image}\" in ");
    pod(&ns, "first", &image, "IfNotPresent", "")?;
    runs(&ns, "first")?;
    eventually("the pull to be told", LONG, || {
        let events = events(&ns, "first")?;
        ensure!(events.contains(&pulled) && events.contains(&format!("Pulling: Pulling image \"{image}\"")), "{events}");
        Ok(())
    })?;
    pod(&ns, "present", &image, "IfNotPresent", "")?;
    pod(&ns, "always", &image, "Always", "")?;
    runs(&ns, "present")?;
    runs(&ns, "always")?;
    eventually("both policies to be told", LONG, || {
        let (present, always) = (events(&ns, "present")?, events(&ns, "always")?);
        ensure!(present.contains(&format!("Pulled: Container image \"{image}\" already present on machine")), "{present}");
        ensure!(!present.contains("Pulling"), "{present}");
        ensure!(always.contains(&pulled), "{always}");
        Ok(())
    })?;
    // By digest, which the first pod's status tells.
    let id = ns.kubectl(&["get", "pod", "first", "-o", "jsonpath={.status.containerStatuses[0].imageID}"])?;
    // The runtime names one of the places that it has the image from; others may have served the same one.
    let digest = id.rsplit_once("/team/box@").map(|(_, digest)| digest).filter(|digest| digest.starts_with("sha256:"));
    let digest = digest.with_context(|| id.clone())?;
    pod(&ns, "digest", &format!("{}/team/box@{digest}", registry.address()), "Always", "")?;
    runs(&ns, "digest")?;
    // The registry goes: what is here runs on and starts again, what must be asked for does not start.
    drop(registry);
    pod(&ns, "offline", &image, "IfNotPresent", "")?;
    runs(&ns, "offline")?;
    pod(&ns, "cut-off", &image, "Always", "")?;
    waits(&ns, "cut-off", &["ErrImagePull", "ImagePullBackOff"], &["connection refused"])
}

#[test]
fn a_private_registry_wants_a_secret() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("secret")?;
    let registry = Registry::private()?;
    let image = registry.push_box("team/box:1")?;
    let secret = |name: &str, password: &str| {
        let (server, user) = (format!("--docker-server={}", registry.address()), format!("--docker-username={USER}"));
        ns.kubectl(&["create", "secret", "docker-registry", name, &server, &user, &format!("--docker-password={password}")])
    };
    pod(&ns, "nobody", &image, "Always", "")?;
    pod(&ns, "early", &image, "Always", "imagePullSecrets: [{name: late}]")?;
    secret("wrong", "guessed")?;
    pod(&ns, "guesser", &image, "Always", "imagePullSecrets: [{name: wrong}]")?;
    let refused = ["failed to resolve reference", "401 Unauthorized"];
    waits(&ns, "nobody", &["ErrImagePull", "ImagePullBackOff"], &refused)?;
    waits(&ns, "guesser", &["ErrImagePull", "ImagePullBackOff"], &refused)?;
    waits(&ns, "early", &["ImagePullBackOff"], &["Back-off pulling image", "401 Unauthorized"])?;
    ensure!(ns.kubectl(&["get", "pods"])?.contains("ImagePullBackOff"));

    // Through the pod; through its service account; and for a pod that was there before its secret.
    secret("late", PASSWORD)?;
    pod(&ns, "guest", &image, "Always", "imagePullSecrets: [{name: late}]")?;
    eventually("the default service account", LONG, || ns.kubectl(&["get", "serviceaccount", "default"]))?;
    ns.kubectl(&["patch", "serviceaccount", "default", "-p", r#"{"imagePullSecrets":[{"name":"late"}]}"#])?;
    pod(&ns, "member", &image, "Always", "")?;
    for name in ["guest", "member", "early"] {
        runs(&ns, name)?;
    }
    ensure!(ns.kubectl(&["get", "pod", "member", "-o", "jsonpath={.spec.imagePullSecrets[0].name}"])? == "late");
    Ok(())
}

#[test]
fn a_pod_without_an_image_says_why() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("noimage")?;
    let registry = Registry::open()?;
    let absent = format!("{}/team/absent:1", registry.address());
    pod(&ns, "absent", &absent, "IfNotPresent", "")?;
    pod(&ns, "name", "Not/An Image", "IfNotPresent", "")?;
    pod(&ns, "never", "localhost/trireme/absent:1", "Never", "")?;
    waits(&ns, "absent", &["ErrImagePull", "ImagePullBackOff"], &[&absent, "not found"])?;
    let logs = ns.kubectl_fails(&["logs", "absent"])?;
    ensure!(logs.contains("container \"main\" in pod \"absent\" is waiting to start: "), "{logs}");
    waits(&ns, "name", &["InvalidImageName"], &["couldn't parse image name", "invalid reference format"])?;
    waits(&ns, "never", &["ErrImageNeverPull"], &["is not present with pull policy of Never"])
}

#[test]
fn a_tarball_in_the_folder_is_an_image() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("tarball")?;
    let image = format!("localhost/trireme/dropped:{}", std::process::id());
    pod(&ns, "waits", &image, "Never", "")?;
    waits(&ns, "waits", &["ErrImageNeverPull"], &[])?;
    // An archive in the other format, written by another tool, and beside it a file that is no archive.
    let (broken, good) = (Path::new(TARBALLS).join("broken.tar"), Path::new(TARBALLS).join("dropped.tar"));
    std::fs::write(&broken, "no archive")?;
    let made = skopeo(&[], &format!("oci-archive:{}:{image}", good.display()));
    pod(&ns, "runs", &image, "IfNotPresent", "")?;
    let result = made.and_then(|()| runs(&ns, "runs"));
    for file in [broken, good] {
        std::fs::remove_file(file)?;
    }
    result?;
    let log = std::fs::read_to_string("/run/trireme/server.log")?;
    let told = log.lines().any(|line| line.contains("broken.tar: not imported: it is no readable tar archive"));
    ensure!(told, "the log does not say what is wrong with broken.tar");
    Ok(())
}
