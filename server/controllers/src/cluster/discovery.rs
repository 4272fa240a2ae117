//! Which resources the API serves, for the controllers that handle all of them.

use std::collections::HashSet;

use serde::Deserialize;
use trireme_client::{Client, ResourceType};

use crate::Error;

/// One served resource.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) resource: ResourceType,
    pub(crate) verbs: Vec<String>,
}

impl Served {
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// What discovery said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Discovery {
    /// Each resource once, in its group's preferred version if that has it.
    pub(crate) served: Vec<Served>,
    /// Group versions that did not answer (an aggregated API that is down), with the reason.
    pub(crate) failed: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    #[serde(default)]
    versions: Vec<Version>,
    #[serde(default)]
    preferred_version: Option<Version>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

const JSON: &str = "application/json";

/// Asks the API what it serves. Fails only if nothing can be known at all.
pub(crate) async fn discover(client: &Client) -> Result<Discovery, Error> {
    let groups: Groups = client.get_path("/apis", JSON).await?;
    let mut wanted = vec![(String::new(), "v1".to_owned())];
    for group in groups.groups {
        let preferred = group.preferred_version.into_iter().map(|version| version.version);
        let mut seen = HashSet::new();
        for version in preferred.chain(group.versions.into_iter().map(|version| version.version)) {
            if seen.insert(version.clone()) {
                wanted.push((group.name.clone(), version));
            }
        }
    }
    let mut discovery = Discovery::default();
    let mut known = HashSet::new();
    for (group, version) in wanted {
        let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let list: Resources = match client.get_path(&path, JSON).await {
            Ok(list) => list,
            Err(error) if group.is_empty() => return Err(error.into()),
            Err(error) if error.is_not_found() => continue,
            Err(error) => {
                discovery.failed.push((format!("{group}/{version}"), error.to_string()));
                continue;
            }
        };
        for resource in list.resources {
            if resource.name.contains('/') || !known.insert((group.clone(), resource.name.clone())) {
                continue;
            }
            discovery.served.push(Served {
                resource: ResourceType {
                    group: group.clone().into(),
                    version: version.clone().into(),
                    plural: resource.name.into(),
                    kind: resource.kind.into(),
                    namespaced: resource.namespaced,
                },
                verbs: resource.verbs,
            });
        }
    }
    Ok(discovery)
}
