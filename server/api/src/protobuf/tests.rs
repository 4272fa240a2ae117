//! Small samples, and objects and bytes made at random.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::schema::{ContentType, Kind, TypeId};

/// An envelope around a message that was written by hand.
fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::new();
    wire::put_bytes(&mut type_meta, 1, api_version.as_bytes());
    wire::put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = MAGIC.to_vec();
    wire::put_bytes(&mut out, 1, &type_meta);
    wire::put_bytes(&mut out, 2, raw);
    out
}

fn nested(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_bytes(&mut out, number, content);
    out
}

fn round_trip(object: &Value) {
    let bytes = encode(object).unwrap();
    assert_eq!(decode(&bytes).as_ref(), Ok(object));
}

#[test]
fn what_a_go_client_sends() {
    // `kubectl create configmap`: Go writes the metadata's empty strings, its zero generation and an empty time.
    let mut meta = Vec::new();
    for (number, text) in [(1, "a"), (2, ""), (3, "ns"), (4, ""), (5, ""), (6, "")] {
        wire::put_bytes(&mut meta, number, text.as_bytes());
    }
    wire::put_number(&mut meta, 7, 0);
    wire::put_bytes(&mut meta, 8, b"");
    let raw = [nested(1, &meta), nested(2, &[nested(1, b"k"), nested(2, b"v")].concat()), nested(99, b"of a later version")].concat();
    let want = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns"}, "data": {"k": "v"}});
    assert_eq!(decode(&envelope("v1", "ConfigMap", &raw)), Ok(want.clone()));

    let expected = [GroupVersionKind::new("", "v1", "ConfigMap")];
    let decoded = schema::decode_any(&envelope("", "", &raw), ContentType::Protobuf, &expected, FieldValidation::Strict).unwrap();
    assert_eq!((decoded.object, decoded.warnings.len()), (want, 0));
    let status = schema::decode_any(&envelope("v1", "Secret", b""), ContentType::Protobuf, &expected, FieldValidation::Strict).unwrap_err();
    assert_eq!(status.code(), 400);
}

#[test]
fn zeros_of_pointers_are_shown_and_others_are_not() {
    // DeploymentSpec: replicas (1) is a pointer, minReadySeconds (5) and paused (7) are values.
    let mut spec = Vec::new();
    wire::put_number(&mut spec, 1, 0);
    wire::put_number(&mut spec, 5, 0);
    wire::put_number(&mut spec, 7, 0);
    let object = decode(&envelope("apps/v1", "Deployment", &nested(2, &spec))).unwrap();
    assert_eq!(object["spec"], json!({"replicas": 0}));
    // ReplicaSetStatus: replicas (1) is always shown, readyReplicas (4) only if there are some.
    let mut status = Vec::new();
    wire::put_number(&mut status, 1, 0);
    wire::put_number(&mut status, 4, 0);
    let object = decode(&envelope("apps/v1", "ReplicaSet", &nested(3, &status))).unwrap();
    assert_eq!(object["status"], json!({"replicas": 0}));
}

#[test]
fn forms_of_their_own() {
    round_trip(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "name": "p", "creationTimestamp": "2024-02-29T12:00:00Z", "generation": 3, "labels": {"a": ""},
        "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {".": {}}}}],
    }, "spec": {
        "containers": [{"name": "c", "args": ["", "-1"], "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "100m"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": "web"}, "failureThreshold": 2}}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "w", "configMap": {"name": "m", "defaultMode": 0}}],
        "ephemeralContainers": [{"name": "e", "targetContainerName": "c", "stdin": true}],
        "priority": -5, "hostUsers": false, "securityContext": {"supplementalGroups": [1, 2]},
    }}));
    round_trip(
        &json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 81, "targetPort": "x"}]}}),
    );
    round_trip(&json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "AAH/", "b": ""}, "immutable": false}));
    round_trip(
        &json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": "", "renewTime": "2024-02-29T12:00:00.000001Z"}}),
    );
    round_trip(&json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"extra": {"a": ["b", "c"]}}}));
    round_trip(&json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": {"any": [1, 2.5, null]}, "revision": 1}));
    round_trip(&json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "webhooks": [{"rules": [{"operations": ["CREATE"], "resources": ["pods"], "scope": "*"}], "clientConfig": {"caBundle": "AA=="}}]}));
    round_trip(
        &json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": {"versions": [{"name": "v1", "schema": {
        "openAPIV3Schema": {"$ref": "x", "default": [1], "maximum": 1.5, "minimum": 0, "items": {"type": "string"}, "enum": ["a", 1],
            "additionalProperties": false, "properties": {"p": {"additionalProperties": {"x-kubernetes-preserve-unknown-fields": true}}},
            "dependencies": {"d": ["e"]}, "allOf": [{"not": {"items": [{"type": "integer"}]}}]}}}]}}),
    );
    round_trip(
        &json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "p"}}]}),
    );
    round_trip(
        &json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 404, "details": {"kind": "pods", "causes": [{"field": "x"}]}}),
    );
    round_trip(&json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Foreground"}));
    round_trip(&json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "items": [{"metadata": {"name": "p"}}]}));
    let table = json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table"});
    assert!(matches!(encode(&table), Err(ProtobufError::Kind(_))));
}

