//! One scheduling cycle: filter, score, choose. No I/O, and the same input gives the same answer.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::framework::{Change, Plugin, Prepared, Refusal, Snapshot};
use crate::node_info::{NodeInfo, PodInfo};
use crate::unfit::Unfit;

/// In clusters of fewer nodes, every node is looked at.
const ALL_NODES_BELOW: usize = 100;

/// The plugins, ready for one pod.
pub(crate) struct Cycle<'a> {
    pub(crate) pod: &'a PodInfo,
    pub(crate) snapshot: &'a Snapshot<'a>,
    plugins: &'a [Box<dyn Plugin>],
    ready: Vec<Ready<'a>>,
}

struct Ready<'a> {
    name: &'static str,
    weight: i64,
    prepared: Box<dyn Prepared + 'a>,
}

impl<'a> Cycle<'a> {
    pub(crate) fn new(plugins: &'a [Box<dyn Plugin>], pod: &'a PodInfo, snapshot: &'a Snapshot<'a>) -> Self {
        Self { pod, snapshot, plugins, ready: Vec::new() }
    }

    /// The node for the pod. `tie` decides among equals, and where the search begins in a large cluster.
    pub(crate) fn place(&mut self, tie: u64) -> Result<&'a NodeInfo, Unfit> {
        let mut unfit = Unfit { nodes: self.snapshot.nodes.len(), ..Unfit::default() };
        if unfit.nodes == 0 {
            return Err(unfit);
        }
        let only = self.pre_filter(&mut unfit)?;
        self.ready = self
            .plugins
            .iter()
            .filter_map(|plugin| {
                let prepared = plugin.prepare(self.pod, self.snapshot)?;
                Some(Ready { name: plugin.name(), weight: plugin.weight(), prepared })
            })
            .collect();
        // Victims have made room there: it is likely the only node that will do.
        let in_view = self.snapshot.nominated.node_of(self.pod.uid()).and_then(|name| self.snapshot.node(name));
        if let Some(node) = in_view
            && self.refusal(node).is_none()
        {
            return Ok(node);
        }
        let nodes: Vec<&'a NodeInfo> = match only {
            None => self.snapshot.nodes.clone(),
            Some(names) => names.iter().filter_map(|name| self.snapshot.node(name)).collect(),
        };
        match self.feasible(&nodes, tie, &mut unfit).as_slice() {
            [] => Err(unfit),
            [one] => Ok(*one),
            several => Ok(self.best(several, tie)),
        }
    }

    /// The names of the only nodes that are worth a look, if a plugin knows them.
    fn pre_filter(&self, unfit: &mut Unfit) -> Result<Option<BTreeSet<String>>, Unfit> {
        let mut only: Option<BTreeSet<String>> = None;
        let mut narrowing: BTreeSet<&'static str> = BTreeSet::new();
        for plugin in self.plugins {
            match plugin.pre_filter(self.pod, self.snapshot) {
                Err(refusal) => {
                    unfit.overall = Some(refusal.reasons.join(", ").into());
                    unfit.plugins.insert(plugin.name());
                    return Err(std::mem::take(unfit));
                }
                Ok(None) => {}
                Ok(Some(names)) => {
                    narrowing.insert(plugin.name());
                    only = Some(match only {
                        None => names,
                        Some(known) => known.intersection(&names).cloned().collect(),
                    });
                }
            }
            if only.as_ref().is_some_and(BTreeSet::is_empty) {
                let who = narrowing.iter().copied().collect::<Vec<_>>().join(" ");
                let text = if narrowing.len() == 1 {
                    format!("node(s) didn't satisfy plugin {who}")
                } else {
                    format!("node(s) didn't satisfy plugin(s) [{who}] simultaneously")
                };
                unfit.overall = Some(text.into());
                unfit.plugins.extend(narrowing);
                return Err(std::mem::take(unfit));
            }
        }
        if !narrowing.is_empty() {
            let who = narrowing.iter().copied().collect::<Vec<_>>().join(" ");
            unfit.others = Some(format!("node(s) didn't satisfy plugin(s) [{who}]").into());
            unfit.plugins.extend(narrowing);
        }
        Ok(only)
    }

    /// The nodes that pass all filters, or enough of them.
    fn feasible(&mut self, nodes: &[&'a NodeInfo], tie: u64, unfit: &mut Unfit) -> Vec<&'a NodeInfo> {
        let enough = enough(nodes.len());
        let start = if enough < nodes.len() { usize::try_from(tie % nodes.len() as u64).unwrap_or(0) } else { 0 };
        let (before, after) = nodes.split_at(start);
        let mut feasible = Vec::new();
        for node in after.iter().chain(before) {
            match self.refusal(node) {
                None => feasible.push(*node),
                Some((plugin, refusal)) => {
                    unfit.plugins.insert(plugin);
                    unfit.refused.insert(node.name().to_owned(), refusal);
                }
            }
            if feasible.len() == enough {
                break;
            }
        }
        feasible
    }

    /// The first plugin that refuses the node, as upstream stops there too. The pod has to fit both with and without the
    /// pods of equal or higher priority that have the node in view: they are not there yet, and may go elsewhere.
    pub(crate) fn refusal(&mut self, node: &NodeInfo) -> Option<(&'static str, Refusal)> {
        let snapshot = self.snapshot;
        let ahead: Vec<&Arc<PodInfo>> = snapshot
            .nominated
            .on(node.name())
            .filter(|other| other.priority >= self.pod.priority && other.uid() != self.pod.uid())
            .collect();
        if !ahead.is_empty() {
            let mut fuller = node.clone();
            ahead.iter().for_each(|other| self.imagine(&mut fuller, other, Change::Comes));
            let refusal = self.filter(&fuller);
            ahead.iter().for_each(|other| self.imagine(&mut fuller, other, Change::Goes));
            if refusal.is_some() {
                return refusal;
            }
        }
        self.filter(node)
    }

    fn filter(&self, node: &NodeInfo) -> Option<(&'static str, Refusal)> {
        self.ready.iter().find_map(|ready| ready.prepared.filter(node).err().map(|refusal| (ready.name, refusal)))
    }

    /// From now on, filters see a cluster in which `other` has come to the node or left it.
    pub(crate) fn imagine(&mut self, node: &mut NodeInfo, other: &Arc<PodInfo>, change: Change) {
        match change {
            Change::Comes => node.add(Arc::clone(other)),
            Change::Goes => node.remove(other.uid()),
        }
        for ready in &mut self.ready {
            ready.prepared.imagine(other, node, change);
        }
    }

    fn best(&self, nodes: &[&'a NodeInfo], tie: u64) -> &'a NodeInfo {
        let mut totals = vec![0_i64; nodes.len()];
        for ready in self.ready.iter().filter(|ready| ready.weight > 0) {
            for (total, score) in totals.iter_mut().zip(ready.prepared.score(nodes)) {
                *total += score * ready.weight;
            }
        }
        let top = totals.iter().copied().max().unwrap_or(0);
        let tops: Vec<&'a NodeInfo> = nodes.iter().zip(&totals).filter(|(_, total)| **total == top).map(|(node, _)| *node).collect();
        let nth = usize::try_from(tie % (tops.len() as u64)).unwrap_or(0);
        tops[nth]
    }
}

/// How many fitting nodes are enough to choose among: fewer, in proportion, the larger the cluster is.
fn enough(nodes: usize) -> usize {
    if nodes < ALL_NODES_BELOW {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(ALL_NODES_BELOW)
}

#[cfg(test)]
mod tests {
    use super::enough;

    #[test]
    fn large_clusters_are_searched_in_part() {
        for (nodes, expected) in [(1, 1), (99, 99), (100, 100), (150, 100), (1000, 420), (5000, 500), (6000, 300)] {
            assert_eq!(enough(nodes), expected, "{nodes} nodes");
        }
    }
}
