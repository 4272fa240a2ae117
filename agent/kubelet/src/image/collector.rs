//! Removes images that nothing uses: when their disk is full, and before pods are evicted for it.
//!
//! Decisions are `inventory`'s. An image that a container is being made of stays: it is too young to go, or in use by then.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use trireme_client::EventKind;

use super::inventory::{Found, Inventory, Reason, excess};
use crate::{
    core::Core,
    error::{Error, Result},
    machine,
};

/// Between two looks, as upstream.
const PERIOD: Duration = Duration::from_secs(300);

/// Looks again and again until cancelled.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        if let Err(error) = round(&core).await {
            tracing::warn!(%error, "images are not collected");
            core.events.node(EventKind::Warning, "ImageGCFailed", &error.to_string());
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// One look at the images and their disk.
async fn round(core: &Core) -> Result<()> {
    let mut inventory = core.image_inventory.lock().await;
    let now = core.now();
    let policy = core.options.image_policy;
    look(&mut inventory, core, now).await?;
    let outdated = inventory.outdated(&policy, now);
    remove(&mut inventory, core, outdated, None, Reason::Age).await;
    let Some(disk) = core.runtime.image_folder().await?.as_deref().and_then(machine::disk) else { return Ok(()) };
    let Some(wanted) = excess(&policy, disk.bytes.free, disk.bytes.total) else { return Ok(()) };
    let unused = inventory.unused(policy.min_age, now);
    tracing::info!(bytes = wanted, "the images' disk is above the threshold: unused images are removed");
    let freed = remove(&mut inventory, core, unused, Some(wanted), Reason::Space).await;
    if freed < wanted {
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
        );
        tracing::warn!("{message}");
        core.events.node(EventKind::Warning, "FreeDiskSpaceFailed", &message);
    }
    Ok(())
}

/// Removes all that nothing uses; returns how many bytes they had.
pub(crate) async fn remove_unused(core: &Core) -> Result<u64> {
    let mut inventory = core.image_inventory.lock().await;
    let now = core.now();
    look(&mut inventory, core, now).await?;
    let unused = inventory.unused(core.options.image_policy.min_age, now);
    Ok(remove(&mut inventory, core, unused, None, Reason::Space).await)
}

async fn look(inventory: &mut Inventory, core: &Core, now: Timestamp) -> Result<()> {
    let kept = core.options.kept_images.names().await.map_err(Error::Config)?;
    let pause = core.runtime.sandbox_image().await?;
    let images = core.runtime.list_images().await?;
    // After the images: what was pulled in between is not among them.
    let containers = core.runtime.list_containers(None).await?;
    let mut used = BTreeSet::new();
    for container in &containers {
        used.insert(container.image_ref.as_str());
        used.extend(container.image.as_ref().map(|image| image.image.as_str()));
    }
    let found = images.iter().map(|image| {
        let names = || image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
        Found {
            id: image.id.clone(),
            bytes: image.size,
            in_use: names().any(|name| used.contains(name.as_str())),
            kept: image.pinned || names().any(|name| kept.contains(name) || pause.as_ref() == Some(name)),
        }
    });
    inventory.look(found.collect(), now);
    Ok(())
}

/// Removes these, as far as `wanted` bytes need it; returns how many bytes went.
async fn remove(inventory: &mut Inventory, core: &Core, images: Vec<(String, u64)>, wanted: Option<u64>, reason: Reason) -> u64 {
    let mut freed: u64 = 0;
    for (id, bytes) in images {
        if wanted.is_some_and(|wanted| freed >= wanted) {
            break;
        }
        match core.runtime.remove_image(&id).await {
            Ok(()) => {
                tracing::info!(image = id, bytes, "removed an unused image");
                core.metrics.image_collected(reason.name());
                inventory.forget(&id);
                freed = freed.saturating_add(bytes);
            }
            Err(error) => tracing::warn!(image = id, %error, "an unused image is not removed"),
        }
    }
    freed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        net::{IpAddr, Ipv4Addr},
        time::Duration,
    };

    use futures::future::BoxFuture;
    use tokio_util::sync::CancellationToken;
    use tonic::Code;
    use trireme_proto::cri;

    use super::*;
    use crate::{
        api_double::Api,
        cgroup::Cgroups,
        clock::Clock,
        core::Seams,
        image::kept::KeptImages,
        metrics::Operations,
        options::KubeletOptions,
        runtime::{Runtime, double::Double},
    };

    struct Imported;

    impl KeptImages for Imported {
        fn names(&self) -> BoxFuture<'_, std::result::Result<BTreeSet<String>, String>> {
            Box::pin(async { Ok(BTreeSet::from(["imported:1".to_owned()])) })
        }
    }

    fn image(id: &str, tag: &str, pinned: bool) -> cri::Image {
        cri::Image { id: id.into(), repo_tags: vec![tag.into()], size: 10, pinned, ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_nothing_uses_and_nobody_keeps_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = KubeletOptions::new("n1", IpAddr::V4(Ipv4Addr::LOCALHOST), dir.path().join("agent"), Api::new().client());
        options.kept_images = Arc::new(Imported);
        let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
        let runtime = Double::new(clock.clone());
        let seams =
            Seams { runtime: Arc::new(runtime.clone()), operations: Operations::new(), clock, cgroups: Cgroups::below("/", dir.path()) };
        let core = Core::new(options, seams, Arc::new(|_| {}), &CancellationToken::new());
        let sandbox = runtime.run_sandbox(cri::PodSandboxConfig::default(), String::new()).await.unwrap();
        // The double's containers are all made of this image.
        runtime.create_container(&sandbox, cri::ContainerConfig::default(), cri::PodSandboxConfig::default()).await.unwrap();
        let stay = [image("sha256:1", "used:1", false), image("sha256:2", "pause:1", false), image("sha256:3", "imported:1", false)];
        let stay: Vec<_> = stay.into_iter().chain([image("sha256:4", "pinned:1", true)]).collect();
        let mut all = stay.clone();
        all.extend([image("sha256:5", "unused:1", false), image("sha256:6", "unused:2", false)]);
        runtime.set_images(all);
        runtime.fail("RemoveImage", Code::Internal, "busy");
        assert_eq!(remove_unused(&core).await.unwrap(), 10, "one of two failed");
        assert_eq!(remove_unused(&core).await.unwrap(), 10, "and went the next time");
        assert_eq!(runtime.list_images().await.unwrap(), stay);

        let mut young = stay.clone();
        young.push(image("sha256:7", "pulled-now:1", false));
        runtime.set_images(young);
        assert_eq!(remove_unused(&core).await.unwrap(), 0);
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!(remove_unused(&core).await.unwrap(), 10);
    }
}
