//! The image as the kernel asks for it.
//!
//! The kernel keeps nothing back: without its write-back cache every write arrives here before the process goes on, so "what a
//! process sees" is complete at every moment.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use crate::disk::Shared;
use crate::image::{Ino, Kind, Node, Result};

/// All changes pass through the kernel, so it may cache for this long.
const TTL: Duration = Duration::from_secs(3600);
const BLOCK: u32 = 4096;

/// The mounted side of a disk.
pub(crate) struct Mounted {
    shared: Arc<Shared>,
}

fn errno(error: nix::errno::Errno) -> Errno {
    Errno::from_i32(error as i32)
}

fn attributes(ino: Ino, node: &Node) -> FileAttr {
    let kind = match node.kind {
        Kind::File(_) => FileType::RegularFile,
        Kind::Folder(_) => FileType::Directory,
        Kind::Link(_) => FileType::Symlink,
        Kind::Special(libc::S_IFSOCK) => FileType::Socket,
        Kind::Special(_) => FileType::NamedPipe,
    };
    FileAttr {
        ino: INodeNo(ino),
        size: node.size(),
        blocks: node.size().div_ceil(512),
        atime: node.changed,
        mtime: node.changed,
        ctime: node.changed,
        crtime: UNIX_EPOCH,
        kind,
        perm: (node.mode & 0o7777) as u16,
        nlink: node.links,
        uid: node.uid,
        gid: node.gid,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

// === impl Mounted ===

impl Mounted {
    pub(crate) fn new(shared: Arc<Shared>) -> Mounted {
        Mounted { shared }
    }

    fn make(&self, req: &Request, parent: INodeNo, name: &OsStr, kind: Kind, mode: u32) -> Result<FileAttr> {
        let mut image = self.shared.image.lock();
        let ino = image.make(parent.0, name, kind, mode, (req.uid(), req.gid()))?;
        let node = image.node_mut(ino)?;
        node.changed = SystemTime::now();
        Ok(attributes(ino, node))
    }

    fn make_entry(&self, req: &Request, parent: INodeNo, name: &OsStr, kind: Kind, mode: u32, reply: ReplyEntry) {
        match self.make(req, parent, name, kind, mode) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => reply.error(errno(error)),
        }
    }

    /// Makes `last` what there is when a sync begins, after the delay that is set.
    fn sync(&self, ino: Option<Ino>, reply: ReplyEmpty, last: impl FnOnce(&Shared, u64, bool) -> Result<()> + Send + 'static) {
        let mark = match ino.map(|ino| self.shared.image.lock().mark(ino)).transpose() {
            Ok(mark) => mark.unwrap_or_default(),
            Err(error) => return reply.error(errno(error)),
        };
        self.shared.syncs.fetch_add(1, Ordering::SeqCst);
        let shared = self.shared.clone();
        let finish = move || {
            let fails = shared.syncs_fail.load(Ordering::SeqCst);
            answer(if fails { last(&shared, mark, true).and(Err(nix::errno::Errno::EIO)) } else { last(&shared, mark, false) }, reply);
        };
        match self.shared.sync_delay_ms.load(Ordering::SeqCst) {
            0 => finish(),
            delay_ms => {
                // One thread for each sync that a process waits for. Other requests go on meanwhile.
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(delay_ms));
                    finish();
                });
            }
        }
    }
}

