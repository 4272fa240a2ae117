//! Validation of the built-in kinds, in upstream's words.

use serde_json::{Value, json};

use super::{definition, now};
use crate::field::FieldErrors;
use crate::gvk::GroupVersionKind;
use crate::meta;

fn create(gvk: &GroupVersionKind, object: &Value) -> FieldErrors {
    definition(gvk).validate_create(object)
}

fn update(gvk: &GroupVersionKind, object: &Value, old: &Value) -> FieldErrors {
    definition(gvk).validate_update(object, old)
}

fn update_status(gvk: &GroupVersionKind, object: &Value, old: &Value) -> FieldErrors {
    definition(gvk).validate_subresource("status", object, old)
}

fn defaulted(mut object: Value) -> Value {
    let gvk = meta::gvk(&object).unwrap();
    object["metadata"]["uid"] = json!("u");
    if crate::resources::find_kind(&gvk.group, &gvk.kind).is_some_and(|resource| resource.namespaced) {
        object["metadata"]["namespace"] = json!("ns");
    }
    definition(&gvk).default(&mut object);
    definition(&gvk).prepare_for_create(&mut object, now());
    object
}

fn errors(object: Value) -> Vec<String> {
    let object = defaulted(object);
    create(&meta::gvk(&object).unwrap(), &object).iter().map(ToString::to_string).collect()
}

fn change(object: Value, edit: impl Fn(&mut Value)) -> Vec<String> {
    let mut old = defaulted(object);
    old["metadata"]["resourceVersion"] = json!("1");
    let mut new = old.clone();
    edit(&mut new);
    update(&meta::gvk(&old).unwrap(), &new, &old).iter().map(ToString::to_string).collect()
}

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

fn deployment(spec: Value) -> Value {
    let mut whole = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": whole})
}

#[test]
fn pods_fail_in_upstreams_words() {
    let container = |fields: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        for (key, value) in fields.as_object().unwrap() {
            container[key] = value.clone();
        }
        pod(json!({"containers": [container]}))
    };
    let cases: Vec<(Value, Vec<&str>)> = vec![
        (pod(json!({})), vec![]),
        (pod(json!({"containers": []})), vec!["spec.containers: Required value"]),
        (
            pod(json!({"containers": [{"name": "c", "image": "a"}, {"name": "c", "image": "b"}]})),
            vec!["spec.containers[1].name: Duplicate value: \"c\""],
        ),
        (
            container(json!({"ports": [{"containerPort": 70000}]})),
            vec!["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
        ),
        (
            container(json!({"volumeMounts": [{"name": "v", "mountPath": "/x"}]})),
            vec!["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
        ),
        (
            container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
            vec!["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
        ),
        (
            container(json!({"livenessProbe": {"httpGet": {"port": 0}, "successThreshold": 3}})),
            vec![
                "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 3: must be 1",
            ],
        ),
        (
            container(
                json!({"env": [{"name": "a=b"}, {"name": "X", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]}),
            ),
            vec![
                "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
                "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nope\": error converting fieldPath: field label not supported: spec.nope",
                "spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            ],
        ),
        (
            pod(json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]})),
            vec!["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            pod(json!({"restartPolicy": "Sometimes"})),
            vec!["spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\""],
        ),
        (
            pod(json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]})),
            vec!["spec.tolerations[0].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'"],
        ),
    ];
    for (object, expected) in cases {
        assert_eq!(errors(object), expected);
    }
}

#[test]
fn variables_from_a_file_need_an_empty_dir() {
    let found = |volume: Value| {
        let reference = json!({"volumeName": "v", "path": "env", "key": "A"});
        let container = json!({"name": "c", "image": "i", "env": [{"name": "A", "valueFrom": {"fileKeyRef": reference}}]});
        errors(pod(json!({"containers": [container], "volumes": volume})))
    };
    let place = "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName";
    assert_eq!(found(json!([{"name": "v", "emptyDir": {}}])), Vec::<String>::new());
    assert_eq!(found(json!([])), [format!("{place}: Not found: \"v\"")]);
    let host = json!([{"name": "v", "hostPath": {"path": "/etc"}}]);
    assert_eq!(found(host), [format!("{place}: Invalid value: \"v\": referenced volume must be of type emptyDir")]);
}

