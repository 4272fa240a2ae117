//! Names: how they change, and how a folder's sync makes that last.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use super::{Errno, Image, Ino, Kind, MOST_NAME_CHANGES, Result};

/// What belongs together: a rename is two steps, and lasts whole or not at all.
pub(crate) type NameChange = Vec<Step>;

/// One name of one folder: what it means from now on, if anything.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    folder: Ino,
    name: OsString,
    node: Option<Ino>,
}

// === impl Step ===

impl Step {
    pub(super) fn set(folder: Ino, name: &OsStr, node: Ino) -> Step {
        Step { folder, name: name.to_owned(), node: Some(node) }
    }

    pub(super) fn unset(folder: Ino, name: &OsStr) -> Step {
        Step { folder, name: name.to_owned(), node: None }
    }

    pub(super) fn node(&self) -> Option<Ino> {
        self.node
    }
}

// === impl Image ===

impl Image {
    pub(super) fn change_names(&mut self, change: NameChange) {
        let mut unnamed = Vec::new();
        for step in &change {
            let Some(Kind::Folder(folder)) = self.nodes.get_mut(&step.folder).map(|node| &mut node.kind) else { continue };
            let old = match step.node {
                Some(ino) => folder.now.insert(step.name.clone(), ino),
                None => folder.now.remove(&step.name),
            };
            self.count_link(step.node, 1);
            self.count_link(old, -1);
            unnamed.extend(old);
        }
        for node in unnamed.iter().filter_map(|ino| self.nodes.get(ino)).filter(|node| node.links == 0 && node.opened == 0) {
            // A node without a name that no process has open takes no space, though a power cut may bring it back.
            self.used = self.used.saturating_sub(node.size());
        }
        self.changes.push_back(change);
        if self.changes.len() > MOST_NAME_CHANGES
            && let Some(oldest) = self.changes.pop_front()
        {
            self.keep_names(&oldest);
        }
    }

    fn count_link(&mut self, ino: Option<Ino>, by: i32) {
        if let Some(node) = ino.and_then(|ino| self.nodes.get_mut(&ino)) {
            node.links = node.links.saturating_add_signed(by);
        }
    }

    /// Changes of names last.
    pub(crate) fn keep_names(&mut self, change: &NameChange) {
        for step in change {
            let Some(Kind::Folder(folder)) = self.nodes.get_mut(&step.folder).map(|node| &mut node.kind) else { continue };
            match step.node {
                Some(ino) => folder.synced.insert(step.name.clone(), ino),
                None => folder.synced.remove(&step.name),
            };
        }
    }

    /// Makes a folder's names last.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn sync_folder(&mut self, ino: Ino) -> Result<()> {
        if !matches!(self.node(ino)?.kind, Kind::Folder(_)) {
            return Err(Errno::ENOTDIR);
        }
        // Newest first: a change that involves two folders (a rename) lasts whole, so all earlier changes of the other folder last too.
        let mut folders = BTreeSet::from([ino]);
        let mut lasts = vec![false; self.changes.len()];
        for (at, change) in self.changes.iter().enumerate().rev() {
            if change.iter().any(|step| folders.contains(&step.folder)) {
                lasts[at] = true;
                folders.extend(change.iter().map(|step| step.folder));
            }
        }
        let (kept, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.changes).into_iter().zip(lasts).partition(|(_, lasts)| *lasts);
        self.changes = left.into_iter().map(|(change, _)| change).collect();
        kept.iter().for_each(|(change, _)| self.keep_names(change));
        self.sweep();
        Ok(())
    }
}
