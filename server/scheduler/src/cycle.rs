//! One scheduling cycle: filter, score, choose. No I/O, and the same input gives the same answer.

use std::collections::{BTreeMap, BTreeSet};

use crate::framework::{Plugin, Prepared, Reason, Snapshot};
use crate::node_info::{NodeInfo, PodInfo};

/// Why no node will do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub(crate) nodes: usize,
    /// Nodes for each reason.
    pub(crate) reasons: BTreeMap<String, usize>,
    /// A reason that holds for every node.
    pub(crate) overall: Option<String>,
    /// Who refused: only what they wait for is worth another try.
    pub(crate) plugins: BTreeSet<&'static str>,
}

impl Unfit {
    /// In the words that kubectl users know.
    pub(crate) fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut text = format!("0/{} nodes are available: ", self.nodes);
        match &self.overall {
            Some(overall) => text.push_str(overall),
            None => {
                let mut parts: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
                parts.sort();
                text.push_str(&parts.join(", "));
            }
        }
        if !text.ends_with('.') {
            text.push('.');
        }
        text
    }
}

/// The name of the node for a pod. `tie` decides among equals.
pub(crate) fn schedule(plugins: &[Box<dyn Plugin>], pod: &PodInfo, snapshot: &Snapshot<'_>, tie: u64) -> Result<String, Unfit> {
    let mut unfit = Unfit { nodes: snapshot.nodes.len(), ..Unfit::default() };
    for plugin in plugins {
        if let Err(reason) = plugin.pre_filter(pod) {
            unfit.overall = Some(reason.into_owned());
            unfit.plugins.insert(plugin.name());
            return Err(unfit);
        }
    }
    let prepared: Vec<(&dyn Plugin, Box<dyn Prepared + '_>)> =
        plugins.iter().map(|plugin| (&**plugin, plugin.prepare(pod, snapshot))).collect();
    let mut feasible: Vec<&NodeInfo> = Vec::new();
    for node in &snapshot.nodes {
        match refusal(&prepared, node) {
            None => feasible.push(node),
            Some((plugin, reasons)) => {
                unfit.plugins.insert(plugin);
                for reason in reasons {
                    *unfit.reasons.entry(reason.into_owned()).or_default() += 1;
                }
            }
        }
    }
    match feasible.as_slice() {
        [] => Err(unfit),
        [only] => Ok(only.name().to_owned()),
        several => Ok(best(&prepared, several, tie).name().to_owned()),
    }
}

/// The first plugin that refuses the node, as upstream stops there too.
fn refusal(prepared: &[(&dyn Plugin, Box<dyn Prepared + '_>)], node: &NodeInfo) -> Option<(&'static str, Vec<Reason>)> {
    prepared.iter().find_map(|(plugin, ready)| {
        let reasons = ready.filter(node);
        (!reasons.is_empty()).then(|| (plugin.name(), reasons))
    })
}

fn best<'n>(prepared: &[(&dyn Plugin, Box<dyn Prepared + '_>)], nodes: &[&'n NodeInfo], tie: u64) -> &'n NodeInfo {
    let mut totals = vec![0_i64; nodes.len()];
    for (plugin, ready) in prepared.iter().filter(|(plugin, _)| plugin.weight() > 0) {
        for (total, score) in totals.iter_mut().zip(ready.score(nodes)) {
            *total += score * plugin.weight();
        }
    }
    let top = totals.iter().copied().max().unwrap_or(0);
    let tops: Vec<&&NodeInfo> = nodes.iter().zip(&totals).filter(|(_, total)| **total == top).map(|(node, _)| node).collect();
    let nth = usize::try_from(tie % (tops.len() as u64)).unwrap_or(0);
    tops[nth]
}
