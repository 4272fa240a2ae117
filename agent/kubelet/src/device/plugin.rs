//! The calls to one device plugin, each with a deadline.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use tonic::{Streaming, transport::Channel};
use trireme_proto::deviceplugin::{self as wire, device_plugin_client::DevicePluginClient};

use crate::plugin_call::{Refused, answer, channel};

/// A plugin is to be reached within this after it has registered, as upstream has it.
const MEET: Duration = Duration::from_secs(10);
const MEET_PAUSE: Duration = Duration::from_millis(100);
/// The deadline of Allocate. Upstream's kubelet has none.
const ALLOCATE: Duration = Duration::from_secs(120);
/// Upstream's deadline of the call before a container starts.
const PRE_START: Duration = Duration::from_secs(30);
/// What upstream's kubelet receives at most.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// A cheap handle on one plugin.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    client: DevicePluginClient<Channel>,
    pub(super) options: wire::DevicePluginOptions,
}

fn list(ids: &BTreeSet<String>) -> Vec<String> {
    ids.iter().cloned().collect()
}

impl Plugin {
    /// Connects to a plugin, which may not listen yet, and asks what it wants to be asked.
    pub(super) async fn meet(socket: PathBuf) -> Result<Plugin, Refused> {
        let mut client = DevicePluginClient::new(channel(socket)).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let since = tokio::time::Instant::now();
        loop {
            let left = MEET.saturating_sub(since.elapsed());
            match answer(left, client.get_device_plugin_options(wire::Empty {})).await {
                Ok(options) => return Ok(Plugin { client, options }),
                Err(refused) if refused.code == tonic::Code::Unavailable && since.elapsed() + MEET_PAUSE < MEET => {
                    tokio::time::sleep(MEET_PAUSE).await;
                }
                Err(refused) => return Err(refused),
            }
        }
    }

    /// Its devices: all at first, and all again after each change. The stream ends with the plugin.
    pub(super) async fn list_and_watch(&self) -> Result<Streaming<wire::ListAndWatchResponse>, Refused> {
        answer(MEET, self.client.clone().list_and_watch(wire::Empty {})).await
    }

    /// Which devices the plugin would take.
    pub(super) async fn preferred(
        &self,
        available: &BTreeSet<String>,
        must_include: &BTreeSet<String>,
        count: usize,
    ) -> Result<Vec<String>, Refused> {
        let request = wire::ContainerPreferredAllocationRequest {
            available_device_ids: list(available),
            must_include_device_ids: list(must_include),
            allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
        };
        let request = wire::PreferredAllocationRequest { container_requests: vec![request] };
        let said = answer(ALLOCATE, self.client.clone().get_preferred_allocation(request)).await?;
        Ok(said.container_responses.into_iter().next().map(|first| first.device_ids).unwrap_or_default())
    }

    /// Takes devices for a container; None if the plugin has nothing to say of it.
    pub(super) async fn allocate(&self, devices: &BTreeSet<String>) -> Result<Option<wire::ContainerAllocateResponse>, Refused> {
        let request = wire::AllocateRequest { container_requests: vec![wire::ContainerAllocateRequest { device_ids: list(devices) }] };
        let said = answer(ALLOCATE, self.client.clone().allocate(request)).await?;
        Ok(said.container_responses.into_iter().next())
    }

    /// A container with these devices is about to start.
    pub(super) async fn pre_start(&self, devices: Vec<String>) -> Result<(), Refused> {
        let request = wire::PreStartContainerRequest { device_ids: devices };
        answer(PRE_START, self.client.clone().pre_start_container(request)).await.map(drop)
    }
}