#[test]
fn a_running_pod_changes_little() {
    assert_eq!(change(pod(json!({})), |new| new["spec"]["containers"][0]["image"] = json!("j")), Vec::<String>::new());
    assert_eq!(change(pod(json!({})), |new| new["spec"]["activeDeadlineSeconds"] = json!(5)), Vec::<String>::new());
    let found = change(pod(json!({})), |new| new["spec"]["containers"][0]["command"] = json!(["x"]));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"));
    assert!(found[0].contains("-   \"Command\": null,\n+   \"Command\": [\n+    \"x\"\n+   ],"), "{}", found[0]);
    let added = change(pod(json!({})), |new| {
        new["spec"]["containers"] = json!([new["spec"]["containers"][0], {"name": "d", "image": "i"}]);
    });
    assert!(added.contains(&"spec.containers: Forbidden: pod updates may not add or remove containers".to_owned()));
}

#[test]
fn a_terminated_container_stays_so() {
    let mut old = defaulted(pod(json!({"restartPolicy": "Never"})));
    old["metadata"]["resourceVersion"] = json!("1");
    old["status"]["containerStatuses"] = json!([{"name": "c", "state": {"terminated": {"exitCode": 0}}}]);
    let mut new = old.clone();
    new["status"]["containerStatuses"][0]["state"] = json!({"running": {}});
    let found = update_status(&meta::gvk(&old).unwrap(), &new, &old);
    assert_eq!(found[0].to_string(), "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state");
}

#[test]
fn workloads_fail_in_upstreams_words() {
    let mismatch = "spec.template.metadata.labels: Invalid value: {\"x\":\"y\"}: `selector` does not match template `labels`";
    let template = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(errors(deployment(json!({}))), Vec::<String>::new());
    assert_eq!(errors(deployment(json!({"template": template}))), vec![mismatch]);
    assert_eq!(errors(deployment(json!({"replicas": -1}))), vec!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]);
    assert_eq!(
        errors(deployment(json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}))),
        vec!["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"]
    );
    assert_eq!(
        errors(deployment(json!({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}))),
        vec!["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]
    );
    let moved = change(deployment(json!({})), |new| new["spec"]["selector"] = json!({"matchLabels": {"z": "z"}}));
    assert_eq!(moved.last().unwrap(), "spec.selector: Invalid value: {\"matchLabels\":{\"z\":\"z\"}}: field is immutable");
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {
        "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(errors(job), vec!["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]);
}

fn stateful_set(spec: Value) -> Value {
    let mut whole = deployment(json!({"serviceName": "db", "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}));
    whole["kind"] = json!("StatefulSet");
    whole["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    for (key, value) in spec.as_object().unwrap() {
        whole["spec"][key] = value.clone();
    }
    whole
}

#[test]
fn stateful_sets_fail_in_upstreams_words() {
    assert_eq!(errors(stateful_set(json!({}))), Vec::<String>::new(), "a claim's template is a volume");
    assert_eq!(
        errors(stateful_set(json!({"volumeClaimTemplates": []}))),
        ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""]
    );
    let mut named = stateful_set(json!({"serviceName": "a.b"}));
    named["metadata"]["name"] = json!("a.b");
    let found = errors(named);
    assert!(found[0].starts_with("metadata.name: Invalid value: \"a.b\"") && found[1].starts_with("spec.serviceName:"), "{found:?}");
    assert_eq!(
        errors(stateful_set(json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]}))),
        ["spec.volumeClaimTemplates[0].spec.resources[storage]: Required value"]
    );
    let moved = change(stateful_set(json!({})), |new| new["spec"]["serviceName"] = json!("other"));
    assert!(moved[0].starts_with("spec: Forbidden: updates to statefulset spec"), "{moved:?}");
    assert_eq!(change(stateful_set(json!({})), |new| new["spec"]["replicas"] = json!(7)), Vec::<String>::new());
}

