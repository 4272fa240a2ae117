//! `trireme policy`: what NetworkPolicies mean for one pod, as the API has them now.
//!
//! Must not decide anything: `agent/policy` does. This command says in words what its rules follow from.

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Serialize, de::DeserializeOwned};
use trireme_client::{List, Object, ResourceType, labels};

use super::{Failure, admin_client::AdminClient};
use crate::cli::{OutputForm, PolicyCommand};

/// What one pod may do.
#[derive(Serialize)]
struct Explanation {
    pod: String,
    address: String,
    node: String,
    allowed: Vec<Allowed>,
}

/// One thing that is allowed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Allowed {
    /// `from` or `to`.
    direction: &'static str,
    /// The policy that allows it; empty where none selects the pod.
    policy: String,
    peer: String,
    ports: String,
}

/// Runs one of the commands.
pub async fn policy(command: PolicyCommand) -> Result<(), Failure> {
    let PolicyCommand::Explain { pod, namespace, admin } = command;
    let client = AdminClient::new(&admin)?;
    let pod: Pod = get(&client, &ResourceType::of::<Pod>().path(Some(&namespace), Some(&pod), None)).await?;
    let policies: List<NetworkPolicy> = get(&client, &ResourceType::of::<NetworkPolicy>().path(Some(&namespace), None, None)).await?;
    if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        return Err(Failure::from(format!("pod {namespace}/{} uses the host's network: no policy isolates it", pod.name())));
    }
    let explanation = Explanation {
        pod: format!("{namespace}/{}", pod.name()),
        address: pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        allowed: explain(&pod, &policies.items),
    };
    client.print(&explanation, &["DIRECTION", "POLICY", "PEER", "PORTS"], |explanation| {
        let row = |allowed: &Allowed| {
            let policy = if allowed.policy.is_empty() { "<none>" } else { &allowed.policy };
            vec![allowed.direction.to_owned(), policy.to_owned(), allowed.peer.clone(), allowed.ports.clone()]
        };
        explanation.allowed.iter().map(row).collect()
    })?;
    let is_isolated = explanation.allowed.iter().any(|allowed| !allowed.policy.is_empty());
    if admin.output == OutputForm::Table && is_isolated && !explanation.address.is_empty() {
        let chain = explanation.address.replace('.', "_");
        println!(
            "\nWhat was dropped is counted on node {}: nft list table ip trireme_policy, chains in_{chain} and out_{chain}",
            explanation.node
        );
    }
    Ok(())
}

async fn get<T: DeserializeOwned>(client: &AdminClient, path: &str) -> Result<T, Failure> {
    let body = client.stream(Method::GET, path, Bytes::new()).await?;
    let bytes = body.collect().await.map_err(|error| Failure::from(format!("{path}: {error}")))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| Failure::from(format!("{path}: answer not understood: {error}")))
}

/// What is allowed, the direction from outside first.
fn explain(pod: &Pod, policies: &[NetworkPolicy]) -> Vec<Allowed> {
    let selects = |policy: &&NetworkPolicy| {
        let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.clone()).unwrap_or_default();
        labels::matches(&selector, pod.metadata.labels.as_ref())
    };
    let mut allowed = Vec::new();
    for (direction, type_) in [("from", "Ingress"), ("to", "Egress")] {
        let of_type = |policy: &&NetworkPolicy| policy.spec.iter().flat_map(|spec| spec.policy_types.iter().flatten()).any(|t| t == type_);
        let isolating: Vec<&NetworkPolicy> = policies.iter().filter(selects).filter(of_type).collect();
        if isolating.is_empty() {
            allowed.push(Allowed { direction, policy: String::new(), peer: "everybody".to_owned(), ports: "all".to_owned() });
        }
        for policy in isolating {
            allowed.extend(of_policy(direction, policy));
        }
    }
    allowed
}

