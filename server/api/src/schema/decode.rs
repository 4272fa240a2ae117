//! Request bodies to objects, by schema.
//!
//! Does what upstream's typed decoding does to a client: fields that the type doesn't have are dropped and reported (as
//! warnings, or as an error under Strict), duplicates are reported, values of a wrong type are refused with the texts of
//! Go's JSON decoder, `null` is the same as absent, quantities and times come out in canonical form.

use serde_json::Value;

use super::conform::{Conformed, Conformer, conform};
use super::go_json::{self, Node};
use super::tables::{TypeId, type_of};
use crate::field::{FieldError, FieldPath, quote};
use crate::gvk::{GroupVersion, GroupVersionKind};
use crate::status::Status;

/// Media type of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// application/json
    Json,
    /// application/yaml
    Yaml,
    /// application/vnd.kubernetes.protobuf
    Protobuf,
}

/// What to do about unknown and duplicate fields (the `fieldValidation` parameter).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them with a warning each.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object, with `apiVersion` and `kind` set.
    pub object: Value,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
}

// === impl FieldValidation ===

impl FieldValidation {
    /// From the query parameter; absent or empty means Warn.
    pub fn from_param(value: &str) -> Result<Self, FieldError> {
        match value {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                Err(FieldError::not_supported(&FieldPath::new("fieldValidation"), other, &supported))
            }
        }
    }

    /// Warnings for what was dropped, or the error text under Strict.
    pub fn judge(self, problems: Vec<String>) -> Result<Vec<String>, String> {
        match self {
            _ if problems.is_empty() => Ok(Vec::new()),
            Self::Ignore => Ok(Vec::new()),
            Self::Warn => Ok(problems),
            Self::Strict => Err(format!("strict decoding error: {}", problems.join(", "))),
        }
    }
}

/// Decodes a body that should be an object of kind `expected` (the kind of the request's resource, a subresource's kind,
/// `DeleteOptions`...). A body without `apiVersion` and `kind` is taken for one.
pub fn decode(body: &[u8], content_type: ContentType, expected: &GroupVersionKind, validation: FieldValidation) -> Result<Decoded, Status> {
    decode_any(body, content_type, std::slice::from_ref(expected), validation)
}

/// As [`decode`] where several kinds will do; the first one is the default.
pub fn decode_any(
    body: &[u8],
    content_type: ContentType,
    expected: &[GroupVersionKind],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    if content_type == ContentType::Protobuf {
        return crate::protobuf::decode_any(body, expected, validation);
    }
    let Some(default) = expected.first() else {
        return Err(Status::internal("no kind expected"));
    };
    let node = read(body, content_type).map_err(|e| unrecognized(body, default, &e))?;
    let given = given_kind(&node, default).map_err(|e| unrecognized(body, default, &e))?;
    let (node, doubled) = told_as_yaml(node, body, content_type);
    settle(&given, expected, validation, |ty| conform(node, ty).map(|conformed| conformed.after(doubled)))
}

/// Takes doubled keys out of a YAML body, the last of each kept, and says the first of them in the words of upstream's YAML library. In a JSON
/// body they stay: each is told with its path.
pub(super) fn told_as_yaml(node: Node, body: &[u8], content_type: ContentType) -> (Node, Option<String>) {
    if content_type != ContentType::Yaml || !has_duplicates(&node) {
        return (node, None);
    }
    let known = super::yaml::duplicate(body).unwrap_or_else(|| "yaml: a key is already set in its map".to_owned());
    (without_duplicates(node), Some(format!("error converting YAML to JSON: {known}")))
}

fn without_duplicates(node: Node) -> Node {
    match node {
        Node::Object(pairs) => {
            let mut seen = std::collections::HashSet::with_capacity(pairs.len());
            let mut kept: Vec<_> = pairs.into_iter().rev().filter(|(key, _)| seen.insert(key.clone())).collect();
            kept.reverse();
            Node::Object(kept.into_iter().map(|(key, value)| (key, without_duplicates(value))).collect())
        }
        Node::Array(items) => Node::Array(items.into_iter().map(without_duplicates).collect()),
        other => other,
    }
}

