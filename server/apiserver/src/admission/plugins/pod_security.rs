//! PodSecurity: a namespace's labels say which Pod Security Standard its pods must meet.
//!
//! `pod-security.kubernetes.io/enforce` refuses pods, `warn` warns about pods and about workloads whose template would make such
//! pods. Every version label is taken for the current standard. Answers to
//! <https://kubernetes.io/docs/concepts/security/pod-security-admission/>.

mod policy;

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::field::{FieldError, FieldPath};
use trireme_api::gvk::GroupKind;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::admission::effects::Effects;
use crate::admission::find;
use crate::admission::forbid;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;
use policy::Level;

const PREFIX: &str = "pod-security.kubernetes.io/";
const LEVELS: [&str; 3] = ["privileged", "baseline", "restricted"];
/// Pods that are looked at when the level of a namespace changes.
const PODS_CHECKED: usize = 3000;

/// Where the pod is in objects of these resources.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "podtemplates", "/template"),
    ("", "replicationcontrollers", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
    ("batch", "jobs", "/spec/template"),
];

/// The plugin.
pub struct PodSecurity {
    reader: Arc<dyn ObjectReader>,
}

impl PodSecurity {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> PodSecurity {
        PodSecurity { reader: environment.reader.clone() }
    }

    async fn judge(&self, request: &AdmissionRequest, effects: &mut Effects) -> Answer<()> {
        let Some(object) = request.object() else { return Ok(()) };
        if request.is_on("", "namespaces", "") {
            return self.judge_namespace(request, object, effects);
        }
        let Some(namespace) = find(&*self.reader, "", "namespaces", "", &request.namespace).await else { return Ok(()) };
        if !request.is_on("", "pods", "") && !request.is_on("", "pods", "ephemeralcontainers") {
            return self.judge_template(request, object, &namespace.object, effects);
        }
        if request.operation == Operation::Update && !is_significant(object, request.old_object.as_deref()) {
            return Ok(());
        }
        let [enforce, warn, audit] = ["enforce", "warn", "audit"].map(|mode| Mode::of(&namespace.object, mode));
        effects.annotate("pod-security.kubernetes.io/enforce-policy", enforce.shown());
        audit.note(object, effects);
        let violations = policy::evaluate(enforce.level, object);
        if !violations.is_empty() {
            return Err(forbid(request, &format!("violates PodSecurity \"{}\": {violations}", enforce.shown())));
        }
        warn.warn(object, effects, "");
        Ok(())
    }

    fn judge_template(&self, request: &AdmissionRequest, object: &Value, namespace: &Value, effects: &mut Effects) -> Answer<()> {
        let place = TEMPLATES.iter().find(|(group, plural, _)| request.is_on(group, plural, ""));
        if let Some(template) = place.and_then(|(_, _, pointer)| object.pointer(pointer)) {
            Mode::of(namespace, "audit").note(template, effects);
            Mode::of(namespace, "warn").warn(template, effects, "");
        }
        Ok(())
    }

    /// Labels must name levels; pods that a new level would refuse are warned about.
    fn judge_namespace(&self, request: &AdmissionRequest, object: &Value, effects: &mut Effects) -> Answer<()> {
        let mut errors = Vec::new();
        let labels = FieldPath::new("metadata").child("labels");
        for mode in ["enforce", "audit", "warn"] {
            let key = format!("{PREFIX}{mode}");
            if let Some(level) = meta::label(object, &key).filter(|level| !LEVELS.contains(level)) {
                errors.push(FieldError::invalid(&labels.key(&key), level, format!("must be one of {}", LEVELS.join(", "))));
            }
            let key = format!("{PREFIX}{mode}-version");
            if let Some(version) = meta::label(object, &key).filter(|version| !is_version(version)) {
                errors.push(FieldError::invalid(&labels.key(&key), version, "must be \"latest\" or \"v1.x\""));
            }
        }
        if !errors.is_empty() {
            return Err(Status::invalid(&GroupKind::new("", "Namespace"), meta::name(object), &errors).into());
        }
        let new = Mode::of(object, "enforce");
        let old = request.old_object.as_deref().map(|old| Mode::of(old, "enforce"));
        if old.is_none_or(|old| old.level >= new.level) {
            return Ok(());
        }
        let pods = self.reader.list("", "pods", Some(meta::name(object)));
        let bad: Vec<_> = pods
            .iter()
            .take(PODS_CHECKED)
            .filter_map(|pod| Some((meta::name(&pod.object), policy::evaluate(new.level, &pod.object))).filter(|(_, v)| !v.is_empty()))
            .collect();
        if pods.len() > PODS_CHECKED {
            let (checked, all) = (PODS_CHECKED, pods.len());
            effects.warn(format!("new PodSecurity enforce level only checked against the first {checked} of {all} existing pods"));
        }
        if !bad.is_empty() {
            let name = meta::name(object);
            effects.warn(format!("existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{}\"", new.shown()));
            for (pod, violations) in bad.iter().take(10) {
                effects.warn(format!("{pod}: {}", violations.reasons()));
            }
        }
        Ok(())
    }
}

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && (request.is_on("", "pods", "")
                || request.is_on("", "pods", "ephemeralcontainers")
                || request.is_on("", "namespaces", "")
                || TEMPLATES.iter().any(|(group, plural, _)| request.is_on(group, plural, "")))
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.judge(request, effects))
    }
}

/// What a namespace's labels say about one mode.
struct Mode<'a> {
    level: Level,
    name: &'a str,
    version: &'a str,
}

impl<'a> Mode<'a> {
    fn of(namespace: &'a Value, mode: &str) -> Mode<'a> {
        let name = meta::label(namespace, &format!("{PREFIX}{mode}")).unwrap_or("privileged");
        let version = meta::label(namespace, &format!("{PREFIX}{mode}-version")).unwrap_or("latest");
        let level = match name {
            "privileged" => Level::Privileged,
            "baseline" => Level::Baseline,
            // A label that is not a level was refused when it was written; what cannot be read is strict.
            _ => Level::Restricted,
        };
        Mode { level, name, version }
    }

    fn shown(&self) -> String {
        format!("{}:{}", self.name, self.version)
    }

    fn note(&self, pod: &Value, effects: &mut Effects) {
        let violations = policy::evaluate(self.level, pod);
        if !violations.is_empty() {
            let text = format!("would violate PodSecurity \"{}\": {violations}", self.shown());
            effects.annotate("pod-security.kubernetes.io/audit-violations", text);
        }
    }

    fn warn(&self, pod: &Value, effects: &mut Effects, prefix: &str) {
        let violations = policy::evaluate(self.level, pod);
        if !violations.is_empty() {
            effects.warn(format!("{prefix}would violate PodSecurity \"{}\": {violations}", self.shown()));
        }
    }
}

/// Of a pod only the images may change besides what the standards do not look at.
fn is_significant(new: &Value, old: Option<&Value>) -> bool {
    let without_images = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(container) = container.as_object_mut() {
                    container.remove("image");
                }
            }
        }
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("activeDeadlineSeconds");
            spec.remove("tolerations");
        }
        spec
    };
    old.is_none_or(|old| without_images(new) != without_images(old) || meta::annotations(new) != meta::annotations(old))
}

fn is_version(text: &str) -> bool {
    text == "latest" || text.strip_prefix("v1.").is_some_and(|minor| !minor.is_empty() && minor.parse::<u32>().is_ok())
}
