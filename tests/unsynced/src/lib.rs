//! A disk that forgets what was not synced: a file system in memory with two images, mounted through FUSE, for power cuts
//! of real processes.
//!
//! - [`image`]: the two images, pure: what a process sees, and what a power cut leaves;
//! - [`survivors`]: which part of what was not synced a power cut leaves all the same, by a seed;
//! - [`Disk`]: an image mounted at a folder, and its faults: slow syncs, failing syncs, no space.
//!
//! It must not keep more than a real disk does where a store may rely on it, nor lose so much that no store could work on it. The model
//! is
//! what POSIX promises, which is less than what ext4 keeps:
//!
//! - Content is kept when `fsync` or `fdatasync` of the file has returned; a write to a file opened with `O_DSYNC` when it has returned.
//! - A name (made, removed, renamed, linked) is kept when `fsync` of its folder has returned. A file whose content was synced and
//!   whose name was not is gone. A rename is kept whole or not at all, also from one folder to another.
//! - What was not synced is lost, or a seeded part of it is kept: the beginning of a file's writes, the last of them torn at any
//!   byte, or any of its pages; of names those that changed first.
//! - Much that is not synced is written back by itself, oldest first, as a kernel does: that bounds the memory.
//! - After a sync that failed, what it was to sync is never kept, although later syncs succeed (as on Linux).
//! - Permissions and times are of no interest here: they are as the process saw them last.
//!
//! Tests alone use it.

mod disk;
mod fuse;
pub mod image;
pub mod survivors;

pub use disk::Disk;
pub use survivors::Survivors;