#[test]
fn counters_of_a_stateful_set_are_parts_of_the_whole() {
    let mut old = defaulted(stateful_set(json!({})));
    old["metadata"]["resourceVersion"] = json!("1");
    old["status"] = json!({"replicas": 1, "collisionCount": 2});
    let with = |status: Value| {
        let mut new = old.clone();
        new["status"] = status;
        let found = update_status(&meta::gvk(&old).unwrap(), &new, &old);
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let counters =
        json!({"replicas": 1, "readyReplicas": 1, "availableReplicas": 1, "currentReplicas": 1, "updatedReplicas": 1, "collisionCount": 2});
    assert_eq!(with(counters), Vec::<String>::new());
    assert_eq!(
        with(json!({"replicas": 1, "currentReplicas": 2, "availableReplicas": 1})),
        [
            "status.currentReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 1: cannot be greater than status.readyReplicas",
            "status.collisionCount: Invalid value: 0: cannot be decremented",
        ]
    );
}

#[test]
fn a_controller_revision_has_data() {
    let revision = |fields: Value| {
        let mut revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"}});
        for (key, value) in fields.as_object().unwrap() {
            revision[key] = value.clone();
        }
        revision
    };
    assert_eq!(errors(revision(json!({"data": {"a": 1}, "revision": 1}))), Vec::<String>::new());
    assert_eq!(errors(revision(json!({"revision": 1}))), ["data: Required value: data is mandatory"]);
    assert_eq!(errors(revision(json!({"data": [], "revision": 1}))), ["data: Required value: data must be a valid JSON object"]);
    assert_eq!(errors(revision(json!({"data": {}, "revision": -1}))), ["revision: Invalid value: -1: must be greater than or equal to 0"]);
    let renumbered = change(revision(json!({"data": {"a": 1}, "revision": 1})), |new| new["revision"] = json!(2));
    assert_eq!(renumbered, Vec::<String>::new());
    assert!(!change(revision(json!({"data": {"a": 1}, "revision": 1})), |new| new["data"]["a"] = json!(2)).is_empty());
}

#[test]
fn services_and_slices_fail_in_upstreams_words() {
    let service = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec});
    assert_eq!(errors(service(json!({"ports": [{"port": 80}]}))), Vec::<String>::new());
    assert_eq!(errors(service(json!({"selector": {"a": "b"}}))), vec!["spec.ports: Required value"]);
    assert_eq!(errors(service(json!({"type": "ExternalName", "externalName": "e.example"}))), Vec::<String>::new());
    let addresses = json!({"ports": [{"port": 80}], "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]});
    assert_eq!(
        change(service(addresses), |new| {
            new["spec"]["clusterIP"] = json!("10.0.0.2");
            new["spec"]["clusterIPs"] = json!(["10.0.0.2"]);
        }),
        vec!["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]
    );
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "s"},
        "addressType": "IPv4", "endpoints": [{"addresses": ["::1"]}]});
    assert_eq!(
        errors(slice),
        vec![
            "endpoints[0].addresses[0]: Invalid value: \"::1\": must be a valid IPv4 address",
            "endpoints[0].addresses[0]: Invalid value: \"::1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ]
    );
}

#[test]
fn metadata_is_checked_for_every_kind() {
    let config = |metadata: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    assert_eq!(errors(config(json!({"name": "c", "labels": {"ok": "bad value!"}}))).len(), 1);
    assert_eq!(errors(config(json!({}))), vec!["metadata.name: Required value: name or generateName is required"]);
    assert_eq!(errors(config(json!({"name": "c-abcde", "generateName": "c-"}))), Vec::<String>::new());
    assert_eq!(
        change(config(json!({"name": "c"})), |new| new["metadata"]["name"] = json!("d")),
        vec!["metadata.name: Invalid value: \"d\": field is immutable"]
    );
    let mut frozen = config(json!({"name": "c"}));
    frozen["immutable"] = json!(true);
    assert_eq!(change(frozen, |new| new["data"] = json!({"a": "b"})), vec!["data: Forbidden: field is immutable when `immutable` is set"]);
}

#[test]
fn a_role_binding_keeps_its_role() {
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"},
        "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "u"}]});
    assert_eq!(errors(binding.clone()), Vec::<String>::new());
    assert_eq!(change(binding, |new| new["roleRef"]["name"] = json!("edit")).len(), 1);
}

