//! Two images of one file system: what processes see now, and what would be there after a power cut.
//!
//! Pure: no I/O, no clock, no threads. A file is its synced content and the changes since; a folder its synced names, and one list
//! for all folders says in which order names have changed since.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

pub(crate) mod content;
pub(crate) mod names;

use content::Content;
use names::{NameChange, Step};

/// Number of a file, folder or other node. Never used twice.
pub type Ino = u64;
/// The root folder.
pub const ROOT: Ino = 1;

/// Name changes that are not synced; beyond it the oldest is written back.
const MOST_NAME_CHANGES: usize = 4096;

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it changed last, as the process sees it.
    pub changed: SystemTime,
    /// Names that it has now.
    pub links: u32,
    pub(crate) opened: u32,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A regular file.
    File(Content),
    /// A folder.
    Folder(Folder),
    /// A symbolic link.
    Link(OsString),
    /// A socket or pipe: the file type bits.
    Special(u32),
}

/// A folder's names.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    pub(crate) now: BTreeMap<OsString, Ino>,
    pub(crate) synced: BTreeMap<OsString, Ino>,
}

/// The whole.
#[derive(Debug)]
pub struct Image {
    pub(crate) nodes: BTreeMap<Ino, Node>,
    next: Ino,
    pub(crate) changes: VecDeque<NameChange>,
    capacity: u64,
    used: u64,
}

/// What a change of the image may answer.
pub type Result<T> = std::result::Result<T, Errno>;

// === impl Node ===

impl Node {
    fn new(kind: Kind, mode: u32, owner: (u32, u32)) -> Node {
        Node { kind, mode, uid: owner.0, gid: owner.1, changed: UNIX_EPOCH, links: 0, opened: 0 }
    }

    /// Bytes that can be read now.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.kind {
            Kind::File(content) => content.now().len() as u64,
            Kind::Link(target) => target.len() as u64,
            Kind::Folder(_) | Kind::Special(_) => 0,
        }
    }
}

// === impl Kind ===

impl Kind {
    /// An empty file.
    #[must_use]
    pub fn file() -> Kind {
        Kind::File(Content::default())
    }

    /// An empty folder.
    #[must_use]
    pub fn folder() -> Kind {
        Kind::Folder(Folder::default())
    }
}

// === impl Image ===

impl Image {
    /// Empty, for so many bytes of content.
    #[must_use]
    pub fn new(capacity: u64) -> Image {
        let root = Node { links: 1, ..Node::new(Kind::folder(), 0o755, (0, 0)) };
        Image { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, changes: VecDeque::new(), capacity, used: 0 }
    }

