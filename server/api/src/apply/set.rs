//! Sets of fields, as trees.
//!
//! Operations walk two sorted lists in parallel, so their time is linear in the size of both sets.

use std::cmp::Ordering;

use super::element::PathElement;

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Sorted by element, each once.
    // Invariant: a branch is a member itself, or has members below.
    branches: Vec<Branch>,
}

/// What a set has at one element and below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The element.
    pub element: PathElement,
    /// Whether the path to the element is in the set.
    pub is_member: bool,
    /// The rest of the longer paths.
    pub below: Set,
}

/// Makes a branch of those that two sets have at one element.
type Join<'f> = &'f dyn Fn(Option<&Branch>, Option<&Branch>) -> Option<Branch>;

// === impl Set ===

impl Set {
    /// The set of these paths of names.
    pub fn of_names(paths: &[&[&str]]) -> Set {
        let mut set = Set::default();
        for path in paths {
            set.insert(&path.iter().map(|name| PathElement::field(name)).collect::<Vec<_>>());
        }
        set
    }

    /// From branches in any order; those of the same element are united, and empty ones are left out.
    pub fn from_branches(mut branches: Vec<Branch>) -> Set {
        branches.retain(|branch| branch.is_member || !branch.below.is_empty());
        if !branches.is_sorted_by(|a, b| a.element < b.element) {
            branches.sort_by(|a, b| a.element.cmp(&b.element));
            let mut united: Vec<Branch> = Vec::with_capacity(branches.len());
            for branch in branches {
                match united.last_mut() {
                    Some(last) if last.element == branch.element => {
                        last.is_member |= branch.is_member;
                        last.below = last.below.union(&branch.below);
                    }
                    _ => united.push(branch),
                }
            }
            branches = united;
        }
        Set { branches }
    }

    /// The branches, sorted by element.
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// Whether it has no paths.
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }

    /// How many paths it has.
    pub fn len(&self) -> usize {
        self.branches.iter().map(|branch| usize::from(branch.is_member) + branch.below.len()).sum()
    }

    /// Adds a path; the path of no elements, the whole object, is never a member.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((first, rest)) = path.split_first() else { return };
        let at = match self.find(first) {
            Ok(at) => at,
            Err(at) => {
                self.branches.insert(at, Branch { element: first.clone(), is_member: false, below: Set::default() });
                at
            }
        };
        if rest.is_empty() {
            self.branches[at].is_member = true;
        } else {
            self.branches[at].below.insert(rest);
        }
    }

    fn find(&self, element: &PathElement) -> Result<usize, usize> {
        self.branches.binary_search_by(|branch| branch.element.cmp(element))
    }

    /// What it has at an element.
    pub fn branch(&self, element: &PathElement) -> Option<&Branch> {
        self.find(element).ok().map(|at| &self.branches[at])
    }

    /// Whether a path is in it.
    pub fn contains(&self, path: &[PathElement]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        self.branch(first).is_some_and(|branch| if rest.is_empty() { branch.is_member } else { branch.below.contains(rest) })
    }

    /// The paths of both.
    #[must_use]
    pub fn union(&self, other: &Set) -> Set {
        self.zip(other, &|mine, theirs| match (mine, theirs) {
            (Some(only), None) | (None, Some(only)) => Some(only.clone()),
            (Some(mine), Some(theirs)) => Some(mine.with(mine.is_member || theirs.is_member, mine.below.union(&theirs.below))),
            (None, None) => None,
        })
    }

    /// The paths that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        self.zip(other, &|mine, theirs| {
            let (mine, theirs) = (mine?, theirs?);
            mine.with(mine.is_member && theirs.is_member, mine.below.intersection(&theirs.below)).kept()
        })
    }

    /// The paths that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Set) -> Set {
        self.zip(other, &|mine, theirs| match (mine?, theirs) {
            (mine, None) => Some(mine.clone()),
            (mine, Some(theirs)) => mine.with(mine.is_member && !theirs.is_member, mine.below.difference(&theirs.below)).kept(),
        })
    }

    /// The paths that are neither in `other` nor below one that is.
    #[must_use]
    pub fn recursive_difference(&self, other: &Set) -> Set {
        self.zip(other, &|mine, theirs| match (mine?, theirs) {
            (mine, None) => Some(mine.clone()),
            (_, Some(theirs)) if theirs.is_member => None,
            (mine, Some(theirs)) => mine.with(mine.is_member, mine.below.recursive_difference(&theirs.below)).kept(),
        })
    }

    /// Walks both, element by element.
    fn zip(&self, other: &Set, join: Join<'_>) -> Set {
        let (mut mine, mut theirs) = (self.branches.iter().peekable(), other.branches.iter().peekable());
        let mut branches = Vec::with_capacity(self.branches.len());
        loop {
            let order = match (mine.peek(), theirs.peek()) {
                (Some(a), Some(b)) => a.element.cmp(&b.element),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Set { branches },
            };
            let a = if order.is_le() { mine.next() } else { None };
            let b = if order.is_ge() { theirs.next() } else { None };
            branches.extend(join(a, b));
        }
    }

    /// Calls `visit` with every path, in order, each before those below it.
    pub fn visit(&self, visit: &mut dyn FnMut(&[&PathElement])) {
        fn walk<'a>(set: &'a Set, path: &mut Vec<&'a PathElement>, visit: &mut dyn FnMut(&[&PathElement])) {
            for branch in &set.branches {
                path.push(&branch.element);
                if branch.is_member {
                    visit(path);
                }
                walk(&branch.below, path, visit);
                path.pop();
            }
        }
        walk(self, &mut Vec::new(), visit);
    }
}

// === impl Branch ===

impl Branch {
    fn with(&self, is_member: bool, below: Set) -> Branch {
        Branch { element: self.element.clone(), is_member, below }
    }

    fn kept(self) -> Option<Branch> {
        (self.is_member || !self.below.is_empty()).then_some(self)
    }
}