#[test]
fn a_flow_schema_says_who_asks_for_what_at_which_level() {
    const GROUP_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
    let schema =
        |name: &str, spec: Value| json!({"apiVersion": GROUP_VERSION, "kind": "FlowSchema", "metadata": {"name": name}, "spec": spec});
    let good = json!({"priorityLevelConfiguration": {"name": "l"}, "distinguisherMethod": {"type": "ByUser"}, "rules": [{
        "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "n", "name": "*"}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/", "/healthz/*"]}],
    }]});
    assert_eq!(errors(schema("s", good.clone())), Vec::<String>::new());
    for (path, value, expected) in [
        ("/matchingPrecedence", json!(-1), "spec.matchingPrecedence: Invalid value: -1: must be a positive value"),
        ("/matchingPrecedence", json!(10001), "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"),
        (
            "/matchingPrecedence",
            json!(1),
            "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
        ),
        (
            "/priorityLevelConfiguration/name",
            json!(""),
            "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
        ),
        (
            "/distinguisherMethod/type",
            json!("ByColor"),
            "spec.distinguisherMethod.type: Unsupported value: \"ByColor\": supported values: \"ByNamespace\", \"ByUser\"",
        ),
        ("/rules/0/subjects", json!([]), "spec.rules[0].subjects: Required value: subjects must contain at least one value"),
        (
            "/rules/0/subjects/0/serviceAccount/namespace",
            json!(""),
            "spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account",
        ),
        (
            "/rules/0/subjects/0",
            json!({"kind": "User", "user": {"name": "u"}, "group": {"name": "g"}}),
            "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
        ),
        (
            "/rules/0/subjects/0",
            json!({"kind": "Group"}),
            "spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'",
        ),
        (
            "/rules/0",
            json!({"subjects": [{"kind": "User", "user": {"name": "u"}}]}),
            "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
        ),
        (
            "/rules/0/resourceRules/0/verbs",
            json!(["frob"]),
            "spec.rules[0].resourceRules[0].verbs: Unsupported value: [\"frob\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
        ),
        (
            "/rules/0/resourceRules/0/namespaces",
            json!([]),
            "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
        ),
        (
            "/rules/0/nonResourceRules/0/nonResourceURLs/1",
            json!("/a*b"),
            "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/a*b\": wildcard can only do suffix matching",
        ),
        (
            "/rules/0/nonResourceRules/0/nonResourceURLs/1",
            json!("a"),
            "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"a\": must start with slash",
        ),
    ] {
        let mut spec = good.clone();
        spec["matchingPrecedence"] = json!(1000);
        *spec.pointer_mut(path).unwrap() = value;
        assert_eq!(errors(schema("s", spec)), [expected]);
    }
    for object in crate::bootstrap::flow_schemas().into_iter().chain(crate::bootstrap::priority_levels()) {
        assert_eq!(errors(object), Vec::<String>::new(), "what every cluster has");
    }
    let changed = errors(schema("catch-all", good));
    assert!(changed.len() == 1 && changed[0].ends_with("spec of 'catch-all' must equal the fixed value"), "{changed:?}");
}

#[test]
fn a_priority_level_has_shares_and_queues_that_can_be_dealt() {
    let level = |name: &str, spec: Value| json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": name}, "spec": spec});
    let good = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Queue", "queuing": {"queues": 128, "handSize": 6, "queueLengthLimit": 50}}}});
    assert_eq!(errors(level("l", good.clone())), Vec::<String>::new());
    for (path, value, expected) in [
        (
            "/limited/nominalConcurrencyShares",
            json!(-1),
            "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
        ),
        ("/limited/lendablePercent", json!(101), "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive"),
        (
            "/limited/borrowingLimitPercent",
            json!(-1),
            "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
        ),
        (
            "/limited/limitResponse/type",
            json!("Reject"),
            "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited",
        ),
        (
            "/limited/limitResponse",
            json!({"type": "Queue"}),
            "spec.limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type is Limited",
        ),
        (
            "/limited/limitResponse/queuing/queueLengthLimit",
            json!(-1),
            "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive",
        ),
        (
            "/limited/limitResponse/queuing",
            json!({"queues": 10_000_001, "handSize": 1, "queueLengthLimit": 50}),
            "spec.limited.limitResponse.queuing.queues: Invalid value: 10000001: must not be greater than 10000000",
        ),
        (
            "/limited/limitResponse/queuing/handSize",
            json!(129),
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 129: should not be greater than queues (128)",
        ),
        (
            "/limited/limitResponse/queuing/handSize",
            json!(9),
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 9: required entropy bits of deckSize 128 and handSize 9 should not be greater than 60",
        ),
    ] {
        let mut spec = good.clone();
        *spec.pointer_mut(path).unwrap() = value;
        assert_eq!(errors(level("l", spec)), [expected]);
    }
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 7, "lendablePercent": 50}});
    assert_eq!(errors(level("exempt", exempt.clone())), Vec::<String>::new(), "its shares may change");
    assert_eq!(errors(level("l", exempt)), ["spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'"]);
    let mut fixed = crate::bootstrap::priority_levels().into_iter().find(|one| meta::name(one) == "catch-all").unwrap();
    fixed["spec"]["limited"]["nominalConcurrencyShares"] = json!(6);
    let changed = errors(fixed);
    assert!(changed.len() == 1 && changed[0].ends_with("spec of 'catch-all' must equal the fixed value"), "{changed:?}");
}
