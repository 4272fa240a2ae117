//! What the node's status says. Composed from a view of the machine and the runtime, without I/O of its own beyond [`NodeView::look`].

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
        NodeRuntimeHandlerFeatures, NodeStatus, NodeSystemInfo,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};

use trireme_proto::cri;

use super::{extended, signal::Resource, thresholds::is_short};
use crate::{amount::Amount, core::Core, device::Totals};

/// Upstream's bounds for the list of images.
const MAX_IMAGES: usize = 50;
const MAX_NAMES: usize = 5;
/// Images change seldom: they are listed with every so many looks.
const IMAGES_EVERY: u32 = 6;

/// What was seen at the last look.
#[derive(Default)]
pub(crate) struct NodeView {
    runtime_version: Option<String>,
    /// What the runtime can do; None for one that does not tell.
    features: Option<cri::RuntimeFeatures>,
    handlers: Vec<cri::RuntimeHandler>,
    /// Why the node is not ready, if so.
    trouble: Option<String>,
    images: Vec<ContainerImage>,
    looks: u32,
    /// Images were on their way into the runtime.
    were_coming: bool,
    /// Where the runtime keeps images, once it has said so.
    image_folder: Option<PathBuf>,
    memory_pressure: bool,
    disk_pressure: bool,
    pid_pressure: bool,
    devices: Totals,
}

impl NodeView {
    /// Asks the runtime and the machine how they are.
    pub(crate) async fn look(&mut self, core: &Core, runtime_up: bool) {
        self.trouble = self.runtime_trouble(core, runtime_up).await;
        let were_coming = std::mem::replace(&mut self.were_coming, core.images_are_coming());
        if self.trouble.is_none() && (were_coming || self.looks.is_multiple_of(IMAGES_EVERY)) {
            self.images = images(core).await.unwrap_or_else(|| std::mem::take(&mut self.images));
        }
        self.looks = self.looks.wrapping_add(1);
        if self.image_folder.is_none() && self.trouble.is_none() {
            self.image_folder = core.runtime.image_folder().await.ok().flatten();
        }
        let readings = core.readings(self.image_folder.as_deref());
        let is_short = |of: fn(Resource) -> bool| is_short(&core.options.eviction_hard, &core.options.eviction_soft, &readings, of);
        self.memory_pressure = is_short(|resource| resource == Resource::Memory);
        self.disk_pressure = is_short(Resource::is_of_disks);
        self.pid_pressure = is_short(|resource| resource == Resource::Pids);
        self.devices = core.devices.totals();
    }

    async fn runtime_trouble(&mut self, core: &Core, runtime_up: bool) -> Option<String> {
        if let Some(trouble) = core.host_trouble.read().clone() {
            return Some(trouble);
        }
        if !runtime_up {
            return Some("container runtime is down".into());
        }
        if self.runtime_version.is_none() {
            match core.runtime.version().await {
                Ok(version) => self.runtime_version = Some(format!("{}://{}", version.runtime_name, version.runtime_version)),
                Err(_) => return Some("container runtime is down".into()),
            }
        }
        let status = match core.runtime.status().await {
            Ok(status) => status,
            Err(_) => return Some("container runtime is down".into()),
        };
        self.features = status.features;
        self.handlers = status.runtime_handlers;
        let conditions = status.status.unwrap_or_default().conditions;
        let not = |type_: &str| conditions.iter().find(|c| c.r#type == type_ && !c.status);
        if let Some(c) = not("RuntimeReady") {
            return Some(format!("container runtime not ready: RuntimeReady=false reason:{} message:{}", c.reason, c.message));
        }
        let network = not("NetworkReady")?;
        let (reason, message) = (&network.reason, &network.message);
        let hint = core.options.network_hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
        Some(format!("container runtime network not ready: NetworkReady=false reason:{reason} message:{message}{hint}"))
    }
}

async fn images(core: &Core) -> Option<Vec<ContainerImage>> {
    let mut images: Vec<ContainerImage> = core
        .runtime
        .list_images()
        .await
        .ok()?
        .into_iter()
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.into_iter().chain(image.repo_tags).take(MAX_NAMES).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect();
    images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.names.cmp(&b.names)));
    images.truncate(MAX_IMAGES);
    Some(images)
}

