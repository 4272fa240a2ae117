//! Why no node will do, and what is said about it. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use crate::framework::{Reason, Refusal};

/// The reasons why no node fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// How many nodes there are.
    pub(crate) nodes: usize,
    /// The refusal of each node that was examined.
    pub(crate) refused: BTreeMap<String, Refusal>,
    /// The reason reported for the nodes that were not examined.
    pub(crate) others: Option<Reason>,
    /// A reason that applies to all nodes and replaces the others.
    pub(crate) overall: Option<Reason>,
    /// The plugins that refused: only events that these wait for can make another attempt succeed.
    pub(crate) plugins: BTreeSet<&'static str>,
}

impl Unfit {
    /// The nodes of which other pods' leaving may make a fit.
    pub(crate) fn passing(&self) -> impl Iterator<Item = &str> {
        self.refused.iter().filter(|(_, refusal)| !refusal.lasting).map(|(node, _)| node.as_str())
    }

    /// Whether no pod's leaving makes this node a fit.
    pub(crate) fn is_lasting(&self, node: &str) -> bool {
        self.refused.get(node).is_none_or(|refusal| refusal.lasting)
    }

    /// In the words that kubectl users know.
    pub(crate) fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut text = format!("0/{} nodes are available:", self.nodes);
        let said = match &self.overall {
            Some(overall) => overall.to_string(),
            None => self.counted(),
        };
        if !said.is_empty() {
            text.push(' ');
            text.push_str(&said);
            text.push('.');
        }
        text
    }

    /// How many nodes each reason holds for, ordered by their text as upstream does.
    fn counted(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.refused.values().flat_map(|refusal| &refusal.reasons) {
            *counts.entry(reason).or_default() += 1;
        }
        if let Some(others) = &self.others
            && self.refused.len() < self.nodes
        {
            *counts.entry(others).or_default() += self.nodes - self.refused.len();
        }
        let mut parts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        parts.join(", ")
    }
}
