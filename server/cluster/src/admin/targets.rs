//! What there is to scrape: `/trireme/v1/targets/servers|nodes|pods[?port=P]`, as Prometheus' HTTP service discovery reads it.
//!
//! Servers are the members of the cluster, whether they live or not: a dead one must stay a target, or its alerts would never fire. Answers
//! to <https://prometheus.io/docs/prometheus/latest/http_sd/>.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Response};
use serde::Serialize;
use serde_json::Value;
use trireme_api::admin::TARGETS;
use trireme_api::meta;
use trireme_api::status::Status;
use trireme_raft::Store;

use trireme_apiserver::Answer;
use trireme_apiserver::endpoints::operator::{RouteFamily, RouteRequest, json, method_not_allowed, not_found};
use trireme_apiserver::http::respond::Body;
use trireme_apiserver::storage::lookup::ObjectReader;

const KUBELET_PORT: u16 = 10250;
/// The annotations by which pods ask to be scraped.
const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";

/// The endpoints of the targets.
pub struct Targets {
    store: Store,
    reader: Arc<dyn ObjectReader>,
}

/// Some targets with common labels.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Group {
    targets: Vec<String>,
    labels: BTreeMap<&'static str, String>,
}

impl RouteFamily for Targets {
    fn name(&self) -> &'static str {
        TARGETS
    }

    fn answer(&self, request: RouteRequest) -> BoxFuture<'_, Answer<Response<Body>>> {
        self.dispatch(request).boxed()
    }
}

impl Targets {
    /// The targets are this store's members, and the nodes and pods that `reader` knows.
    pub fn new(store: Store, reader: Arc<dyn ObjectReader>) -> Targets {
        Targets { store, reader }
    }

    async fn dispatch(&self, request: RouteRequest) -> Answer<Response<Body>> {
        let parts = request.parts();
        if !matches!(parts.as_slice(), ["servers" | "nodes" | "pods"]) {
            return Err(not_found());
        }
        if request.method != Method::GET {
            return Err(method_not_allowed(&request));
        }
        let port = match request.param("port") {
            None => None,
            Some(port) => {
                let number = port.parse::<u16>().ok().filter(|number| *number != 0);
                Some(number.ok_or_else(|| Box::new(Status::bad_request(format!("port={port}: expected a number from 1 to 65535"))))?)
            }
        };
        let groups: Vec<Group> = match parts.as_slice() {
            ["servers"] => self.servers(port).await,
            ["nodes"] => self.reader.list("", "nodes", None).iter().filter_map(|node| of_node(&node.object, port)).collect(),
            _ => self.reader.list("", "pods", None).iter().filter_map(|pod| of_pod(&pod.object)).collect(),
        };
        json(&groups)
    }

    async fn servers(&self, port: Option<u16>) -> Vec<Group> {
        let members = self.store.members().await;
        let group = |member: trireme_proto::store::MemberRecord| {
            let api = member.addresses?.api.into_iter().find_map(|url| url.strip_prefix("https://")?.parse::<SocketAddr>().ok())?;
            let address = SocketAddr::new(api.ip(), port.unwrap_or(api.port()));
            Some(Group { targets: vec![address.to_string()], labels: BTreeMap::from([("server", member.name)]) })
        };
        members.into_iter().filter_map(group).collect()
    }
}

fn of_node(node: &Value, port: Option<u16>) -> Option<Group> {
    let address = meta::list_at(node, &["status", "addresses"]).iter().find(|address| address["type"] == "InternalIP")?;
    let address = address["address"].as_str()?.parse().ok()?;
    let told = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let address = SocketAddr::new(address, port.or(told).unwrap_or(KUBELET_PORT));
    let name = node["metadata"]["name"].as_str()?.to_owned();
    Some(Group { targets: vec![address.to_string()], labels: BTreeMap::from([("node", name)]) })
}

/// A pod that asks for it and has an address.
fn of_pod(pod: &Value) -> Option<Group> {
    let asked = |annotation: &str| pod["metadata"]["annotations"][annotation].as_str();
    if asked(SCRAPE) != Some("true") || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let named = asked(PORT).and_then(|port| port.parse::<u16>().ok());
    let first = || pod["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let address = SocketAddr::new(pod["status"]["podIP"].as_str()?.parse().ok()?, named.or_else(first)?);
    let mut labels = BTreeMap::from([
        ("namespace", pod["metadata"]["namespace"].as_str()?.to_owned()),
        ("pod", pod["metadata"]["name"].as_str()?.to_owned()),
    ]);
    if let Some(path) = asked(PATH) {
        labels.insert("__metrics_path__", path.to_owned());
    }
    Some(Group { targets: vec![address.to_string()], labels })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_and_pods_become_targets_where_they_can_be_reached() {
        let node = json!({"metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.7"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10350}}}});
        let target = |group: Option<Group>| group.map(|group| group.targets.join(","));
        assert_eq!(target(of_node(&node, None)).as_deref(), Some("10.0.0.7:10350"));
        assert_eq!(target(of_node(&node, Some(10249))).as_deref(), Some("10.0.0.7:10249"));
        assert_eq!(of_node(&json!({"metadata": {"name": "n"}, "status": {}}), None), None);

        let mut pod = json!({"metadata": {"name": "p", "namespace": "ns", "annotations": {SCRAPE: "true", PATH: "/m"}},
            "spec": {"containers": [{"ports": [{"containerPort": 8080}]}]}, "status": {"phase": "Running", "podIP": "fd00::7"}});
        let group = of_pod(&pod).unwrap();
        assert_eq!((group.targets[0].as_str(), group.labels["__metrics_path__"].as_str()), ("[fd00::7]:8080", "/m"));
        pod["metadata"]["annotations"][PORT] = json!("9100");
        assert_eq!(target(of_pod(&pod)).as_deref(), Some("[fd00::7]:9100"));
        pod["metadata"]["annotations"][SCRAPE] = json!("false");
        assert_eq!(of_pod(&pod), None);
    }
}
