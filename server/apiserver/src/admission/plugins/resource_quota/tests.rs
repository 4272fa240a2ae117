//! What joins a transaction, what goes before it, and what is refused.

use serde_json::{Value, json};
use trireme_api::gvk::{GroupVersionKind, GroupVersionResource};

use super::*;
use crate::storage::fake_reader::FakeReader;
use crate::user::UserInfo;

fn world() -> (Arc<FakeReader>, ResourceQuota) {
    let reader = Arc::new(FakeReader::default());
    let plugin = ResourceQuota { reader: reader.clone(), store: reader.clone(), places: vec![Arc::default(); PLACES] };
    (reader, plugin)
}

fn quota(name: &str, hard: Value, used: Value) -> Value {
    json!({"metadata": {"namespace": "a", "name": name}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
}

fn create(plural: &'static str, object: Value) -> AdmissionRequest {
    let (kind, resource) = (GroupVersionKind::new("", "v1", "X"), GroupVersionResource::new("", "v1", plural));
    let mut request = AdmissionRequest::new(Operation::Create, kind, resource, UserInfo::new("jane", &[]));
    request.namespace = "a".to_owned();
    request.name = "x".to_owned();
    request.set_object(object);
    request
}

async fn validate(plugin: &ResourceQuota, request: &AdmissionRequest) -> Answer<Effects> {
    let mut effects = Effects::default();
    plugin.validate(request, &mut effects).await?;
    Ok(effects)
}

/// The objects that effects write.
fn written(effects: &Effects) -> Vec<Value> {
    let put = |operation: &trireme_proto::etcd::RequestOp| match &operation.request {
        Some(trireme_proto::etcd::request_op::Request::RequestPut(put)) => serde_json::from_slice(&put.value).unwrap(),
        other => panic!("{other:?}"),
    };
    effects.operations().iter().map(put).collect()
}

#[tokio::test]
async fn a_charge_joins_the_objects_transaction() {
    let (reader, plugin) = world();
    let request = create("secrets", json!({"metadata": {"name": "x"}}));
    assert!(validate(&plugin, &request).await.unwrap().compares().is_empty(), "no quota, no condition");
    reader.put(GROUP, PLURAL, quota("q", json!({"secrets": "2", "pods": "1"}), json!({"secrets": "1", "pods": "0"})));
    let effects = validate(&plugin, &request).await.unwrap();
    assert_eq!(&effects.compares()[0].key[..], b"/registry/core/resourcequotas/a/q");
    assert_eq!(written(&effects)[0]["status"]["used"], json!({"secrets": "2", "pods": "0"}));
    assert!(reader.ahead.read().is_empty());
    // Effects hold their place until the transaction is over.
    drop(effects);

    let mut dry = request.clone();
    dry.dry_run = true;
    assert!(validate(&plugin, &dry).await.unwrap().operations().is_empty());
    reader.put(GROUP, PLURAL, quota("q", json!({"secrets": "2"}), json!({"secrets": "2"})));
    for request in [request, dry] {
        let status = validate(&plugin, &request).await.unwrap_err();
        let message = "secrets \"x\" is forbidden: exceeded quota: q, requested: secrets=1, used: secrets=2, limited: secrets=2";
        assert_eq!((status.code(), status.message.as_str()), (403, message));
    }
    assert!(validate(&plugin, &create("events", json!({}))).await.unwrap().compares().is_empty());
}

#[tokio::test]
async fn an_old_state_of_a_quota_refuses_nothing() {
    let (reader, plugin) = world();
    reader.put(GROUP, PLURAL, quota("q", json!({"secrets": "1"}), json!({"secrets": "1"})));
    reader.put_late(GROUP, PLURAL, quota("q", json!({"secrets": "1"}), json!({"secrets": "0"})));
    let effects = validate(&plugin, &create("secrets", json!({}))).await.unwrap();
    assert_eq!(written(&effects)[0]["status"]["used"], json!({"secrets": "1"}));
}

#[tokio::test]
async fn one_quota_joins_and_the_others_are_charged_before() {
    let (reader, plugin) = world();
    for name in ["p", "q"] {
        reader.put(
            GROUP,
            PLURAL,
            quota(name, json!({"secrets": "5", "resourcequotas": "5"}), json!({"secrets": "1", "resourcequotas": "2"})),
        );
    }
    let effects = validate(&plugin, &create("secrets", json!({}))).await.unwrap();
    assert_eq!(written(&effects).len(), 1, "a transaction writes one object of a resource");
    let ahead = std::mem::take(&mut *reader.ahead.write());
    assert_eq!((ahead.len(), &written(&ahead[0])[0]["status"]["used"]["secrets"]), (1, &json!("2")));
    assert_eq!(ahead[0].compares().len(), 1);
    assert_eq!(effects.compares().len(), 2, "both quotas must stay as they were charged");
    drop(effects);

    let effects = validate(&plugin, &create("resourcequotas", json!({}))).await.unwrap();
    assert!(written(&effects).is_empty(), "the quota itself is written there");
    assert_eq!(reader.ahead.read().len(), 2);
}
