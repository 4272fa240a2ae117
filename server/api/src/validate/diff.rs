//! The difference of two specs as upstream shows it in "may not change" errors: a unified diff, three lines of
//! context, of JSON with Go's field names.
//!
//! Upstream: `k8s.io/apimachinery/pkg/util/diff`.

use serde_json::Value;

/// A Go struct: its fields in order, as (Go name, JSON name, what an unset one prints as).
type Shape = &'static [(&'static str, &'static str, &'static str)];

const CLAIM_SPEC: Shape = &[
    ("AccessModes", "accessModes", "null"),
    ("Selector", "selector", "null"),
    ("Resources", "resources", "{}"),
    ("VolumeName", "volumeName", "\"\""),
    ("StorageClassName", "storageClassName", "null"),
    ("VolumeMode", "volumeMode", "null"),
    ("DataSource", "dataSource", "null"),
    ("DataSourceRef", "dataSourceRef", "null"),
    ("VolumeAttributesClassName", "volumeAttributesClassName", "null"),
];

const VOLUME_RESOURCES: Shape = &[("Limits", "limits", "null"), ("Requests", "requests", "null")];

const CONTAINER: Shape = &[
    ("Name", "name", "\"\""),
    ("Image", "image", "\"\""),
    ("Command", "command", "null"),
    ("Args", "args", "null"),
    ("WorkingDir", "workingDir", "\"\""),
    ("Ports", "ports", "null"),
    ("EnvFrom", "envFrom", "null"),
    ("Env", "env", "null"),
    ("Resources", "resources", "{}"),
    ("ResizePolicy", "resizePolicy", "null"),
    ("RestartPolicy", "restartPolicy", "null"),
    ("RestartPolicyRules", "restartPolicyRules", "null"),
    ("VolumeMounts", "volumeMounts", "null"),
    ("VolumeDevices", "volumeDevices", "null"),
    ("LivenessProbe", "livenessProbe", "null"),
    ("ReadinessProbe", "readinessProbe", "null"),
    ("StartupProbe", "startupProbe", "null"),
    ("Lifecycle", "lifecycle", "null"),
    ("TerminationMessagePath", "terminationMessagePath", "\"\""),
    ("TerminationMessagePolicy", "terminationMessagePolicy", "\"\""),
    ("ImagePullPolicy", "imagePullPolicy", "\"\""),
    ("SecurityContext", "securityContext", "null"),
    ("Stdin", "stdin", "false"),
    ("StdinOnce", "stdinOnce", "false"),
    ("TTY", "tty", "false"),
];

const CONTAINER_RESOURCES: Shape = &[("Limits", "limits", "null"), ("Requests", "requests", "null"), ("Claims", "claims", "null")];

const POD_SPEC: Shape = &[
    ("Volumes", "volumes", "null"),
    ("InitContainers", "initContainers", "null"),
    ("Containers", "containers", "null"),
    ("EphemeralContainers", "ephemeralContainers", "null"),
    ("RestartPolicy", "restartPolicy", "\"\""),
    ("TerminationGracePeriodSeconds", "terminationGracePeriodSeconds", "null"),
    ("ActiveDeadlineSeconds", "activeDeadlineSeconds", "null"),
    ("DNSPolicy", "dnsPolicy", "\"\""),
    ("NodeSelector", "nodeSelector", "null"),
    ("ServiceAccountName", "serviceAccountName", "\"\""),
    ("AutomountServiceAccountToken", "automountServiceAccountToken", "null"),
    ("NodeName", "nodeName", "\"\""),
    ("SecurityContext", "securityContext", "null"),
    ("ImagePullSecrets", "imagePullSecrets", "null"),
    ("Hostname", "hostname", "\"\""),
    ("Subdomain", "subdomain", "\"\""),
    ("SetHostnameAsFQDN", "setHostnameAsFQDN", "null"),
    ("Affinity", "affinity", "null"),
    ("SchedulerName", "schedulerName", "\"\""),
    ("Tolerations", "tolerations", "null"),
    ("HostAliases", "hostAliases", "null"),
    ("PriorityClassName", "priorityClassName", "\"\""),
    ("Priority", "priority", "null"),
    ("PreemptionPolicy", "preemptionPolicy", "null"),
    ("DNSConfig", "dnsConfig", "null"),
    ("ReadinessGates", "readinessGates", "null"),
    ("RuntimeClassName", "runtimeClassName", "null"),
    ("Overhead", "overhead", "null"),
    ("EnableServiceLinks", "enableServiceLinks", "null"),
    ("TopologySpreadConstraints", "topologySpreadConstraints", "null"),
    ("OS", "os", "null"),
    ("SchedulingGates", "schedulingGates", "null"),
    ("ResourceClaims", "resourceClaims", "null"),
    ("Resources", "resources", "null"),
    ("HostnameOverride", "hostnameOverride", "null"),
];