/// The whole status.
pub(crate) fn compose(core: &Core, view: &NodeView, before: Option<&NodeStatus>) -> NodeStatus {
    let options = &core.options;
    let machine = &core.machine;
    let address = |type_: &str, address: String| NodeAddress { type_: type_.into(), address };
    let addresses = options
        .node_ips
        .iter()
        .map(|ip| address("InternalIP", ip.to_string()))
        .chain(options.node_external_ips.iter().map(|ip| address("ExternalIP", ip.to_string())))
        .chain([address("Hostname", options.node_name.clone())])
        .collect();
    let (mut capacity, mut allocatable) = (quantities(&machine.capacity(options.max_pods)), quantities(&core.allocatable));
    extended::add(&view.devices, before, &mut capacity, &mut allocatable);
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        conditions: Some(conditions(view, before, core.now())),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(options.listen.port()) }) }),
        images: Some(view.images.clone()),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.into(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: view.runtime_version.clone().unwrap_or_else(|| "containerd://Unknown".into()),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: options.version.clone(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: machine.os_image.clone(),
            swap: None,
            system_uuid: machine.system_uuid.clone(),
        }),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(view.features.is_some_and(|f| f.supplemental_groups_policy)) }),
        runtime_handlers: (!view.handlers.is_empty()).then(|| view.handlers.iter().map(runtime_handler).collect()),
        volumes_in_use: volumes_in_use(core, before),
        ..Default::default()
    }
}

/// The list is there once it had an entry: a patch that leaves it out would leave the old one.
fn volumes_in_use(core: &Core, before: Option<&NodeStatus>) -> Option<Vec<String>> {
    let used = core.csi.volumes_in_use();
    (!used.is_empty() || before.is_some_and(|before| before.volumes_in_use.is_some())).then_some(used)
}

fn runtime_handler(handler: &cri::RuntimeHandler) -> NodeRuntimeHandler {
    let features = handler.features.unwrap_or_default();
    NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    }
}

fn quantities(amounts: &BTreeMap<String, Amount>) -> BTreeMap<String, Quantity> {
    let text = |name: &str, amount: &Amount| match name {
        "memory" if amount.units() % 1024 == 0 => format!("{}Ki", amount.units() / 1024),
        "ephemeral-storage" if amount.units() % 1024 == 0 => format!("{}Ki", amount.units() / 1024),
        "cpu" if amount.milli() % 1000 != 0 => format!("{}m", amount.milli()),
        _ => amount.units().to_string(),
    };
    amounts.iter().map(|(name, amount)| (name.clone(), Quantity(text(name, amount)))).collect()
}

fn conditions(view: &NodeView, before: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let make = |type_: &str, status: bool, reason: &str, message: &str| {
        let status = if status { "True" } else { "False" };
        let same = before.and_then(|s| s.conditions.as_ref()).into_iter().flatten().find(|c| c.type_ == type_ && c.status == status);
        NodeCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
        }
    };
    let pressure = |type_: &str, under: bool, good: (&str, &str), bad: (&str, &str)| {
        let (reason, message) = if under { bad } else { good };
        make(type_, under, reason, message)
    };
    vec![
        pressure(
            "MemoryPressure",
            view.memory_pressure,
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            view.disk_pressure,
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ),
        pressure(
            "PIDPressure",
            view.pid_pressure,
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ),
        match &view.trouble {
            None => make("Ready", true, "KubeletReady", "kubelet is posting ready status"),
            Some(trouble) => make("Ready", false, "KubeletNotReady", trouble),
        },
    ]
}

/// Whether there is news: heartbeats alone are none.
pub(crate) fn differs(before: Option<&NodeStatus>, after: &NodeStatus) -> bool {
    let Some(before) = before else { return true };
    let ours = |status: &NodeStatus| -> Vec<(String, String, Option<String>, Option<String>)> {
        let known = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
        let mut list: Vec<_> = status
            .conditions
            .iter()
            .flatten()
            .filter(|c| known.contains(&c.type_.as_str()))
            .map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.message.clone()))
            .collect();
        list.sort();
        list
    };
    let images = |status: &NodeStatus| status.images.clone().unwrap_or_default();
    ours(before) != ours(after)
        || before.addresses != after.addresses
        || before.capacity != after.capacity
        || before.allocatable != after.allocatable
        || before.node_info != after.node_info
        || before.daemon_endpoints != after.daemon_endpoints
        || before.features != after.features
        || before.runtime_handlers != after.runtime_handlers
        || before.volumes_in_use.as_deref().unwrap_or_default() != after.volumes_in_use.as_deref().unwrap_or_default()
        || images(before) != images(after)
}

/// Whether a status says Ready.
pub(crate) fn is_ready(status: &NodeStatus) -> Option<bool> {
    status.conditions.iter().flatten().find(|c| c.type_ == "Ready").map(|c| c.status == "True")
}

/// The same for a status that may not be there yet.
pub(crate) fn is_ready_option(status: Option<&NodeStatus>) -> Option<bool> {
    status.and_then(is_ready)
}
