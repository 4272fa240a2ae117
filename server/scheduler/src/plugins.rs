//! The plugins and their order: that of upstream's default profile.

mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod resources_balanced;
mod resources_fit;
mod taint_toleration;
mod topology_spread;
mod unsupported;
mod volume_binding;
mod volume_restrictions;
mod volume_zone;

use crate::framework::Plugin;

pub(crate) const NODE_NAME: &str = "NodeName";

/// All plugins, filters in the order in which upstream asks them.
pub(crate) fn default_plugins() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(unsupported::Unsupported),
        Box::new(node_unschedulable::NodeUnschedulable),
        Box::new(node_name::NodeName),
        Box::new(taint_toleration::TaintToleration),
        Box::new(node_affinity::NodeAffinity),
        Box::new(node_ports::NodePorts),
        Box::new(resources_fit::NodeResourcesFit),
        Box::new(volume_restrictions::VolumeRestrictions),
        Box::new(volume_binding::VolumeBinding),
        Box::new(volume_zone::VolumeZone),
        Box::new(topology_spread::PodTopologySpread),
        Box::new(inter_pod_affinity::InterPodAffinity),
        Box::new(resources_balanced::NodeResourcesBalancedAllocation),
        Box::new(image_locality::ImageLocality),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    /// Those that are no value of [`crate::framework::Plugin`] here: the queue, preemption and the binding do their work.
    const ELSEWHERE: [&str; 4] = ["SchedulingGates", "PrioritySort", "DefaultPreemption", "DefaultBinder"];

    #[test]
    fn the_page_lists_every_plugin_as_it_is() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/controllers.md")).unwrap();
        let (_, table) = page.split_once("## Scheduler plugins").unwrap();
        let working = table.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | works |")).map(|(name, _)| name);
        let here = super::default_plugins();
        let here = here.iter().map(|plugin| plugin.name()).filter(|name| *name != "Unsupported").chain(ELSEWHERE);
        assert_eq!(working.collect::<BTreeSet<_>>(), here.collect::<BTreeSet<_>>());
    }
}