#[test]
fn watch_events_are_framed() {
    let object = encode(&json!({"apiVersion": "v1", "kind": "Pod"})).unwrap();
    let frame = watch_frame("ADDED", &object);
    let (length, event) = frame.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, event.len());
    let mut reader = Reader::new(event);
    assert_eq!(reader.next().unwrap().unwrap().1.text("").unwrap(), "ADDED");
    let extension = reader.next().unwrap().unwrap().1.bytes("").unwrap();
    assert_eq!(Reader::new(extension).next().unwrap().unwrap().1.bytes("").unwrap(), object);
}

#[test]
fn every_served_kind_has_a_form() {
    for resource in crate::resources::builtin() {
        for version in resource.versions.iter() {
            for kind in [&resource.kind, &resource.list_kind].into_iter().filter(|k| !k.is_empty()) {
                let gvk = GroupVersionKind::new(resource.group.clone(), version.to_string(), kind.clone());
                assert!(knows(&gvk), "{gvk}");
            }
        }
    }
}

#[test]
fn bad_bytes_are_refused() {
    let check = |body: &[u8]| decode(body).unwrap_err();
    assert_eq!(check(b""), ProtobufError::Empty);
    assert_eq!(check(b"{}"), ProtobufError::Prefix);
    assert_eq!(check(&envelope("v1", "Pod", b"\x0a\x05a")), ProtobufError::Truncated);
    assert_eq!(check(&envelope("v1", "Pod", b"\x08\x01")), ProtobufError::WireType { wire: 0, field: "metadata" });
    assert_eq!(check(&envelope("v1", "Pod", &[0xff; 11])), ProtobufError::Overflow);
    assert!(matches!(check(&envelope("v1", "Nope", b"")), ProtobufError::Kind(_)));
    assert!(matches!(check(&[envelope("v1", "Pod", b""), nested(3, b"gzip")].concat()), ProtobufError::Encoding(_)));
    // JSONSchemaProps.not within each other.
    let deep = (0..500).fold(Vec::new(), |inner, _| nested(28, &inner));
    let versions = nested(7, &nested(4, &nested(1, &deep)));
    let body = envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", &nested(2, &versions));
    assert_eq!(check(&body), ProtobufError::Depth);
}