/// Decodes a body whose kind is known as one of the kinds `expected`, if it is one.
pub(crate) fn settle(
    given: &GroupVersionKind,
    expected: &[GroupVersionKind],
    validation: FieldValidation,
    read: impl FnOnce(TypeId) -> Result<Conformed, String>,
) -> Result<Decoded, Status> {
    let Some(default) = expected.first() else {
        return Err(Status::internal("no kind expected"));
    };
    let refuse = |error: &str| {
        Status::bad_request(format!("{} in version {} cannot be handled as a {}: {error}", given.kind, quote(&given.version), default.kind))
    };
    let Some(wanted) = expected.iter().find(|e| *e == given) else {
        return Err(mismatch(given, default, &refuse));
    };
    let Some(ty) = type_of(&wanted.group, &wanted.version, &wanted.kind) else {
        return Err(Status::internal(format!("no schema for {wanted}")));
    };
    let conformed = read(ty).map_err(|e| refuse(&e))?;
    let warnings = validation.judge(conformed.problems).map_err(|e| refuse(&e))?;
    let mut object = conformed.object;
    crate::meta::set_gvk(&mut object, wanted);
    Ok(Decoded { object, warnings })
}

/// Makes an object that was computed (by a patch) fit its type; errors are worded as [`decode`]'s, without the kind.
pub fn conform_value(object: Value, ty: TypeId) -> Result<Conformed, String> {
    conform(Node::from_value(object), ty)
}

/// Drops what the type doesn't have, silently and whatever else is wrong.
pub fn prune(object: &mut Value, ty: TypeId) {
    Conformer::prune(object, ty);
}

/// JSON as a value, with errors in Go's words and bounded nesting.
pub fn parse_json(body: &[u8]) -> Result<Value, String> {
    go_json::parse(body).map(Node::into_value)
}

/// YAML as a value; of duplicate keys the last one counts.
pub fn parse_yaml(body: &[u8]) -> Result<Value, String> {
    super::yaml::parse(body).map(Node::into_value)
}

/// Reads a configuration to apply, in YAML or JSON. The second value is a message if a key occurs twice in a map; the last one counts.
pub fn parse_configuration(body: &[u8]) -> Result<(Value, Option<String>), String> {
    let node = read(body, ContentType::Yaml)?;
    let known = || super::yaml::duplicate(body).unwrap_or_else(|| "yaml: a key is already set in its map".to_owned());
    let duplicate = has_duplicates(&node).then(known);
    Ok((node.into_value(), duplicate))
}

fn has_duplicates(node: &Node) -> bool {
    match node {
        Node::Object(pairs) => {
            let mut seen = std::collections::HashSet::with_capacity(pairs.len());
            pairs.iter().any(|(key, value)| !seen.insert(key) || has_duplicates(value))
        }
        Node::Array(items) => items.iter().any(has_duplicates),
        _ => false,
    }
}

/// 400 for a body that is no object with a kind.
pub(super) fn unrecognized(body: &[u8], default: &GroupVersionKind, error: &str) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {error} ({})",
        default.kind,
        summary(body)
    ))
}

pub(super) fn read(body: &[u8], content_type: ContentType) -> Result<Node, String> {
    match content_type {
        ContentType::Json | ContentType::Protobuf => go_json::parse(body),
        // JSON is YAML too, and read faster.
        ContentType::Yaml => go_json::parse(body).or_else(|_| super::yaml::parse(body)),
    }
}

/// The kind that the body names; what it leaves out comes from the default.
pub(super) fn given_kind(node: &Node, default: &GroupVersionKind) -> Result<GroupVersionKind, String> {
    const PROBE: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let text = |key: &str| match node.get(key) {
        None | Some(Node::Null) => Ok(""),
        Some(Node::String(text)) => Ok(text.as_str()),
        Some(other) => Err(format!("json: cannot unmarshal {} into Go struct field .{key} of type string", other.type_word())),
    };
    if !matches!(node, Node::Object(_) | Node::Null) {
        return Err(format!("json: cannot unmarshal {} into Go value of type {PROBE}", node.type_word()));
    }
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    let Some(mut group_version) = GroupVersion::parse(api_version) else {
        return Err(format!("unexpected GroupVersion string: {api_version}"));
    };
    if api_version.is_empty() {
        group_version = default.group_version();
    }
    Ok(group_version.with_kind(if kind.is_empty() { default.kind.clone() } else { kind.to_owned().into() }))
}