    /// Bytes of content there may be.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Changes it, also to less than there is.
    pub fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
    }

    /// Bytes of content there are.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// A node.
    ///
    /// # Errors
    /// ENOENT.
    pub fn node(&self, ino: Ino) -> Result<&Node> {
        self.nodes.get(&ino).ok_or(Errno::ENOENT)
    }

    /// A node whose attributes are to change.
    ///
    /// # Errors
    /// ENOENT.
    pub fn node_mut(&mut self, ino: Ino) -> Result<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    fn folder(&self, ino: Ino) -> Result<&Folder> {
        match &self.node(ino)?.kind {
            Kind::Folder(folder) => Ok(folder),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn content(&mut self, ino: Ino) -> Result<&mut Content> {
        match &mut self.node_mut(ino)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Folder(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The node of this name.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn lookup(&self, folder: Ino, name: &OsStr) -> Result<Ino> {
        self.folder(folder)?.now.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// The names in a folder, in order.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn names(&self, folder: Ino) -> Result<impl Iterator<Item = (&OsStr, Ino)>> {
        Ok(self.folder(folder)?.now.iter().map(|(name, ino)| (name.as_os_str(), *ino)))
    }

    /// Makes a node under a name.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EEXIST.
    pub fn make(&mut self, folder: Ino, name: &OsStr, kind: Kind, mode: u32, owner: (u32, u32)) -> Result<Ino> {
        if self.folder(folder)?.now.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, Node::new(kind, mode, owner));
        self.change_names(vec![Step::set(folder, name, ino)]);
        Ok(ino)
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EEXIST, EPERM for folders.
    pub fn link(&mut self, ino: Ino, folder: Ino, name: &OsStr) -> Result<()> {
        if matches!(self.node(ino)?.kind, Kind::Folder(_)) {
            return Err(Errno::EPERM);
        }
        if self.folder(folder)?.now.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.change_names(vec![Step::set(folder, name, ino)]);
        Ok(())
    }

    /// Removes a name: of an empty folder, or of anything else.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EISDIR, ENOTEMPTY.
    pub fn remove(&mut self, folder: Ino, name: &OsStr, is_folder: bool) -> Result<()> {
        let ino = self.lookup(folder, name)?;
        match (&self.node(ino)?.kind, is_folder) {
            (Kind::Folder(inner), true) if !inner.now.is_empty() => return Err(Errno::ENOTEMPTY),
            (Kind::Folder(_), true) => {}
            (Kind::Folder(_), false) => return Err(Errno::EISDIR),
            (_, true) => return Err(Errno::ENOTDIR),
            (_, false) => {}
        }
        self.change_names(vec![Step::unset(folder, name)]);
        Ok(())
    }

    /// Moves a name, over another if there is one and `replace` says so.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EISDIR, ENOTEMPTY, EEXIST.
    pub fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr), replace: bool) -> Result<()> {
        let ino = self.lookup(from.0, from.1)?;
        if let Some(&old) = self.folder(to.0)?.now.get(to.1) {
            if !replace {
                return Err(Errno::EEXIST);
            }
            if old == ino {
                return Ok(());
            }
            match (&self.node(ino)?.kind, &self.node(old)?.kind) {
                (Kind::Folder(_), Kind::Folder(inner)) if !inner.now.is_empty() => return Err(Errno::ENOTEMPTY),
                (Kind::Folder(_), Kind::Folder(_)) => {}
                (Kind::Folder(_), _) => return Err(Errno::ENOTDIR),
                (_, Kind::Folder(_)) => return Err(Errno::EISDIR),
                _ => {}
            }
        }
        self.change_names(vec![Step::unset(from.0, from.1), Step::set(to.0, to.1, ino)]);
        Ok(())
    }

    /// Writes; returns nothing short of everything.
    ///
    /// # Errors
    /// ENOENT, EISDIR, ENOSPC.
    pub fn write(&mut self, ino: Ino, at: u64, bytes: &[u8]) -> Result<()> {
        let size = self.node(ino)?.size();
        self.reserve((at + bytes.len() as u64).saturating_sub(size))?;
        let grown = self.content(ino)?.write(at, bytes);
        self.used += grown;
        Ok(())
    }

    /// Cuts off, or extends with zeros.
    ///
    /// # Errors
    /// ENOENT, EISDIR, ENOSPC.
    pub fn resize(&mut self, ino: Ino, size: u64) -> Result<()> {
        let before = self.node(ino)?.size();
        self.reserve(size.saturating_sub(before))?;
        self.content(ino)?.resize(size);
        self.used = (self.used + size).saturating_sub(before);
        Ok(())
    }

    /// Whether there is space for so many more bytes.
    ///
    /// # Errors
    /// ENOSPC.
    pub fn reserve(&self, more: u64) -> Result<()> {
        match more == 0 || self.used.saturating_add(more) <= self.capacity {
            true => Ok(()),
            false => Err(Errno::ENOSPC),
        }
    }

    /// What can be read there, at most so many bytes.
    ///
    /// # Errors
    /// ENOENT, EINVAL.
    pub fn read(&self, ino: Ino, at: u64, most: usize) -> Result<&[u8]> {
        let Kind::File(content) = &self.node(ino)?.kind else { return Err(Errno::EINVAL) };
        let now = content.now();
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(now.len());
        Ok(&now[start..start.saturating_add(most).min(now.len())])
    }

    /// Up to where the changes of a file go: what a sync that begins now must make last.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn mark(&mut self, ino: Ino) -> Result<u64> {
        Ok(self.content(ino)?.mark())
    }

    /// Makes a file's content last, up to a mark.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn sync(&mut self, ino: Ino, mark: u64) -> Result<()> {
        self.content(ino)?.sync(mark);
        Ok(())
    }

    /// A sync up to a mark has failed: what it was to write will never last.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn fail_sync(&mut self, ino: Ino, mark: u64) -> Result<()> {
        self.content(ino)?.forget(mark);
        Ok(())
    }

    /// A node is in use, whatever becomes of its names.
    ///
    /// # Errors
    /// ENOENT.
    pub fn open(&mut self, ino: Ino) -> Result<()> {
        self.node_mut(ino)?.opened += 1;
        Ok(())
    }

    /// And no more.
    pub fn close(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.opened = node.opened.saturating_sub(1);
        if node.opened == 0 && node.links == 0 {
            self.sweep();
        }
    }

    /// Removes nodes that nothing leads to any more: no name now, none after a power cut, no process.
    pub(crate) fn sweep(&mut self) {
        let mut used: BTreeSet<Ino> = BTreeSet::from([ROOT]);
        used.extend(self.nodes.iter().filter(|(_, node)| node.opened > 0).map(|(ino, _)| *ino));
        used.extend(self.changes.iter().flatten().filter_map(Step::node));
        for node in self.nodes.values() {
            if let Kind::Folder(folder) = &node.kind {
                used.extend(folder.now.values().chain(folder.synced.values()));
            }
        }
        self.nodes.retain(|ino, _| used.contains(ino));
        self.used = self.nodes.values().filter(|node| node.links > 0 || node.opened > 0).map(Node::size).sum();
    }
}

#[cfg(test)]
mod tests;
