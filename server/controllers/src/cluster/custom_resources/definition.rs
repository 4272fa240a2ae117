//! A CustomResourceDefinition without its schemas: names, versions and conditions. Schemas are most of its size, and the controllers do
//! not read them.

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use trireme_api::custom::accept::{Claim, Condition, Names};
use trireme_api::custom::approval;
use trireme_client::ResourceType;

/// The definition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: Spec,
    #[serde(default)]
    pub(crate) status: Status,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Spec {
    pub(crate) group: String,
    pub(crate) scope: String,
    pub(crate) names: Names,
    pub(crate) versions: Vec<Version>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) served: bool,
    pub(crate) storage: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) accepted_names: Option<Names>,
    pub(crate) conditions: Option<Vec<Condition>>,
}

impl k8s_openapi::Resource for Definition {
    const API_VERSION: &'static str = "apiextensions.k8s.io/v1";
    const GROUP: &'static str = "apiextensions.k8s.io";
    const KIND: &'static str = "CustomResourceDefinition";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "customresourcedefinitions";
    type Scope = ClusterResourceScope;
}

impl k8s_openapi::Metadata for Definition {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Definition {
    /// What it asks for and has.
    pub(crate) fn claim(&self) -> Claim {
        let annotation = self.metadata.annotations.iter().flatten().find(|(key, _)| *key == approval::ANNOTATION);
        Claim {
            wanted: self.spec.names.clone(),
            accepted: self.accepted(),
            conditions: self.conditions(),
            approval: approval::condition(&self.spec.group, annotation.map_or("", |(_, value)| value)),
        }
    }

    pub(crate) fn accepted(&self) -> Names {
        self.status.accepted_names.clone().unwrap_or_default()
    }

    pub(crate) fn conditions(&self) -> Vec<Condition> {
        self.status.conditions.clone().unwrap_or_default()
    }

    /// Whether a condition holds.
    pub(crate) fn is(&self, type_: &str) -> bool {
        self.status.conditions.iter().flatten().any(|condition| condition.type_ == type_ && condition.status == "True")
    }

    /// The resource of its instances, in the storage version if that is served: nothing has to be converted then. While it goes, the API
    /// server serves the storage version if it serves no other.
    pub(crate) fn instances(&self) -> Option<ResourceType> {
        let versions = &self.spec.versions;
        let find = |wanted: fn(&Version) -> bool| versions.iter().find(|version| wanted(version));
        let version = find(|version| version.storage && version.served).or_else(|| find(|version| version.served));
        let version = version.or_else(|| find(|version| version.storage))?;
        Some(ResourceType {
            group: self.spec.group.clone().into(),
            version: version.name.clone().into(),
            plural: self.spec.names.plural.clone().into(),
            kind: self.spec.names.kind.clone().into(),
            namespaced: self.spec.scope == "Namespaced",
        })
    }
}