fn mismatch(given: &GroupVersionKind, default: &GroupVersionKind, refuse: &dyn Fn(&str) -> Status) -> Status {
    let known = type_of(&given.group, &given.version, &given.kind).is_some();
    if !known {
        return refuse(&format!(
            "no kind {} is registered for version {} in scheme \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\"",
            quote(&given.kind),
            quote(&given.api_version())
        ));
    }
    if given.kind == default.kind {
        return Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            given.api_version(),
            default.api_version()
        ));
    }
    let package = |group: &str| if group.is_empty() { "core".to_owned() } else { group.split('.').next().unwrap_or(group).to_owned() };
    refuse(&format!("converting ({}.{}) to ({}.{}): unknown conversion", given.version, given.kind, package(&default.group), default.kind))
}

/// The beginning of a body, for an error message.
pub(crate) fn summary(body: &[u8]) -> String {
    const LEN: usize = 30;
    let (head, more) = if body.len() > LEN { (&body[..LEN], " ...") } else { (body, "") };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => format!("{}{more}", hex::encode(head)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> GroupVersionKind {
        GroupVersionKind::new("", "v1", "Pod")
    }

    fn decode_pod(body: &str, validation: FieldValidation) -> Result<Decoded, String> {
        decode(body.as_bytes(), ContentType::Json, &pod(), validation).map_err(|s| s.message)
    }

    #[test]
    fn unknown_and_duplicate_fields() {
        let body = r#"{"nope":1,"metadata":{"name":"a","name":"b","labels":{"x":"1","x":"2"}},
            "spec":{"containers":[{"name":"c","imge":{"deep":1}}]}}"#;
        let problems = [
            r#"unknown field "nope""#,
            r#"duplicate field "metadata.name""#,
            r#"duplicate field "metadata.labels.x""#,
            r#"unknown field "spec.containers[0].imge""#,
        ];
        let decoded = decode_pod(body, FieldValidation::Warn).expect("decodes");
        assert_eq!(decoded.warnings, problems);
        assert_eq!(
            decoded.object,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b", "labels": {"x": "2"}}, "spec": {"containers": [{"name": "c"}]}})
        );
        assert_eq!(decode_pod(body, FieldValidation::Ignore).map(|d| d.warnings), Ok(Vec::new()));
        let want = format!("Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: {}", problems.join(", "));
        assert_eq!(decode_pod(body, FieldValidation::Strict).map(|_| ()), Err(want));
    }

    #[test]
    fn errors_are_upstreams() {
        let handled = "cannot be handled as a Pod:";
        let cases = [
            ("{nope", "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: invalid character 'n' looking for beginning of object key string ({nope)".to_owned()),
            ("", "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)".to_owned()),
            (r#"{"spec":{"containers":[{"image":5}]}}"#, format!("Pod in version \"v1\" {handled} json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string")),
            (r#"{"spec":{"priority":"x"}}"#, format!("Pod in version \"v1\" {handled} json: cannot unmarshal string into Go struct field PodSpec.spec.priority of type int32")),
            (r#"{"spec":{"priority":1.5}}"#, format!("Pod in version \"v1\" {handled} json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32")),
            (r#"{"spec":[]}"#, format!("Pod in version \"v1\" {handled} json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec")),
            (r#"{"spec":{"containers":{}}}"#, format!("Pod in version \"v1\" {handled} json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container")),
            (r#"{"metadata":{"labels":{"a":1}}}"#, format!("Pod in version \"v1\" {handled} json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string")),
            (r#"{"spec":{"overhead":{"cpu":"x"}}}"#, format!("Pod in version \"v1\" {handled} quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")),
            (r#"{"metadata":{"creationTimestamp":"x"}}"#, format!("Pod in version \"v1\" {handled} parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"")),
            (r#"{"apiVersion":"v1","kind":"Nope"}"#, format!("Nope in version \"v1\" {handled} no kind \"Nope\" is registered for version \"v1\" in scheme \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\"")),
            (r#"{"apiVersion":"v1","kind":"Service"}"#, format!("Service in version \"v1\" {handled} converting (v1.Service) to (core.Pod): unknown conversion")),
        ];
        for (body, want) in cases {
            assert_eq!(decode_pod(body, FieldValidation::Warn).map(|d| d.object), Err(want), "{body}");
        }
        let hpa = GroupVersionKind::new("autoscaling", "v2", "HorizontalPodAutoscaler");
        let body = br#"{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler"}"#;
        let status = decode(body, ContentType::Json, &hpa, FieldValidation::Warn).expect_err("mismatch");
        assert_eq!(status.message, "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)");
        let secret = GroupVersionKind::new("", "v1", "Secret");
        let status = decode(br#"{"data":{"a":"!!"}}"#, ContentType::Json, &secret, FieldValidation::Warn).expect_err("base64");
        assert_eq!(status.message, "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0");
    }

    #[test]
    fn values_come_out_canonical() {
        let body = r#"{"metadata":{"creationTimestamp":"2024-01-01T02:00:00+02:00","annotations":null,"labels":{},"finalizers":[],"namespace":""},
            "spec":{"volumes":[{"name":"v","emptyDir":{}}],"overhead":{"cpu":1,"memory":"1024Mi"},"containers":[{"name":"c","livenessProbe":{"httpGet":{"port":"web"}}}],"nodeName":null}}"#;
        let decoded = decode_pod(body, FieldValidation::Strict).expect("decodes");
        assert_eq!(
            decoded.object,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"},
                "spec": {"volumes": [{"name": "v", "emptyDir": {}}], "overhead": {"cpu": "1", "memory": "1Gi"}, "containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": "web"}}}]}})
        );
    }

    #[test]
    fn case_14_zeros_that_go_omits_are_not_kept() {
        let body = b"spec:\n  hostNetwork: off\n  hostPID: false\n  hostUsers: false\n  automountServiceAccountToken: no\n  nodeName: ''\n  \
            runtimeClassName: ''\n  priority: 0\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: ''\n    tty: off\n    stdin: on\n    \
            ports: [{hostPort: 0, containerPort: 0}]\n    readinessProbe: {initialDelaySeconds: 0, terminationGracePeriodSeconds: 0, grpc: {port: 0, service: ''}}\n";
        let decoded = decode(body, ContentType::Yaml, &pod(), FieldValidation::Strict).expect("decodes");
        // Pointers keep their zero, and so does what is always written.
        let container = json!({"name": "", "stdin": true, "ports": [{"containerPort": 0}],
            "readinessProbe": {"terminationGracePeriodSeconds": 0, "grpc": {"port": 0, "service": ""}}});
        assert_eq!(
            decoded.object["spec"],
            json!({"hostUsers": false, "automountServiceAccountToken": false, "runtimeClassName": "", "priority": 0,
                "terminationGracePeriodSeconds": 0, "containers": [container]})
        );
        let claim = GroupVersionKind::new("", "v1", "PersistentVolumeClaim");
        let body = br#"{"spec":{"storageClassName":"","volumeName":""},"data":0}"#;
        let decoded = decode(body, ContentType::Json, &claim, FieldValidation::Ignore).expect("decodes");
        assert_eq!(decoded.object["spec"], json!({"storageClassName": ""}), "no class is something else than the default one");
    }

    #[test]
    fn yaml_is_read() {
        let body = b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {on-call: 'yes'}\nspec:\n  priority: 5\n  containers:\n  - name: c\n    args: ['1', \"true\"]\n    imge: x\n    imge: y\n    image: a\n    image: b\n";
        let decoded = decode(body, ContentType::Yaml, &pod(), FieldValidation::Warn).expect("decodes");
        let doubled = "error converting YAML to JSON: yaml: unmarshal errors:\n  line 12: key \"imge\" already set in map";
        assert_eq!(decoded.warnings, [doubled, r#"unknown field "spec.containers[0].imge""#]);
        assert_eq!(decoded.object["spec"], json!({"priority": 5, "containers": [{"name": "c", "image": "b", "args": ["1", "true"]}]}));
        assert!(decode(b"a: [", ContentType::Yaml, &pod(), FieldValidation::Warn).is_err());
    }
}