/// Any value of a type, as upstream's JSON would show it: nothing that is empty and optional.
fn any_value(ty: TypeId, depth: u32) -> BoxedStrategy<Value> {
    match ty.kind() {
        Kind::String => "[a-z]{1,4}".prop_map(Value::from).boxed(),
        Kind::Int32 => (1..=i32::MAX).prop_map(Value::from).boxed(),
        Kind::Int64 => prop_oneof![1..=i64::MAX, i64::MIN..0].prop_map(Value::from).boxed(),
        Kind::Double => prop_oneof![(1..1000).prop_map(Value::from), (1..1000).prop_map(|n| Value::from(f64::from(n) + 0.5))].boxed(),
        Kind::Bool => Just(Value::Bool(true)).boxed(),
        Kind::Bytes => Just(json!("AQID")).boxed(),
        Kind::IntOrString => prop_oneof![any::<i32>().prop_map(Value::from), "[a-z0-9%]{0,4}".prop_map(Value::from)].boxed(),
        Kind::Quantity => Just(json!("1500m")).boxed(),
        Kind::Time => (1_i64..4_000_000_000).prop_map(|s| crate::time::format(jiff::Timestamp::new(s, 0).unwrap()).into()).boxed(),
        Kind::MicroTime => (1_i64..4_000_000_000_000_000)
            .prop_map(|us| crate::time::format_micro(jiff::Timestamp::from_microsecond(us).unwrap()).into())
            .boxed(),
        // The unions of CRD schemas share this kind with any JSON; their own test has them.
        Kind::Any => Just(Value::Null).boxed(),
        Kind::AnyObject => Just(json!({"any": [1, {"thing": null}]})).boxed(),
        Kind::List(element) => prop::collection::vec(any_value(element, depth + 1), 1..3).prop_map(Value::Array).boxed(),
        Kind::Map(element) => prop::collection::btree_map("[a-z]{0,3}", any_value(element, depth + 1), 1..3)
            .prop_map(|m| Value::Object(m.into_iter().collect()))
            .boxed(),
        Kind::Struct if depth > 4 => Just(json!({})).boxed(),
        Kind::Struct => {
            // Messages within messages don't name their kinds.
            let is_root = schema::roots().any(|(_, _, _, root)| root == ty);
            let fields: Vec<_> = ty.fields().filter(|f| !(is_root && matches!(f.name(), "apiVersion" | "kind"))).collect();
            let count = fields.len();
            prop::collection::vec(0..count.max(1), 0..6.min(count + 1))
                .prop_flat_map(move |picked| {
                    let members: Vec<BoxedStrategy<(String, Value)>> = picked
                        .into_iter()
                        .filter_map(|i| fields.get(i))
                        .map(|f| (Just(f.name().to_owned()), any_value(f.type_id(), depth + 1)).boxed())
                        .collect();
                    members
                })
                .prop_map(|members| Value::Object(members.into_iter().filter(|(_, v)| !v.is_null()).collect::<Map<_, _>>()))
                .boxed()
        }
    }
}

fn any_object() -> impl Strategy<Value = Value> {
    let kinds = [
        ("", "v1", "Pod"),
        ("", "v1", "Node"),
        ("", "v1", "Service"),
        ("apps", "v1", "StatefulSet"),
        ("batch", "v1", "CronJob"),
        ("networking.k8s.io", "v1", "Ingress"),
        ("resource.k8s.io", "v1", "ResourceSlice"),
    ];
    prop::sample::select(kinds.to_vec()).prop_flat_map(|(group, version, kind)| {
        let gvk = GroupVersionKind::new(group, version, kind);
        any_value(schema::type_of(group, version, kind).unwrap(), 0).prop_map(move |mut object| {
            crate::meta::set_gvk(&mut object, &gvk);
            object
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn decoding_undoes_encoding(object in any_object()) {
        let bytes = encode(&object).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap(), object);
    }

    #[test]
    fn no_bytes_panic(raw in prop::collection::vec(any::<u8>(), 0..200), object in any_object(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let _ = decode(&envelope("v1", "Pod", &raw));
        let _ = decode(&envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", &raw));
        let mut bytes = encode(&object).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&bytes);
        let _ = decode(&bytes[..at]);
    }
}

#[test]
fn a_list_in_pieces_is_the_list() {
    let map = |n: usize| json!({"metadata": {"name": format!("m{n}"), "namespace": "ns"}, "data": {"k": "v".repeat(n * 10)}});
    for count in [0, 1, 300] {
        let items: Vec<Value> = (0..count).map(map).collect();
        let metadata = json!({"resourceVersion": "7", "continue": "next", "remainingItemCount": 3});
        let mut list = ListEncoder::new(&GroupVersionKind::new("", "v1", "ConfigMap")).unwrap();
        for item in &items {
            let item = list.item(item.as_object().unwrap()).unwrap();
            list.push(&item);
        }
        let pieces = list.finish("v1", "ConfigMapList", metadata.as_object().unwrap()).unwrap();
        assert_eq!(pieces.len() > 3, count > 100, "large lists come in pieces");
        let whole = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items});
        assert_eq!(pieces.concat(), encode(&whole).unwrap());
    }
    assert!(ListEncoder::new(&GroupVersionKind::new("example.com", "v1", "Foo")).is_err());
}
