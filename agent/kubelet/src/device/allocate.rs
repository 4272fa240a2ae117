//! Devices for a pod: given when it is admitted, told to its containers when they start.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::Instant;

use super::{
    answer::check,
    choice::{Choice, Wish},
    devices::{Devices, State},
    extras::Extras,
    ledger::Grant,
    plugin::Plugin,
};
use crate::{
    amount,
    error::{Error, Result},
    pod::spec,
};

/// What a container asks for of resources of plugins. Limits are what counts: extended resources are not overcommitted.
fn wanted(container: &Container) -> BTreeMap<&str, usize> {
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref()).into_iter().flatten();
    let counts = limits.filter_map(|(name, quantity)| Some((name.as_str(), usize::try_from(amount::of(quantity)?.units()).ok()?)));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Devices that are held for a container while its plugin is asked. They are free again when this is dropped before the plugin has agreed.
struct Reservation<'a> {
    devices: &'a Devices,
    wish: Wish<'a>,
    is_kept: bool,
}

impl Reservation<'_> {
    /// The container has them.
    fn keep(mut self, answer: trireme_proto::deviceplugin::ContainerAllocateResponse) {
        let Wish { pod, container, resource, .. } = self.wish;
        if let Some(grant) = self.devices.state.lock().ledger.get_mut(spec::uid(pod), container, resource) {
            grant.answer = Some(answer);
            self.is_kept = true;
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            let Wish { pod, container, resource, .. } = self.wish;
            self.devices.state.lock().ledger.remove(spec::uid(pod), container, resource);
        }
    }
}

impl Devices {
    /// Gives a pod all devices that its containers ask for. An error of kind `Waiting` is no refusal: the agent has just started, and the
    /// plugin may come. After any other error the pod may have some of its devices until it is released.
    pub(crate) async fn allocate(&self, pod: &Pod) -> Result<()> {
        let mut is_changed = false;
        for (_, container) in spec::all_containers(pod) {
            is_changed |= self.allocate_for(pod, container).await?;
        }
        if is_changed { self.save() } else { Ok(()) }
    }

    /// Gives a container what it does not have yet; true if that was anything.
    async fn allocate_for(&self, pod: &Pod, container: &Container) -> Result<bool> {
        let mut is_changed = false;
        for (resource, count) in wanted(container) {
            let wish = Wish { pod, container: &container.name, resource, count };
            if self.is_needed(wish)? {
                self.grant(wish).await?;
                is_changed = true;
            }
        }
        Ok(is_changed)
    }

    fn is_needed(&self, wish: Wish<'_>) -> Result<bool> {
        let Wish { pod, container, resource, count } = wish;
        let state = self.state.lock();
        if !state.manages(resource) {
            return Ok(false);
        }
        match state.ledger.get(spec::uid(pod), container, resource).map(|grant| grant.devices.len()) {
            None => Ok(true),
            Some(has) if has == count => Ok(false),
            Some(has) => {
                let uid = spec::uid(pod);
                Err(Error::Config(format!(
                    "pod {uid:?} container {container:?} changed request for resource {resource:?} from {has} to {count}"
                )))
            }
        }
    }

    async fn grant(&self, wish: Wish<'_>) -> Result<()> {
        let (preferred, plugin) = self.preferred(wish).await?;
        let (devices, reservation) = {
            let mut state = self.state.lock();
            let picked = self.choose(wish, &state)?.pick(&preferred);
            let nodes = |id: &String| state.inventory.device(wish.resource, id).map(|device| device.numa_nodes.clone()).unwrap_or_default();
            let grant = Grant { devices: picked.iter().map(|id| (id.clone(), nodes(id))).collect(), answer: None };
            state.ledger.set(spec::uid(wish.pod), wish.container, wish.resource, grant);
            (picked, Reservation { devices: self, wish, is_kept: false })
        };
        let said = plugin.allocate(&devices).await?;
        let said =
            said.ok_or_else(|| Error::Config(format!("no containers return in allocation response of device plugin {}", wish.resource)))?;
        check(&said).map_err(|why| Error::Config(format!("device plugin {} gives what no container can use: {why}", wish.resource)))?;
        reservation.keep(said);
        Ok(())
    }

    /// What the plugin would choose, where it says that it has a choice, and the plugin.
    async fn preferred(&self, wish: Wish<'_>) -> Result<(Vec<String>, Plugin)> {
        let (choice, plugin) = {
            let state = self.state.lock();
            let choice = self.choose(wish, &state)?;
            let plugin = state.connections.get(wish.resource).filter(|connection| !connection.is_stopped).map(|c| c.plugin.clone());
            (choice, plugin.ok_or_else(|| Error::Config(format!("unknown Device Plugin {}", wish.resource)))?)
        };
        if !choice.is_open() || !plugin.options.get_preferred_allocation_available {
            return Ok((Vec::new(), plugin));
        }
        let available: BTreeSet<String> = choice.free.union(&choice.taken_over).cloned().collect();
        let said = plugin.preferred(&available, &choice.taken_over, wish.count).await;
        let preferred = said.map_err(|why| Error::Config(format!("device plugin GetPreferredAllocation rpc failed with err: {why}")))?;
        Ok((preferred, plugin))
    }

    fn choose(&self, wish: Wish<'_>, state: &State) -> Result<Choice> {
        Choice::of(wish, &state.inventory, &state.ledger).map_err(|why| {
            // A plugin that was here before this agent started may be about to register again.
            let may_come = !state.inventory.is_served(wish.resource) && Instant::now() < self.settled_at;
            if may_come { Error::Waiting(why) } else { Error::Config(why) }
        })
    }

    /// What a container that is about to start gets because of its devices. Tells the plugins that want to know.
    pub(crate) async fn prepare(&self, pod: &Pod, container: &Container) -> Result<Extras> {
        if self.allocate_for(pod, container).await? {
            self.save()?;
        }
        for resource in wanted(container).into_keys() {
            self.pre_start(pod, container, resource).await?;
        }
        let mut extras = Extras::default();
        let state = self.state.lock();
        let grants = state.ledger.of_container(spec::uid(pod), &container.name).into_iter().flatten();
        grants.filter_map(|(_, grant)| grant.answer.as_ref()).for_each(|answer| extras.add(answer));
        Ok(extras)
    }

    async fn pre_start(&self, pod: &Pod, container: &Container, resource: &str) -> Result<()> {
        let (plugin, devices) = {
            let state = self.state.lock();
            if !state.manages(resource) {
                return Ok(());
            }
            let Some(connection) = state.connections.get(resource) else {
                return Err(Error::Waiting(format!("the device plugin of {resource} has not registered with this agent yet")));
            };
            if !connection.plugin.options.pre_start_required {
                return Ok(());
            }
            if connection.is_stopped {
                return Err(Error::Waiting(format!("the device plugin of {resource} is gone, and has to be told of the start")));
            }
            let grant = state.ledger.get(spec::uid(pod), &container.name, resource);
            (connection.plugin.clone(), grant.map(|grant| grant.devices.keys().cloned().collect()).unwrap_or_default())
        };
        let told = plugin.pre_start(devices).await;
        told.map_err(|why| Error::Config(format!("device plugin PreStartContainer rpc failed with err: {why}")))
    }
}
