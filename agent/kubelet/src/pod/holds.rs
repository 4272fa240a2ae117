//! Until when each step of a pod's start is held back after it failed. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// A step that may be held back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    /// Making the sandbox.
    Sandbox,
    /// Mapping the host ports.
    HostPorts,
    /// Waiting for images that are being imported.
    Images,
    /// Preparing the volumes.
    Volumes,
    /// Writing the status.
    Status,
    /// Resizing the containers.
    Resize,
    /// Starting the container of this name.
    Container(String),
}

/// The holds of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds(BTreeMap<Hold, Timestamp>);

impl Holds {
    /// Holds a step back until then.
    pub(crate) fn set(&mut self, step: Hold, until: Timestamp) {
        self.0.insert(step, until);
    }

    /// The step worked, or is tried now.
    pub(crate) fn lift(&mut self, step: &Hold) {
        self.0.remove(step);
    }

    /// Until when a step is held back, if it still is.
    pub(crate) fn until(&self, step: &Hold, now: Timestamp) -> Option<Timestamp> {
        self.0.get(step).copied().filter(|at| now < *at)
    }

    /// The same for a container.
    pub(crate) fn container(&self, name: &str, now: Timestamp) -> Option<Timestamp> {
        self.until(&Hold::Container(name.to_string()), now)
    }

    /// The first end of a hold that is still to come. One that has passed says nothing: its step may wait for something else, and it
    /// must not hide the others.
    pub(crate) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.values().copied().filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(secs).unwrap()
    }

    #[test]
    fn a_moment_that_has_passed_does_not_hide_those_to_come() {
        let mut holds = Holds::default();
        holds.set(Hold::Status, at(2));
        holds.set(Hold::Sandbox, at(20));
        holds.set(Hold::Container("a".into()), at(30));
        assert_eq!(holds.next(at(1)), Some(at(2)));
        assert_eq!(holds.next(at(10)), Some(at(20)));
        assert_eq!(holds.next(at(30)), None);
    }

    #[test]
    fn f4_containers_may_have_the_names_of_steps() {
        let mut holds = Holds::default();
        for name in ["status", "images", "volumes", "sandbox"] {
            holds.set(Hold::Container(name.into()), at(10));
        }
        for step in [Hold::Status, Hold::Images, Hold::Volumes, Hold::Sandbox] {
            assert_eq!(holds.until(&step, at(1)), None);
            holds.set(step.clone(), at(5));
            holds.lift(&step);
        }
        for name in ["status", "images", "volumes", "sandbox"] {
            assert_eq!(holds.container(name, at(1)), Some(at(10)), "{name}");
        }
    }
}
