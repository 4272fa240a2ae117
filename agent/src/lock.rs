//! One agent for each data directory.
//!
//! Owns `<agent-dir>/lock`, held for as long as the process lives. Taken before anything else is touched: a second agent would
//! replace the sockets and rules of the first, and a clean-up would pull a running node's pods from under it.

use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

use crate::error::Error;

/// The folder is ours until this is dropped; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub struct FolderLock(#[allow(dead_code)] File);

impl FolderLock {
    /// Takes the folder, which is made if it is missing.
    pub fn take(agent_dir: &Path) -> Result<Self, Error> {
        let unusable = |e: std::io::Error| Error::Host(format!("--data-dir: {} cannot be used: {e}", agent_dir.display()));
        fs::create_dir_all(agent_dir).map_err(unusable)?;
        let file = File::options().create(true).truncate(false).write(true).open(agent_dir.join("lock")).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Host(format!(
                "--data-dir: {} is in use by another process: stop it, or give this one a directory of its own",
                agent_dir.display()
            ))),
            Err(TryLockError::Error(e)) => Err(unusable(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        assert!(FolderLock::take(folder.path()).is_err_and(|e| e.to_string().contains("in use by another process")));
        drop(first);
        assert!(FolderLock::take(folder.path()).is_ok());
    }
}