const VOLUME: Shape = &[
    ("Name", "name", "\"\""),
    ("HostPath", "hostPath", "null"),
    ("EmptyDir", "emptyDir", "null"),
    ("GCEPersistentDisk", "gcePersistentDisk", "null"),
    ("AWSElasticBlockStore", "awsElasticBlockStore", "null"),
    ("GitRepo", "gitRepo", "null"),
    ("Secret", "secret", "null"),
    ("NFS", "nfs", "null"),
    ("ISCSI", "iscsi", "null"),
    ("Glusterfs", "glusterfs", "null"),
    ("PersistentVolumeClaim", "persistentVolumeClaim", "null"),
    ("RBD", "rbd", "null"),
    ("Quobyte", "quobyte", "null"),
    ("FlexVolume", "flexVolume", "null"),
    ("Cinder", "cinder", "null"),
    ("CephFS", "cephfs", "null"),
    ("Flocker", "flocker", "null"),
    ("DownwardAPI", "downwardAPI", "null"),
    ("FC", "fc", "null"),
    ("AzureFile", "azureFile", "null"),
    ("ConfigMap", "configMap", "null"),
    ("VsphereVolume", "vsphereVolume", "null"),
    ("AzureDisk", "azureDisk", "null"),
    ("PhotonPersistentDisk", "photonPersistentDisk", "null"),
    ("Projected", "projected", "null"),
    ("PortworxVolume", "portworxVolume", "null"),
    ("ScaleIO", "scaleIO", "null"),
    ("StorageOS", "storageos", "null"),
    ("CSI", "csi", "null"),
    ("Ephemeral", "ephemeral", "null"),
    ("Image", "image", "null"),
];

const PROJECTED: Shape = &[("Sources", "sources", "null"), ("DefaultMode", "defaultMode", "null")];

const PROJECTION: Shape = &[
    ("Secret", "secret", "null"),
    ("DownwardAPI", "downwardAPI", "null"),
    ("ConfigMap", "configMap", "null"),
    ("ServiceAccountToken", "serviceAccountToken", "null"),
    ("ClusterTrustBundle", "clusterTrustBundle", "null"),
    ("PodCertificate", "podCertificate", "null"),
];

const TOKEN: Shape = &[("Audience", "audience", "\"\""), ("ExpirationSeconds", "expirationSeconds", "0"), ("Path", "path", "\"\"")];

const KEYS: Shape = &[("Name", "name", "\"\""), ("Items", "items", "null"), ("Optional", "optional", "null")];

const KEY: Shape = &[("Key", "key", "\"\""), ("Path", "path", "\"\""), ("Mode", "mode", "null")];

const DOWNWARD_FILE: Shape = &[
    ("Path", "path", "\"\""),
    ("FieldRef", "fieldRef", "null"),
    ("ResourceFieldRef", "resourceFieldRef", "null"),
    ("Mode", "mode", "null"),
];

const FIELD_REF: Shape = &[("APIVersion", "apiVersion", "\"\""), ("FieldPath", "fieldPath", "\"\"")];

const MOUNT: Shape = &[
    ("Name", "name", "\"\""),
    ("ReadOnly", "readOnly", "false"),
    ("RecursiveReadOnly", "recursiveReadOnly", "null"),
    ("MountPath", "mountPath", "\"\""),
    ("SubPath", "subPath", "\"\""),
    ("MountPropagation", "mountPropagation", "null"),
    ("SubPathExpr", "subPathExpr", "\"\""),
];

const PORT: Shape = &[
    ("Name", "name", "\"\""),
    ("HostPort", "hostPort", "0"),
    ("ContainerPort", "containerPort", "0"),
    ("Protocol", "protocol", "\"\""),
    ("HostIP", "hostIP", "\"\""),
];

const ENV: Shape = &[("Name", "name", "\"\""), ("Value", "value", "\"\""), ("ValueFrom", "valueFrom", "null")];

/// The shape of the struct at a JSON path, where it is known. Elsewhere the fields that are there are shown.
fn shape(root: Shape, path: &[&str]) -> Option<Shape> {
    match path {
        [] => Some(root),
        ["resources"] if std::ptr::eq(root, CLAIM_SPEC) => Some(VOLUME_RESOURCES),
        ["containers" | "initContainers"] => Some(CONTAINER),
        ["containers" | "initContainers", "resources"] => Some(CONTAINER_RESOURCES),
        ["containers" | "initContainers", "volumeMounts"] => Some(MOUNT),
        ["containers" | "initContainers", "ports"] => Some(PORT),
        ["containers" | "initContainers", "env"] => Some(ENV),
        ["volumes"] => Some(VOLUME),
        ["volumes", "projected"] => Some(PROJECTED),
        ["volumes", "projected", "sources"] => Some(PROJECTION),
        ["volumes", "projected", "sources", "serviceAccountToken"] => Some(TOKEN),
        ["volumes", "projected", "sources", "configMap" | "secret"] => Some(KEYS),
        ["volumes", "projected", "sources", "configMap" | "secret", "items"] => Some(KEY),
        ["volumes", "projected", "sources", "downwardAPI", "items"] => Some(DOWNWARD_FILE),
        ["volumes", "projected", "sources", "downwardAPI", "items", "fieldRef"] => Some(FIELD_REF),
        _ => None,
    }
}

