//! Addresses of one node's pods.
//!
//! Owns a folder with one file per reserved address (name: the address, content: the sandbox id), so that a
//! restarted agent knows which addresses are taken without asking any other process. Addresses are handed out in a circle, so that a
//! freed one rests as long as possible. `.0` belongs to the tunnel device, `.1` to the bridge.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;

use crate::Error;

/// The pool of one pod CIDR.
#[derive(Debug)]
pub struct AddressPool {
    cidr: Ipv4Net,
    folder: PathBuf,
    taken: BTreeMap<Ipv4Addr, String>,
    last: u32,
}

impl AddressPool {
    /// Opens (or makes) the pool in `folder`; reservations outside `cidr` are kept on disk but not used.
    pub fn open(cidr: Ipv4Net, folder: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&folder).map_err(Error::io(format!("create {}", folder.display())))?;
        let mut taken = BTreeMap::new();
        let entries = fs::read_dir(&folder).map_err(Error::io(format!("read {}", folder.display())))?;
        for entry in entries.flatten() {
            let Some(address) = entry.file_name().to_str().and_then(|n| n.parse::<Ipv4Addr>().ok()) else { continue };
            taken.insert(address, fs::read_to_string(entry.path()).unwrap_or_default());
        }
        let last = taken.keys().next_back().copied().map_or(0, u32::from);
        Ok(Self { cidr, folder, taken, last })
    }

    /// The bridge's own address: the first of the CIDR.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.network()) + 1)
    }

    /// The CIDR that the pool serves.
    pub fn cidr(&self) -> Ipv4Net {
        self.cidr
    }

    /// Reserves an address for `owner`. The same owner gets the same address again.
    pub fn reserve(&mut self, owner: &str) -> Result<Ipv4Addr, Error> {
        let held = self.taken.iter().find(|(a, o)| o.as_str() == owner && self.cidr.contains(*a));
        if let Some((address, _)) = held {
            return Ok(*address);
        }
        let first = u32::from(self.cidr.network()) + 2;
        let end = u32::from(self.cidr.broadcast());
        let start = if (first..end).contains(&(self.last + 1)) { self.last + 1 } else { first };
        let address = (start..end)
            .chain(first..start)
            .map(Ipv4Addr::from)
            .find(|a| !self.taken.contains_key(a))
            .ok_or(Error::PoolExhausted(self.cidr))?;
        self.write(address, owner)?;
        self.last = u32::from(address);
        self.taken.insert(address, owner.to_owned());
        Ok(address)
    }

    /// Frees whatever `owner` holds; freeing twice is no error.
    pub fn release(&mut self, owner: &str) {
        let held: Vec<Ipv4Addr> = self.taken.iter().filter(|(_, o)| o.as_str() == owner).map(|(a, _)| *a).collect();
        for address in held {
            let path = self.folder.join(address.to_string());
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    // The file would make the address look taken after a restart: keep it taken now as well.
                    tracing::warn!(path = %path.display(), %error, "address not freed");
                }
                _ => drop(self.taken.remove(&address)),
            }
        }
    }

    /// Frees whatever `owner` holds in a folder that no pool is open on: when a node is cleaned up.
    pub fn release_in(folder: &Path, owner: &str) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if fs::read_to_string(entry.path()).is_ok_and(|text| text == owner)
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "address not freed");
            }
        }
    }

    fn write(&self, address: Ipv4Addr, owner: &str) -> Result<(), Error> {
        let path = self.folder.join(address.to_string());
        let mut file = fs::File::create(&path).map_err(Error::io(format!("create {}", path.display())))?;
        file.write_all(owner.as_bytes()).map_err(Error::io(format!("write {}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pool(folder: &std::path::Path) -> AddressPool {
        AddressPool::open("10.42.3.0/29".parse().unwrap(), folder.to_owned()).unwrap()
    }

    #[test]
    fn addresses_rest_before_they_are_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut pool = pool(folder.path());
        let a = pool.reserve("a").unwrap();
        assert_eq!(a, "10.42.3.2".parse::<Ipv4Addr>().unwrap(), "network, tunnel and bridge are skipped");
        pool.release("a");
        assert_ne!(pool.reserve("b").unwrap(), a);
    }

    #[test]
    fn a_full_pool_says_so_and_a_freed_address_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut pool = pool(folder.path());
        for owner in ["a", "b", "c", "d", "e"] {
            pool.reserve(owner).unwrap();
        }
        assert!(matches!(pool.reserve("f"), Err(Error::PoolExhausted(_))));
        pool.release("c");
        assert_eq!(pool.reserve("f").unwrap(), "10.42.3.4".parse::<Ipv4Addr>().unwrap());
    }

    #[test]
    fn vm_11_an_address_is_freed_where_no_pool_is_open() {
        let folder = tempfile::tempdir().unwrap();
        pool(folder.path()).reserve("a").unwrap();
        let b = pool(folder.path()).reserve("b").unwrap();
        AddressPool::release_in(folder.path(), "a");
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).collect();
        assert_eq!(left, [b.to_string()]);
    }

    #[test]
    fn reservations_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let a = pool(folder.path()).reserve("a").unwrap();
        let mut again = pool(folder.path());
        assert_eq!(again.reserve("a").unwrap(), a);
        assert_ne!(again.reserve("b").unwrap(), a);
    }
}
