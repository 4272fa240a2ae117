//! A container's environment: services, envFrom, env, the downward API, and `$(VAR)` in commands and values.
//!
//! Answers to <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/> and
//! <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service};

use super::{
    env_file,
    fields::{self, Place},
};
use crate::{
    clock::blocking,
    error::{Error, Result},
    objects::Objects,
    pod::spec,
    volume::Mounted,
};

/// Name and value pairs in the order in which they were set.
pub(crate) type Environment = Vec<(String, String)>;

/// Replaces `$(NAME)` by its value; `$$` is a dollar sign; an unknown name stays as it is written.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The variables that lead to services, as Docker links once had them.
pub(crate) fn service_variables(services: &[Arc<Service>], namespace: &str, enable_links: bool) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let (name, ns) = (service.metadata.name.as_deref().unwrap_or_default(), service.metadata.namespace.as_deref().unwrap_or_default());
        // The variables of the API server's own service are set in every pod, whether or not it enables service links.
        let is_master = ns == "default" && name == "kubernetes";
        if is_master || (enable_links && ns == namespace) {
            variables_of(service, name, &mut variables);
        }
    }
    variables
}

fn variables_of(service: &Service, name: &str, variables: &mut BTreeMap<String, String>) {
    let Some(service_spec) = service.spec.as_ref() else { return };
    let Some(ip) = service_spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let ports = service_spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let shout = |text: &str| text.to_uppercase().replace('-', "_");
    let prefix = shout(name);
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
    variables.insert(format!("{prefix}_SERVICE_HOST"), ip.into());
    variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for (index, port) in ports.iter().enumerate() {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            variables.insert(format!("{prefix}_SERVICE_PORT_{}", shout(port_name)), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        if index == 0 {
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        variables.insert(link.clone(), url);
        variables.insert(format!("{link}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{link}_PORT"), port.port.to_string());
        variables.insert(format!("{link}_ADDR"), ip.into());
    }
}

/// What a container's environment may be taken from.
pub(crate) struct Sources<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) place: &'a Place,
    /// The pod's volumes on this host.
    pub(crate) volumes: &'a BTreeMap<String, Mounted>,
    pub(crate) objects: &'a Objects,
}

/// The environment of one container. A key or object that is missing (and not optional) is a [`Error::Config`].
pub(crate) async fn environment(sources: &Sources<'_>, services: &BTreeMap<String, String>) -> Result<Environment> {
    let Sources { pod, container, objects, .. } = *sources;
    let mut set = Setter::default();
    let namespace = spec::namespace(pod);
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(from) = &source.config_map_ref {
            let map = objects.config_map(namespace, &from.name).await?;
            let map = required(map, from.optional, || format!("configmap {:?} not found", from.name))?;
            for (key, value) in map.iter().flat_map(|m| m.data.iter().flatten()) {
                set.put(format!("{prefix}{key}"), value.clone());
            }
        }
        if let Some(from) = &source.secret_ref {
            let secret = objects.secret(namespace, &from.name).await?;
            let secret = required(secret, from.optional, || format!("secret {:?} not found", from.name))?;
            for (key, value) in secret.iter().flat_map(|s| s.data.iter().flatten()) {
                set.put(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, |name| set.get(name).or_else(|| services.get(name).cloned()))),
            (_, Some(source)) => value_from(sources, source).await?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            set.put(variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        if !set.index.contains_key(name) {
            set.put(name.clone(), value.clone());
        }
    }
    Ok(set.values)
}

async fn value_from(sources: &Sources<'_>, source: &EnvVarSource) -> Result<Option<String>> {
    let Sources { pod, container, place, volumes, objects } = *sources;
    let namespace = spec::namespace(pod);
    if let Some(field) = &source.field_ref {
        return fields::field(pod, place, &field.field_path).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return fields::resource(pod, place, resource, Some(&container.name)).map(Some);
    }
    if let Some(from) = &source.config_map_key_ref {
        let map = objects.config_map(namespace, &from.name).await?;
        let map = required(map, from.optional, || format!("configmap {:?} not found", from.name))?;
        let value = map.as_ref().and_then(|m| m.data.as_ref()).and_then(|d| d.get(&from.key)).cloned();
        return required(value, from.optional, || format!("couldn't find key {} in ConfigMap {namespace}/{}", from.key, from.name));
    }
    if let Some(from) = &source.secret_key_ref {
        let secret = objects.secret(namespace, &from.name).await?;
        let secret = required(secret, from.optional, || format!("secret {:?} not found", from.name))?;
        let value = secret
            .as_ref()
            .and_then(|s| s.data.as_ref())
            .and_then(|d| d.get(&from.key))
            .map(|v| String::from_utf8_lossy(&v.0).into_owned());
        return required(value, from.optional, || format!("couldn't find key {} in Secret {namespace}/{}", from.key, from.name));
    }
    if let Some(from) = &source.file_key_ref {
        let volume = volumes.get(&from.volume_name).filter(|volume| !volume.is_device);
        let volume =
            volume.ok_or_else(|| Error::Config(format!("cannot find the volume {:?} referenced by FileKeyRef", from.volume_name)))?;
        let value = blocking(|| env_file::value(&volume.path, &from.path, &from.key))?;
        return required(value, from.optional, || format!("environment variable key {:?} not found in file {:?}", from.key, from.path));
    }
    Err(Error::Config("unsupported source of an environment variable".into()))
}

fn required<T>(value: Option<T>, optional: Option<bool>, message: impl FnOnce() -> String) -> Result<Option<T>> {
    if value.is_none() && optional != Some(true) {
        return Err(Error::Config(message()));
    }
    Ok(value)
}

/// Keeps the first position of a name and its last value.
#[derive(Default)]
struct Setter {
    values: Environment,
    index: BTreeMap<String, usize>,
}

impl Setter {
    fn get(&self, name: &str) -> Option<String> {
        self.index.get(name).map(|at| self.values[*at].1.clone())
    }

    fn put(&mut self, name: String, value: String) {
        match self.index.get(&name) {
            Some(at) => self.values[*at].1 = value,
            None => {
                self.index.insert(name.clone(), self.values.len());
                self.values.push((name, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_expand_and_dollars_escape() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_string());
        for (text, expected) in
            [("$(A)", "1"), ("x$(A)y$(A)", "x1y1"), ("$(B)", "$(B)"), ("$$(A)", "$(A)"), ("$A $", "$A $"), ("$(A", "$(A"), ("$$$(A)", "$1")]
        {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }

    #[test]
    fn services_are_told_as_links() {
        let service = |ns: &str, name: &str| -> Arc<Service> {
            Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "namespace": ns}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "web-ui", "port": 80, "protocol": "TCP"}]}})).unwrap())
        };
        let services = [service("default", "kubernetes"), service("n", "my-svc"), service("other", "x")];
        let variables = service_variables(&services, "n", true);
        assert_eq!(variables["MY_SVC_PORT_80_TCP"], "tcp://10.0.0.1:80");
        assert_eq!(variables["MY_SVC_SERVICE_PORT_WEB_UI"], "80");
        assert_eq!(variables["KUBERNETES_SERVICE_HOST"], "10.0.0.1");
        assert!(!variables.contains_key("X_SERVICE_HOST"));
        assert!(!service_variables(&services, "n", false).contains_key("MY_SVC_SERVICE_HOST"));
    }
}