fn answer(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let image = self.shared.image.lock();
        match image.lookup(parent.0, name).and_then(|ino| Ok(attributes(ino, image.node(ino)?))) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.shared.image.lock().node(ino.0) {
            Ok(node) => reply.attr(&TTL, &attributes(ino.0, node)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut image = self.shared.image.lock();
        let result = size.map_or(Ok(()), |size| image.resize(ino.0, size)).and_then(|()| {
            let node = image.node_mut(ino.0)?;
            node.mode = mode.unwrap_or(node.mode);
            node.uid = uid.unwrap_or(node.uid);
            node.gid = gid.unwrap_or(node.gid);
            node.changed = match mtime {
                Some(TimeOrNow::SpecificTime(time)) => time,
                _ => SystemTime::now(),
            };
            Ok(attributes(ino.0, node))
        });
        match result {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        use std::os::unix::ffi::OsStrExt;
        match self.shared.image.lock().node(ino.0).map(|node| &node.kind) {
            Ok(Kind::Link(target)) => reply.data(target.as_bytes()),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _rdev: u32, reply: ReplyEntry) {
        let kind = match mode & libc::S_IFMT {
            0 | libc::S_IFREG => Kind::file(),
            kind @ (libc::S_IFSOCK | libc::S_IFIFO) => Kind::Special(kind),
            _ => return reply.error(Errno::EPERM),
        };
        self.make_entry(req, parent, name, kind, mode & !umask, reply);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.make_entry(req, parent, name, Kind::folder(), mode & !umask, reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.make_entry(req, parent, name, Kind::Link(target.as_os_str().to_owned()), 0o777, reply);
    }

    fn link(&self, _req: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut image = self.shared.image.lock();
        match image.link(ino.0, parent.0, name).and_then(|()| Ok(attributes(ino.0, image.node(ino.0)?))) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.shared.image.lock().remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.shared.image.lock().remove(parent.0, name, true), reply);
    }

    fn rename(&self, _req: &Request, parent: INodeNo, name: &OsStr, to: INodeNo, to_name: &OsStr, flags: RenameFlags, reply: ReplyEmpty) {
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            return reply.error(Errno::EINVAL);
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        answer(self.shared.image.lock().rename((parent.0, name), (to.0, to_name), replace), reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.shared.image.lock().open(ino.0) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn create(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _flags: i32, reply: ReplyCreate) {
        let made = self.make(req, parent, name, Kind::file(), mode & !umask);
        match made.and_then(|attributes| self.shared.image.lock().open(attributes.ino.0).map(|()| attributes)) {
            Ok(attributes) => reply.created(&TTL, &attributes, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.shared.image.lock().read(ino.0, offset, size as usize) {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut image = self.shared.image.lock();
        let result = image.write(ino.0, offset, data).and_then(|()| {
            image.node_mut(ino.0)?.changed = SystemTime::now();
            // Covers O_SYNC, which includes its bit.
            if flags.0 & libc::O_DSYNC != 0 {
                let mark = image.mark(ino.0)?;
                image.sync(ino.0, mark)?;
            }
            Ok(())
        });
        match result {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        // Closing a file syncs nothing.
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.image.lock().close(ino.0);
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync(Some(ino.0), reply, move |shared, mark, fails| {
            let mut image = shared.image.lock();
            if fails { image.fail_sync(ino.0, mark) } else { image.sync(ino.0, mark) }
        });
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.sync(None, reply, move |shared, _, fails| if fails { Ok(()) } else { shared.image.lock().sync_folder(ino.0) });
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let image = self.shared.image.lock();
        let names = match image.names(ino.0) {
            Ok(names) => names,
            Err(error) => return reply.error(errno(error)),
        };
        // By number: a folder that is emptied while it is listed is listed whole.
        let mut entries: Vec<(Ino, &OsStr)> = names.map(|(name, inner)| (inner, name)).collect();
        entries.sort_unstable();
        let dots = [(1, ino.0, OsStr::new(".")), (2, ino.0, OsStr::new(".."))];
        let all = dots.into_iter().chain(entries.into_iter().map(|(inner, name)| (inner + 2, inner, name)));
        for (next, inner, name) in all.filter(|(next, ..)| *next > offset) {
            let kind = image.node(inner).map_or(FileType::RegularFile, |node| attributes(inner, node).kind);
            if reply.add(INodeNo(inner), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let image = self.shared.image.lock();
        let block = u64::from(BLOCK);
        let free = image.capacity().saturating_sub(image.used()) / block;
        reply.statfs(image.capacity() / block, free, free, 1 << 20, 1 << 20, BLOCK, 255, BLOCK);
    }

    fn fallocate(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        let mut image = self.shared.image.lock();
        let end = offset.saturating_add(length);
        let result = image.node(ino.0).map(Node::size).and_then(|size| match mode {
            // Only checks that there is space now; the reservation is not recorded.
            libc::FALLOC_FL_KEEP_SIZE => image.reserve(end.saturating_sub(size)),
            0 => {
                if end > size {
                    image.resize(ino.0, end)
                } else {
                    Ok(())
                }
            }
            _ if mode == libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE => {
                let zeros = vec![0; end.min(size).saturating_sub(offset) as usize];
                if zeros.is_empty() { Ok(()) } else { image.write(ino.0, offset, &zeros) }
            }
            _ => Err(nix::errno::Errno::EOPNOTSUPP),
        });
        answer(result, reply);
    }
}
