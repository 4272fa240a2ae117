//! Usage of volumes, as their drivers report it. A background task asks once a minute; readers get the last answer.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use trireme_proto::csi::{self, node_service_capability::rpc::Type, volume_usage::Unit};

use super::{
    mount::text,
    state::{Csi, Key, Published},
    volume_use::{Usage, VolumeUse},
};

const EVERY: Duration = Duration::from_secs(60);
/// Drivers that hang hold up so many questions before others wait.
const AT_ONCE: usize = 16;

/// A pod's volume, and how full it is.
pub(crate) struct InUse {
    pub(crate) pod_uid: String,
    /// The pod's name for it.
    pub(crate) volume: String,
    /// Namespace and name of its claim.
    pub(crate) claim: Option<(String, String)>,
    pub(crate) usage: VolumeUse,
}

impl Csi {
    /// All volumes whose drivers have told of them.
    pub(crate) fn usage(&self) -> Vec<InUse> {
        let published = self.published.lock();
        let told = published.iter().filter_map(|((pod_uid, _), published)| {
            let usage = published.usage.clone()?;
            Some(InUse { pod_uid: pod_uid.clone(), volume: published.volume.clone(), claim: published.claim.clone(), usage })
        });
        told.collect()
    }

    /// Asks again and again.
    pub(crate) async fn follow_usage(self: Arc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.ask_usage().await;
        }
    }

    /// Asks the drivers that can tell.
    pub(super) async fn ask_usage(&self) {
        let all: Vec<(Key, Published)> = self.published.lock().iter().map(|(key, one)| (key.clone(), one.clone())).collect();
        futures::stream::iter(all).for_each_concurrent(AT_ONCE, |(key, published)| self.ask_one(key, published)).await;
    }

    async fn ask_one(&self, key: Key, published: Published) {
        let Some(driver) = self.drivers.get(&published.id.driver).filter(|driver| driver.abilities.has(Type::GetVolumeStats)) else {
            return;
        };
        let Ok(path) = text(&published.target) else { return };
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: published.id.handle.clone(),
            volume_path: path,
            staging_target_path: published.staging.as_deref().and_then(|path| text(path).ok()).unwrap_or_default(),
        };
        match driver.statistics(request).await {
            Ok(answer) => {
                if let Some(known) = self.published.lock().get_mut(&key) {
                    known.usage = Some(told(&answer));
                }
            }
            Err(error) => tracing::debug!(%error, driver = published.id.driver, "a driver does not tell how full a volume is"),
        }
    }
}

/// The answer in our form. Negative amounts are none.
fn told(answer: &csi::NodeGetVolumeStatsResponse) -> VolumeUse {
    let of = |unit: Unit| {
        let found = answer.usage.iter().find(|usage| usage.unit == unit as i32)?;
        let amount = |value: i64| u64::try_from(value).unwrap_or_default();
        Some(Usage { total: amount(found.total), used: amount(found.used), available: amount(found.available) })
    };
    VolumeUse {
        bytes: of(Unit::Bytes),
        inodes: of(Unit::Inodes),
        abnormal: answer.volume_condition.as_ref().map(|condition| condition.abnormal),
    }
}
