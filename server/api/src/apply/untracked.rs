//! Fields that a write of a subresource may contain but never changes. Upstream: `GetResetFields` of a strategy.

use super::element::PathElement;
use super::set::{Branch, Set};

/// The fields that a write of one subresource leaves unchanged, so the write gives them no manager. Paths are names joined by dots; a
/// star stands for every item of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untracked {
    /// These, and what is below them.
    Only(&'static [&'static str]),
    /// All but these, and what is below them.
    AllBut(&'static [&'static str]),
}

impl Untracked {
    /// No field.
    pub const NONE: Untracked = Untracked::Only(&[]);

    /// Removes these fields from a set.
    pub fn filter(self, set: Set) -> Set {
        match self {
            Untracked::Only([]) => set,
            Untracked::Only(paths) => {
                let parts: Vec<Vec<&str>> = paths.iter().map(|path| path.split('.').collect()).collect();
                set.recursive_difference(&Set::of_names(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>()))
            }
            Untracked::AllBut(paths) => {
                let patterns: Vec<Vec<&str>> = paths.iter().map(|path| path.split('.').collect()).collect();
                kept(&set, &patterns.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
        }
    }
}

/// The part of a set that is at or below one of the patterns. As upstream, members on the path to a pattern are kept too.
fn kept(set: &Set, patterns: &[&[&str]]) -> Set {
    let branches = set.branches().iter().filter_map(|branch| {
        let fits = |step: &str| step == "*" || matches!(&branch.element, PathElement::Field(name) if **name == *step);
        let rest: Vec<&[&str]> =
            patterns.iter().filter_map(|pattern| pattern.split_first()).filter(|(step, _)| fits(step)).map(|(_, rest)| rest).collect();
        if rest.is_empty() {
            return None;
        }
        let below = if rest.iter().any(|rest| rest.is_empty()) { branch.below.clone() } else { kept(&branch.below, &rest) };
        Some(Branch { element: branch.element.clone(), is_member: branch.is_member, below })
    });
    Set::from_branches(branches.collect())
}
