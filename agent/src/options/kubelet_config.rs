//! Upstream's KubeletConfiguration files (`--kubelet-arg config=FILE`, `config-dir=FOLDER`): each field becomes the flag that does the same.
//!
//! Invariant: a field that nothing acts upon is refused by name. Answers to
//! <https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/> and `kubelet-config-file/#kubelet-conf-d`.

use std::path::Path;

use serde_json::{Map, Value};
use trireme_api::schema;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";
/// A configuration is some kilobytes.
const BYTES_MAX: u64 = 1 << 20;

/// A field, and the flag that does the same.
const FIELDS: [(&str, &str); 23] = [
    ("address", "address"),
    ("clusterDNS", "cluster-dns"),
    ("clusterDomain", "cluster-domain"),
    ("containerLogMaxFiles", "container-log-max-files"),
    ("containerLogMaxSize", "container-log-max-size"),
    ("evictionHard", "eviction-hard"),
    ("evictionMaxPodGracePeriod", "eviction-max-pod-grace-period"),
    ("evictionSoft", "eviction-soft"),
    ("evictionSoftGracePeriod", "eviction-soft-grace-period"),
    ("healthzBindAddress", "healthz-bind-address"),
    ("healthzPort", "healthz-port"),
    ("imageGCHighThresholdPercent", "image-gc-high-threshold"),
    ("imageGCLowThresholdPercent", "image-gc-low-threshold"),
    ("imageMaximumGCAge", "image-maximum-gc-age"),
    ("imageMinimumGCAge", "minimum-image-ttl-duration"),
    ("kubeReserved", "kube-reserved"),
    ("maxPods", "max-pods"),
    ("port", "port"),
    ("providerID", "provider-id"),
    ("registerWithTaints", "register-with-taints"),
    ("resolvConf", "resolv-conf"),
    ("staticPodPath", "pod-manifest-path"),
    ("systemReserved", "system-reserved"),
];

/// Fields that are refused unless they say what this kubelet does anyway.
const AS_IT_IS: [(&str, bool); 5] =
    [("enableServer", true), ("failSwapOn", false), ("registerNode", true), ("rotateCertificates", true), ("serverTLSBootstrap", true)];

/// The flags that a file and the `*.conf` files of a folder stand for. Files of the folder win over the file, in the order of their names.
pub(super) fn flags(file: Option<&Path>, folder: Option<&Path>) -> Result<Vec<(&'static str, String)>, String> {
    let mut merged = Map::new();
    let mut paths: Vec<_> = file.map(Path::to_owned).into_iter().collect();
    if let Some(folder) = folder {
        let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut found: Vec<_> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "conf")).collect();
        found.sort();
        paths.extend(found);
    }
    for path in paths {
        let at = |why: String| format!("{}: {why}", path.display());
        merge(&mut merged, read(&path).map_err(at)?);
    }
    merged.iter().filter_map(|(field, value)| flag(field, value).transpose()).collect()
}

fn read(path: &Path) -> Result<Map<String, Value>, String> {
    use std::io::Read;
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("larger than {BYTES_MAX} bytes"));
    }
    parse(&text)
}

fn parse(text: &[u8]) -> Result<Map<String, Value>, String> {
    let Value::Object(mut fields) = schema::parse_yaml(text)? else { return Err(format!("expected a {KIND}")) };
    let mut take = |key: &str| fields.remove(key).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
    let (version, kind) = (take("apiVersion"), take("kind"));
    if version != API_VERSION || kind != KIND {
        return Err(format!("expected apiVersion {API_VERSION} and kind {KIND}, found {version:?} and {kind:?}"));
    }
    Ok(fields)
}

/// Maps merge key by key, as upstream's drop-in files do; everything else is replaced.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// The flag of one field; none where the field says what is the case anyway.
fn flag(field: &str, value: &Value) -> Result<Option<(&'static str, String)>, String> {
    if let Some((_, always)) = AS_IT_IS.iter().find(|(name, _)| *name == field) {
        let said = value.as_bool();
        return if said == Some(*always) { Ok(None) } else { Err(format!("{field}: only {always} is possible")) };
    }
    let Some((_, flag)) = FIELDS.iter().find(|(name, _)| *name == field) else {
        let known: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
        return Err(format!("{field}: this field is not supported; supported are {}", known.join(", ")));
    };
    let between = if matches!(field, "evictionHard" | "evictionSoft") { "<" } else { "=" };
    let text = match value {
        Value::Array(items) => items.iter().map(item).collect::<Result<Vec<_>, _>>().map(|all| all.join(",")),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| scalar(value).map(|value| format!("{key}{between}{value}")));
            pairs.collect::<Result<Vec<_>, _>>().map(|all| all.join(","))
        }
        other => scalar(other),
    };
    text.map(|text| Some((*flag, text))).map_err(|why| format!("{field}: {why}"))
}

/// An element of a list: a text, or a taint.
fn item(value: &Value) -> Result<String, String> {
    let Some(taint) = value.as_object() else { return scalar(value) };
    let text = |key: &str| taint.get(key).and_then(Value::as_str).unwrap_or_default();
    Ok(format!("{}={}:{}", text("key"), text("value"), text("effect")))
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        _ => Err("expected a text or a number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    #[test]
    fn fields_become_flags_and_files_of_the_folder_win() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (dir.path().join("config.yaml"), dir.path().join("d"));
        std::fs::create_dir(&folder).unwrap();
        let more = "maxPods: 50\nclusterDNS: [10.43.0.10]\nevictionHard: {memory.available: 200Mi, nodefs.available: 5%}\nrotateCertificates: true\n\
            registerWithTaints: [{key: dedicated, value: db, effect: NoSchedule}]\n";
        std::fs::write(&file, format!("{HEAD}{more}")).unwrap();
        std::fs::write(folder.join("10-a.conf"), format!("{HEAD}maxPods: 60\nevictionHard: {{memory.available: 300Mi}}\n")).unwrap();
        std::fs::write(folder.join("20-b.conf"), format!("{HEAD}maxPods: 70\n")).unwrap();
        std::fs::write(folder.join("notes.txt"), "no configuration").unwrap();
        let found = flags(Some(&file), Some(&folder)).unwrap();
        let expected = [
            ("cluster-dns", "10.43.0.10"),
            ("eviction-hard", "memory.available<300Mi,nodefs.available<5%"),
            ("max-pods", "70"),
            ("register-with-taints", "dedicated=db:NoSchedule"),
        ];
        let found: Vec<(&str, &str)> = found.iter().map(|(flag, text)| (*flag, text.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_cannot_act_is_refused_by_name() {
        let refused = |more: &str| {
            let fields = parse(format!("{HEAD}{more}").as_bytes())?;
            fields.iter().try_for_each(|(field, value)| flag(field, value).map(drop))
        };
        assert!(
            refused("cpuManagerPolicy: static")
                .unwrap_err()
                .starts_with("cpuManagerPolicy: this field is not supported; supported are address, ")
        );
        assert_eq!(refused("failSwapOn: true").unwrap_err(), "failSwapOn: only false is possible");
        assert_eq!(refused("maxPods: {a: {}}").unwrap_err(), "maxPods: expected a text or a number");
        assert!(parse(b"kind: Pod\napiVersion: v1\n").unwrap_err().contains("found \"v1\" and \"Pod\""));
        assert!(parse(b"[]").unwrap_err().starts_with("expected a KubeletConfiguration"));
    }
}
