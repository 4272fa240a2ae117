//! Which controllers run, and why others do not.
//!
//! Answers to: `--controllers` of <https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/>.

use std::collections::BTreeSet;

use crate::controllers::{self, ABSENT, Entry, Home};

/// What was switched off. The default is everything on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// Nothing of kube-controller-manager's runs: another one does its work.
    pub manager_off: bool,
    off: BTreeSet<String>,
}

/// One controller, as [`crate::Controllers::states`] tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerState {
    /// Upstream's name.
    pub name: &'static str,
    /// Whether it works while its server leads.
    pub is_on: bool,
    /// Why it does not.
    pub reason: Option<String>,
}

impl Switches {
    /// Everything of kube-controller-manager's is off.
    #[must_use]
    pub fn without_manager() -> Self {
        Self { manager_off: true, ..Self::default() }
    }

    /// Switches one controller off.
    ///
    /// # Errors
    /// A name that no controller here has.
    pub fn switch_off(&mut self, name: &str) -> Result<(), String> {
        check(name)?;
        self.off.insert(name.to_owned());
        Ok(())
    }

    /// What upstream's `--controllers` says: `*` for all that are on by default, `NAME`, `-NAME`.
    ///
    /// # Errors
    /// A name that no controller here has.
    pub fn select(&mut self, list: &str) -> Result<(), String> {
        let items: Vec<&str> = list.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        for item in items.iter().filter(|item| **item != "*") {
            check(item.trim_start_matches('-'))?;
        }
        let all = items.contains(&"*");
        for name in switchable() {
            let is_named_off = items.iter().any(|item| item.strip_prefix('-') == Some(name));
            if !items.contains(&name) && (is_named_off || !all) {
                self.off.insert(name.to_owned());
            }
        }
        Ok(())
    }

    /// Whether this controller, or part of one, runs.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        !self.manager_off && !self.off.contains(name)
    }

    /// Whether anything of this entry runs.
    pub(crate) fn runs(&self, entry: &Entry) -> bool {
        entry.home == Home::Elsewhere || entry.names.iter().any(|name| self.is_on(name))
    }

    /// All controllers in order of their names, upstream's that are not here among them.
    #[must_use]
    pub fn states(&self) -> Vec<ControllerState> {
        let mut states: Vec<ControllerState> = Vec::new();
        for entry in controllers::all() {
            for name in entry.names.iter().copied() {
                let reason = match entry.home {
                    Home::Manager if self.manager_off => Some("--disable-controller-manager".to_owned()),
                    Home::Manager if self.off.contains(name) => Some(format!("--disable-controller {name}")),
                    Home::Manager | Home::Elsewhere => None,
                };
                states.push(ControllerState { name, is_on: reason.is_none(), reason });
            }
        }
        let absent = ABSENT.iter().map(|(name, why)| ControllerState { name, is_on: false, reason: Some((*why).to_owned()) });
        states.extend(absent);
        states.sort_by_key(|state| state.name);
        states.dedup_by_key(|state| state.name);
        states
    }
}

/// The names of all controllers that can be switched off, in order.
pub fn switchable() -> Vec<&'static str> {
    let all = controllers::all();
    let managed = all.iter().filter(|entry| entry.home == Home::Manager).flat_map(|entry| entry.names);
    managed.copied().collect::<BTreeSet<_>>().into_iter().collect()
}

fn check(name: &str) -> Result<(), String> {
    if switchable().contains(&name) {
        return Ok(());
    }
    Err(match ABSENT.iter().find(|(absent, _)| *absent == name) {
        Some((_, why)) => format!("{name} does not run here ({why})"),
        None => format!("{name:?} is no controller; there are {}", switchable().join(", ")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn off(list: &str) -> Vec<String> {
        let mut switches = Switches::default();
        switches.select(list).unwrap();
        switches.off.into_iter().collect()
    }

    #[test]
    fn upstreams_list_selects() {
        assert_eq!(off("*"), Vec::<String>::new());
        assert_eq!(off("*,-job-controller"), ["job-controller"]);
        assert_eq!(off("job-controller").len(), switchable().len() - 1, "without `*` only what is named runs");
        let said = Switches::default().select("*,-jobs").unwrap_err();
        assert!(said.starts_with("\"jobs\" is no controller; there are "), "{said}");
        let said = Switches::default().select("resourceclaim-controller").unwrap_err();
        assert!(said.starts_with("resourceclaim-controller does not run here (not yet"), "{said}");
    }

    #[test]
    fn without_the_manager_only_what_upstream_has_elsewhere_runs() {
        let switches = Switches { manager_off: true, ..Switches::default() };
        let on: Vec<&str> = switches.states().into_iter().filter(|state| state.is_on).map(|state| state.name).collect();
        let elsewhere = [
            "customresourcedefinition-controller",
            "local-path-provisioner-controller",
            "networkpolicy-controller",
            "service-lb-controller",
        ];
        assert_eq!(on, elsewhere);
    }

    #[test]
    fn parts_of_a_controller_go_one_by_one() {
        let mut switches = Switches::default();
        let entries = controllers::all();
        let requests = entries.iter().find(|entry| entry.names.len() == 3).unwrap();
        for name in requests.names {
            assert!(switches.runs(requests));
            switches.switch_off(name).unwrap();
        }
        assert!(!switches.runs(requests));
    }
}
