//! Slices as transient units of systemd, made over D-Bus: with this driver systemd owns the tree, and a directory made beside it would
//! be undone at its next reload. Answers to <https://systemd.io/CGROUP_DELEGATION/> and org.freedesktop.systemd1(5).

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{limits::Limits, name::Name, tree::Tree};
use crate::{
    dbus::{Body, Connection},
    error::{Error, Result},
};

const PRIVATE_SOCKET: &str = "/run/systemd/private";
const DESTINATION: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// How long a slice may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// The service manager of this host.
#[derive(Clone, Debug)]
pub(crate) struct Systemd;

impl Systemd {
    /// Systemd, if it runs here and lets us speak to it.
    pub(crate) fn connect() -> Result<Systemd> {
        connection().map(|_| Systemd)
    }

    /// Starts a slice with these limits, or sets them on the one that runs.
    pub(crate) fn make(&self, tree: &Tree, name: &Name, limits: &Limits) -> Result<()> {
        let path = name.slices();
        if tree.exists(&path) {
            return self.set(tree, name, limits);
        }
        let body = start_body(name, limits, tree.is_unified());
        match connection()?.call(DESTINATION, PATH, MANAGER, "StartTransientUnit", &body) {
            Ok(_) => {}
            Err(e) if e.is("org.freedesktop.systemd1.UnitExists") => return self.set(tree, name, limits),
            Err(e) => return Err(Error::Config(format!("start {}: {e}", name.unit()))),
        }
        let end = Instant::now() + PATIENCE;
        while !tree.exists(&path) {
            if Instant::now() > end {
                return Err(Error::Config(format!("{} was started, but its cgroup {path} did not appear", name.unit())));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Sets limits of a slice. They survive a reload of systemd and end with the slice.
    pub(crate) fn set(&self, tree: &Tree, name: &Name, limits: &Limits) -> Result<()> {
        let properties = limits.properties(tree.is_unified());
        if properties.is_empty() {
            return Ok(());
        }
        let mut body = Body::default();
        body.string(&name.unit());
        body.boolean(true);
        body.array("a(sv)", |list| {
            for (property, value) in &properties {
                list.structure(|pair| {
                    pair.string(property);
                    pair.variant_u64(*value);
                });
            }
        });
        let called = connection()?.call(DESTINATION, PATH, MANAGER, "SetUnitProperties", &body);
        called.map(drop).map_err(|e| Error::Config(format!("set properties of {}: {e}", name.unit())))
    }

    /// Stops a slice; its cgroup goes with it.
    pub(crate) fn stop(&self, name: &Name) -> Result<()> {
        let mut body = Body::default();
        body.string(&name.unit());
        body.string("replace");
        match connection()?.call(DESTINATION, PATH, MANAGER, "StopUnit", &body) {
            Ok(_) => Ok(()),
            Err(e) if e.is("org.freedesktop.systemd1.NoSuchUnit") => Ok(()),
            Err(e) => Err(Error::Config(format!("stop {}: {e}", name.unit()))),
        }
    }
}

fn connection() -> Result<Connection> {
    Connection::open(Path::new(PRIVATE_SOCKET)).map_err(|e| Error::Config(format!("systemd does not answer on {PRIVATE_SOCKET}: {e}")))
}

/// `StartTransientUnit(name, mode, properties, aux)`
fn start_body(name: &Name, limits: &Limits, unified: bool) -> Body {
    let mut body = Body::default();
    body.string(&name.unit());
    body.string("replace");
    body.array("a(sv)", |list| {
        list.structure(|pair| {
            pair.string("Description");
            pair.variant_string(&format!("Kubernetes pods {}", name.cgroupfs()));
        });
        list.structure(|pair| {
            pair.string("Wants");
            pair.variant_strings(&[name.parent_unit()]);
        });
        for switch in ["MemoryAccounting", "CPUAccounting", "TasksAccounting"] {
            list.structure(|pair| {
                pair.string(switch);
                pair.variant_boolean(true);
            });
        }
        // A slice that is part of the shutdown ordering would be stopped before the pods had their grace period.
        list.structure(|pair| {
            pair.string("DefaultDependencies");
            pair.variant_boolean(false);
        });
        for (property, value) in limits.properties(unified) {
            list.structure(|pair| {
                pair.string(property);
                pair.variant_u64(value);
            });
        }
    });
    body.array("a(sa(sv))", |_| {});
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d13_a_slice_is_asked_for_with_its_parent_and_its_limits() {
        let name = Name::parse("/").child("kubepods").child("besteffort");
        let body = start_body(&name, &Limits { cpu_shares: Some(2), ..Limits::default() }, true);
        assert_eq!(body.signature(), "ssa(sv)a(sa(sv))");
        let text: String = body.bytes().iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '.' }).collect();
        for part in ["kubepods-besteffort.slice", "replace", "Wants", "kubepods.slice", "DefaultDependencies", "CPUWeight"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