/// Difference of two PersistentVolumeClaim specs.
pub(super) fn claim_spec(old: &Value, new: &Value) -> String {
    unified(&lines(CLAIM_SPEC, old), &lines(CLAIM_SPEC, new))
}

/// Difference of two pod specs. Containers and projected volumes are written with all of their unset fields.
pub(super) fn pod_spec(old: &Value, new: &Value) -> String {
    unified(&lines(POD_SPEC, old), &lines(POD_SPEC, new))
}

fn lines(root: Shape, value: &Value) -> Vec<String> {
    let mut text = String::new();
    print(root, &mut Vec::new(), value, 0, &mut text);
    text.lines().map(str::to_owned).collect()
}

fn print<'a>(root: Shape, path: &mut Vec<&'a str>, value: &'a Value, depth: usize, out: &mut String) {
    let pad = " ".repeat(depth + 1);
    match value {
        Value::Object(map) => {
            let known = shape(root, path);
            let fields: Vec<(String, &str)> = match known {
                Some(shape) => shape.iter().map(|(go, json, _)| ((*go).to_owned(), *json)).collect(),
                None => map.keys().map(|key| (go_name(path, key), key.as_str())).collect(),
            };
            if fields.is_empty() {
                out.push_str("{}");
                return;
            }
            out.push_str("{\n");
            for (index, (name, key)) in fields.iter().enumerate() {
                out.push_str(&format!("{pad}{}: ", Value::from(name.as_str())));
                match map.get_key_value(*key).filter(|(_, value)| !value.is_null()) {
                    Some((key, value)) => {
                        path.push(key);
                        print(root, path, value, depth + 1, out);
                        path.pop();
                    }
                    None => out.push_str(known.map_or("null", |shape| shape[index].2)),
                }
                out.push_str(if index + 1 < fields.len() { ",\n" } else { "\n" });
            }
            out.push_str(&format!("{}}}", " ".repeat(depth)));
        }
        Value::Array(items) if !items.is_empty() => {
            out.push_str("[\n");
            for (index, item) in items.iter().enumerate() {
                out.push_str(&pad);
                print(root, path, item, depth + 1, out);
                out.push_str(if index + 1 < items.len() { ",\n" } else { "\n" });
            }
            out.push_str(&format!("{}]", " ".repeat(depth)));
        }
        other => out.push_str(&other.to_string()),
    }
}

/// Keys of maps stay; field names are capitalized.
fn go_name(path: &[&str], key: &str) -> String {
    let is_map = path.last().is_some_and(|last| matches!(*last, "requests" | "limits" | "matchLabels" | "nodeSelector" | "overhead"));
    if is_map {
        return key.to_owned();
    }
    let mut characters = key.chars();
    characters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + characters.as_str())
}

/// Hunks with three lines of context. Two texts of some hundred lines: quadratic is fine.
fn unified(old: &[String], new: &[String]) -> String {
    const CONTEXT: usize = 3;
    let edits = edits(old, new);
    let mut out = String::new();
    let mut index = 0;
    while let Some(first) = (index..edits.len()).find(|at| edits[*at].0 != ' ') {
        let start = first.saturating_sub(CONTEXT).max(index);
        let mut last = first;
        while let Some(next) = (last + 1..edits.len().min(last + 2 + 2 * CONTEXT)).find(|at| edits[*at].0 != ' ') {
            last = next;
        }
        let end = (last + 1 + CONTEXT).min(edits.len());
        let hunk = &edits[start..end];
        let before = |side: char| edits[..start].iter().filter(|(kind, _)| *kind != side).count();
        let count = |side: char| hunk.iter().filter(|(kind, _)| *kind != side).count();
        let range = |start: usize, count: usize| match count {
            1 => format!("{}", start + 1),
            0 => format!("{start},0"),
            _ => format!("{},{count}", start + 1),
        };
        out.push_str(&format!("@@ -{} +{} @@\n", range(before('+'), count('+')), range(before('-'), count('-'))));
        for (kind, line) in hunk {
            out.push_str(&format!("{kind}{line}\n"));
        }
        index = end;
    }
    out
}

/// Lines with ' ', '-' or '+', by longest common subsequence.
fn edits<'a>(old: &'a [String], new: &'a [String]) -> Vec<(char, &'a str)> {
    let width = new.len() + 1;
    let mut longest = vec![0_usize; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i * width + j] = if old[i] == new[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            out.push((' ', old[i].as_str()));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
            out.push(('-', old[i].as_str()));
            i += 1;
        } else {
            out.push(('+', new[j].as_str()));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claims_difference_reads_as_upstreams() {
        let old = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        let mut new = old.clone();
        new["accessModes"] = json!(["ReadWriteMany"]);
        assert_eq!(
            claim_spec(&old, &new),
            "@@ -1,6 +1,6 @@\n {\n  \"AccessModes\": [\n-  \"ReadWriteOnce\"\n+  \"ReadWriteMany\"\n  ],\n  \"Selector\": null,\n  \"Resources\": {\n"
        );
    }
}
