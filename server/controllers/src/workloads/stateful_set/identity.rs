//! Who a pod of a StatefulSet is: its ordinal, its name and labels, and the volumes that are its own. No I/O.

use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use trireme_client::Object;

use super::claims::claim_name;
use super::view::View;
use crate::ownership::Children;
use crate::workloads::history::{REVISION_LABEL, label};

pub(super) const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
pub(super) const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The ordinal of a pod of this name, if it is one that the set would give.
pub(super) fn ordinal_in(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    (ordinal >= 0 && digits == ordinal.to_string()).then_some(ordinal)
}

pub(super) fn pod_name(set: &str, ordinal: i32) -> String {
    format!("{set}-{ordinal}")
}

/// The revision that a pod was made from.
pub(super) fn revision_of(pod: &Pod) -> &str {
    label(&pod.metadata, REVISION_LABEL)
}

/// Whether the pod carries its name in the label by which Services select single pods.
pub(super) fn has_identity(pod: &Pod) -> bool {
    label(&pod.metadata, NAME_LABEL) == pod.name()
}

/// Whether the pod mounts its claims, under the names that the set gives them.
pub(super) fn has_storage(view: &View<'_>, pod: &Pod, ordinal: i32) -> bool {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    view.claim_templates().iter().all(|template| {
        let wanted = claim_name(view.name(), template.name(), ordinal);
        let volume = volumes.iter().rev().find(|volume| volume.name == template.name());
        volume.and_then(|volume| volume.persistent_volume_claim.as_ref()).is_some_and(|source| source.claim_name == wanted)
    })
}

/// The volumes of a pod: one for each claim template, and those of the template that have other names.
pub(super) fn volumes(view: &View<'_>, present: Vec<Volume>, ordinal: i32) -> Vec<Volume> {
    let templates = view.claim_templates();
    let own = templates.iter().map(|template| Volume {
        name: template.name().to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(view.name(), template.name(), ordinal),
            ..PersistentVolumeClaimVolumeSource::default()
        }),
        ..Volume::default()
    });
    let rest = present.into_iter().filter(|volume| !templates.iter().any(|template| template.name() == volume.name));
    own.chain(rest).collect()
}

/// The pod with this ordinal, from a template of this revision.
pub(super) fn new_pod(view: &View<'_>, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = Children::pod_of(view.set, template);
    let name = pod_name(view.name(), ordinal);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME_LABEL.to_owned(), name.clone());
    labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = view.spec.service_name.clone().filter(|service| !service.is_empty());
    let volumes = volumes(view, spec.volumes.take().unwrap_or_default(), ordinal);
    spec.volumes = Some(volumes).filter(|volumes| !volumes.is_empty());
    pod
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::apps::v1::StatefulSet;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_names_that_the_set_gives_are_members() {
        for (set, pod, ordinal) in [
            ("web", "web-0", Some(0)),
            ("web", "web-12", Some(12)),
            ("web", "web-01", None),
            ("web", "web-+1", None),
            ("web", "web-", None),
            ("web", "web-1-2", None),
            ("web-1", "web-1-2", Some(2)),
            ("web", "webs-1", None),
            ("web", "web-99999999999", None),
        ] {
            assert_eq!(ordinal_in(set, pod), ordinal, "{pod} in {set}");
        }
    }

    #[test]
    fn a_pod_has_a_name_a_host_and_volumes_of_its_own() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "ns", "uid": "u"},
            "spec": {
                "serviceName": "peers", "selector": {"matchLabels": {"app": "db"}}, "ordinals": {"start": 3},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"hostname": "x", "subdomain": "y", "containers": [],
                    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "scratch", "emptyDir": {}}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            },
        }))
        .unwrap();
        let view = View::of(&set).unwrap();
        let pod = new_pod(&view, &view.spec.template, "db-rev", 3);
        let shown = serde_json::to_value(&pod).unwrap();
        assert_eq!(shown["metadata"]["name"], "db-3");
        assert_eq!(shown["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(shown["metadata"]["labels"], json!({"app": "db", NAME_LABEL: "db-3", INDEX_LABEL: "3", REVISION_LABEL: "db-rev"}));
        assert_eq!((&shown["spec"]["hostname"], &shown["spec"]["subdomain"]), (&json!("db-3"), &json!("peers")));
        assert_eq!(
            shown["spec"]["volumes"],
            json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-3"}}, {"name": "scratch", "emptyDir": {}}])
        );
        assert!(has_identity(&pod) && has_storage(&view, &pod, 3) && !has_storage(&view, &pod, 4));
    }
}
