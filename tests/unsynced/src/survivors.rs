//! What a power cut leaves of unsynced data, chosen by a seed, so that a run can be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::image::{Image, Ino, Kind, ROOT, content::Change};

const PAGE: u64 = 4096;

/// Which part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survivors {
    /// Nothing.
    Nothing,
    /// All of it: as if only the processes had been killed.
    Everything,
    /// Of each file's changes the first ones, the last of them torn at any byte; of the names the first that changed.
    Beginnings,
    /// Of each file any of the pages that were written, in no order; of the names the first that changed.
    Pages,
}

/// What a power cut took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Changes of names.
    pub names: usize,
    /// Files that lost something.
    pub files: usize,
    /// Bytes of theirs.
    pub bytes: usize,
    /// Writes of which a part is left.
    pub torn: usize,
}

// === impl Survivors ===

impl Survivors {
    /// All of them.
    pub const ALL: [Survivors; 4] = [Survivors::Nothing, Survivors::Everything, Survivors::Beginnings, Survivors::Pages];

    /// Any.
    pub fn any(random: &mut StdRng) -> Survivors {
        Survivors::ALL.choose(random).copied().unwrap_or(Survivors::Nothing)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {} files ({} writes torn) and {} names", self.bytes, self.files, self.torn, self.names)
    }
}

// === impl Image ===

impl Image {
    /// A power cut: what was not synced is lost, but for the survivors. No process may have anything open.
    pub fn lose(&mut self, survivors: Survivors, random: &mut StdRng) -> Loss {
        let mut loss = Loss::default();
        let changes = std::mem::take(&mut self.changes);
        let kept = match survivors {
            Survivors::Nothing => 0,
            Survivors::Everything => changes.len(),
            Survivors::Beginnings | Survivors::Pages => random.random_range(0..=changes.len()),
        };
        loss.names = changes.len() - kept;
        changes.iter().take(kept).for_each(|change| self.keep_names(change));
        for node in self.nodes.values_mut() {
            node.opened = 0;
            match &mut node.kind {
                Kind::File(content) => {
                    let before: usize = content.unsynced().iter().map(Change::bytes).sum();
                    let kept = pick(content.unsynced().iter(), survivors, random, &mut loss);
                    let after: usize = kept.iter().map(Change::bytes).sum();
                    loss.files += usize::from(after < before);
                    loss.bytes += before - after;
                    content.lose(&kept);
                }
                Kind::Folder(folder) => folder.now.clone_from(&folder.synced),
                Kind::Link(_) | Kind::Special(_) => {}
            }
        }
        self.reach();
        loss
    }

    /// Only what can be reached from the root is left, and counted anew.
    fn reach(&mut self) {
        let mut links: BTreeMap<Ino, u32> = BTreeMap::from([(ROOT, 1)]);
        let mut folders = vec![ROOT];
        let mut seen = BTreeSet::from([ROOT]);
        while let Some(ino) = folders.pop() {
            let Some(Kind::Folder(folder)) = self.nodes.get(&ino).map(|node| &node.kind) else { continue };
            for inner in folder.now.values() {
                *links.entry(*inner).or_default() += 1;
                if seen.insert(*inner) {
                    folders.push(*inner);
                }
            }
        }
        self.nodes.retain(|ino, _| links.contains_key(ino));
        for (ino, node) in &mut self.nodes {
            node.links = links.get(ino).copied().unwrap_or_default();
        }
        self.sweep();
    }
}

/// The changes of one file that survive.
fn pick<'a>(changes: impl ExactSizeIterator<Item = &'a Change>, survivors: Survivors, random: &mut StdRng, loss: &mut Loss) -> Vec<Change> {
    match survivors {
        Survivors::Nothing => Vec::new(),
        Survivors::Everything => changes.cloned().collect(),
        Survivors::Beginnings => {
            let whole = random.random_range(0..=changes.len());
            let mut kept = Vec::new();
            for (at, change) in changes.enumerate() {
                match change {
                    change if at < whole => kept.push(change.clone()),
                    Change::Write { at: start, bytes } if at == whole => {
                        let length = random.random_range(0..=bytes.len());
                        loss.torn += usize::from(length > 0 && length < bytes.len());
                        kept.push(Change::Write { at: *start, bytes: bytes[..length].to_vec() });
                    }
                    _ => break,
                }
            }
            kept
        }
        Survivors::Pages => {
            let mut lucky: BTreeMap<u64, bool> = BTreeMap::new();
            let mut kept = Vec::new();
            for change in changes {
                match change {
                    Change::Resize(_) => kept.push(change.clone()),
                    Change::Write { at, bytes } => {
                        let pieces = pages(*at, bytes);
                        let left: Vec<Change> = pieces
                            .filter(|(page, _)| *lucky.entry(*page).or_insert_with(|| random.random()))
                            .map(|(_, piece)| piece)
                            .collect();
                        let length: usize = left.iter().map(Change::bytes).sum();
                        loss.torn += usize::from(length > 0 && length < bytes.len());
                        kept.extend(left);
                    }
                }
            }
            kept
        }
    }
}

/// A write, cut at the borders of pages.
fn pages(at: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, Change)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let here = at + start as u64;
        let length = ((PAGE - here % PAGE) as usize).min(bytes.len() - start);
        (length > 0).then(|| {
            let piece = bytes[start..start + length].to_vec();
            start += length;
            (here / PAGE, Change::Write { at: here, bytes: piece })
        })
    })
}
