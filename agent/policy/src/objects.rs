//! What the API server shows a node of the cluster's pods: `podaddresses` in `network.trireme.io/v1`.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use trireme_client::{Object, ResourceType};

/// A pod's addresses and what policies select it by.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodAddress {
    /// Name, namespace, uid and labels.
    pub metadata: ObjectMeta,
    /// The node it is bound to.
    pub node_name: String,
    /// Whether its address is its node's.
    pub host_network: bool,
    /// Whether it runs no more.
    pub ended: bool,
    /// Its addresses, of either family.
    pub addresses: Vec<String>,
    /// Its ports that have names.
    pub ports: Vec<NamedPort>,
}

/// A port that a policy may name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// Its number.
    pub port: u16,
}

impl PodAddress {
    /// Where the API server shows them.
    pub fn resource_type() -> ResourceType {
        ResourceType {
            group: Cow::Borrowed("network.trireme.io"),
            version: Cow::Borrowed("v1"),
            plural: Cow::Borrowed("podaddresses"),
            kind: Cow::Borrowed("PodAddress"),
            namespaced: true,
        }
    }
}

impl Object for PodAddress {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