fn of_policy(direction: &'static str, policy: &NetworkPolicy) -> Vec<Allowed> {
    let spec = policy.spec.clone().unwrap_or_default();
    let rules: Vec<(Vec<NetworkPolicyPeer>, Vec<NetworkPolicyPort>)> = match direction {
        "from" => spec
            .ingress
            .unwrap_or_default()
            .into_iter()
            .map(|rule| (rule.from.unwrap_or_default(), rule.ports.unwrap_or_default()))
            .collect(),
        _ => {
            spec.egress.unwrap_or_default().into_iter().map(|rule| (rule.to.unwrap_or_default(), rule.ports.unwrap_or_default())).collect()
        }
    };
    let line = |peer: String, ports: String| Allowed { direction, policy: policy.name().to_owned(), peer, ports };
    if rules.is_empty() {
        return vec![line("nobody".to_owned(), "none".to_owned())];
    }
    let mut lines = Vec::new();
    for (peers, ports) in rules {
        let ports = if ports.is_empty() { "all".to_owned() } else { ports.iter().map(port).collect::<Vec<_>>().join(", ") };
        if peers.is_empty() {
            lines.push(line("everybody".to_owned(), ports.clone()));
        }
        lines.extend(peers.iter().map(|one| line(peer(policy.namespace(), one), ports.clone())));
    }
    lines
}

fn peer(namespace: &str, peer: &NetworkPolicyPeer) -> String {
    if let Some(block) = &peer.ip_block {
        return network(block);
    }
    let pods = match &peer.pod_selector {
        Some(selector) if !labels::is_empty(selector) => format!("pods {}", selector_text(selector)),
        _ => "all pods".to_owned(),
    };
    match &peer.namespace_selector {
        None => format!("{pods} in {namespace}"),
        Some(selector) if labels::is_empty(selector) => format!("{pods} in all namespaces"),
        Some(selector) => format!("{pods} in namespaces {}", selector_text(selector)),
    }
}

fn network(block: &IPBlock) -> String {
    match block.except.as_deref().unwrap_or_default() {
        [] => block.cidr.clone(),
        except => format!("{} except {}", block.cidr, except.join(", ")),
    }
}

fn port(port: &NetworkPolicyPort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match (&port.port, port.end_port) {
        (None, _) => protocol.to_owned(),
        (Some(IntOrString::Int(first)), Some(last)) => format!("{first}-{last}/{protocol}"),
        (Some(IntOrString::Int(number)), None) => format!("{number}/{protocol}"),
        (Some(IntOrString::String(name)), _) => format!("{name}/{protocol}"),
    }
}

/// As kubectl writes selectors.
fn selector_text(selector: &LabelSelector) -> String {
    let equal = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let expressions = selector.match_expressions.iter().flatten().map(|requirement| {
        let (key, values) = (&requirement.key, requirement.values.as_deref().unwrap_or_default().join(","));
        match requirement.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        }
    });
    equal.chain(expressions).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(name: &str, spec: Value) -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"namespace": "a", "name": name}, "spec": spec})).unwrap()
    }

    fn said(policies: &[NetworkPolicy]) -> Vec<String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "a", "name": "web", "labels": {"app": "web"}}})).unwrap();
        let line = |allowed: Allowed| format!("{} {} | {} | {}", allowed.direction, allowed.policy, allowed.peer, allowed.ports);
        explain(&pod, policies).into_iter().map(line).collect()
    }

    #[test]
    fn what_no_policy_selects_is_open_and_what_one_selects_says_who_and_where() {
        assert_eq!(said(&[]), ["from  | everybody | all", "to  | everybody | all"]);
        let other = policy("other", json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}));
        assert_eq!(said(&[other])[0], "from  | everybody | all");
        let web = policy(
            "web",
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [
                {"from": [
                    {"podSelector": {"matchLabels": {"app": "friend"}}},
                    {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["x", "y"]}]}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                ], "ports": [{"port": "http"}, {"port": 80, "endPort": 90, "protocol": "UDP"}]},
                {"ports": [{"protocol": "SCTP"}]},
            ]}),
        );
        let expected = [
            "from web | pods app=friend in a | http/TCP, 80-90/UDP",
            "from web | all pods in namespaces team in (x,y) | http/TCP, 80-90/UDP",
            "from web | 10.0.0.0/8 except 10.1.0.0/16 | http/TCP, 80-90/UDP",
            "from web | everybody | SCTP",
            "to web | nobody | none",
        ];
        assert_eq!(said(&[web]), expected);
    }
}
