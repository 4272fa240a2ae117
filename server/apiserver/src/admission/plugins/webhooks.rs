//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook.
//!
//! Answers to upstream's `apiserver/pkg/admission/plugin/webhook`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use serde_json::Value;
use trireme_api::gvk::GroupVersionKind;
use trireme_api::patch;
use trireme_api::resource::Schema;
use trireme_api::schema::type_of;
use trireme_api::status::Status;

use crate::admission::effects::Effects;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::AdmissionRequest;
use crate::admission::rules;
use crate::admission::webhooks::configuration::{Configurations, Webhook};
use crate::admission::webhooks::review::{self, Shown, Verdict};
use crate::authz::Authorizer;
use crate::egress::webhooks::Client;
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

/// Asks webhooks that may change the object, one after the other.
pub struct MutatingAdmissionWebhook(Asker);

/// Asks webhooks that judge the object, all at once.
pub struct ValidatingAdmissionWebhook(Asker);

struct Asker {
    configurations: Configurations,
    client: Client,
    reader: Arc<dyn ObjectReader>,
    authorizer: Authorizer,
    mutating: bool,
}

impl MutatingAdmissionWebhook {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> MutatingAdmissionWebhook {
        MutatingAdmissionWebhook(Asker::new("mutatingwebhookconfigurations", environment, true))
    }

    async fn run(&self, request: &mut AdmissionRequest, effects: &mut Effects) -> Answer<()> {
        for webhook in self.0.concerned(request) {
            if !request.webhooks.is_due(&webhook.uid) {
                continue;
            }
            let Some((verdict, shown)) = self.0.ask(&webhook, request, effects).await? else { continue };
            let changed = match &verdict.patch {
                Some(patch) => apply(&webhook, patch, shown, request).await.map_err(|error| failure(&webhook, &error))?,
                None => false,
            };
            request.webhooks.asked(&webhook.uid, webhook.reinvoke_if_needed, changed);
            if changed {
                // Plugins before this one, and webhooks that ask for it, see the object once more.
                effects.reinvoke();
            }
        }
        Ok(())
    }
}

impl ValidatingAdmissionWebhook {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> ValidatingAdmissionWebhook {
        ValidatingAdmissionWebhook(Asker::new("validatingwebhookconfigurations", environment, false))
    }

    async fn run(&self, request: &AdmissionRequest, effects: &mut Effects) -> Answer<()> {
        let asked = self.0.concerned(request).into_iter().map(|webhook| async move {
            let mut own = Effects::default();
            let outcome = self.0.ask(&webhook, request, &mut own).await;
            (outcome, own)
        });
        let mut refused = None;
        for (outcome, mut own) in join_all(asked).await {
            own.take_warnings().into_iter().for_each(|warning| effects.warn(warning));
            own.take_annotations().into_iter().for_each(|(key, value)| effects.annotate(key, value));
            if let Err(status) = outcome {
                refused.get_or_insert(status);
            }
        }
        refused.map_or(Ok(()), Err)
    }
}

impl Plugin for MutatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        self.0.handles(request)
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.run(request, effects))
    }
}

impl Plugin for ValidatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        self.0.handles(request)
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.run(request, effects))
    }
}

// === impl Asker ===

impl Asker {
    fn new(plural: &'static str, environment: &Environment, mutating: bool) -> Asker {
        Asker {
            configurations: Configurations::new(plural, environment.reader.clone()),
            client: Client::new(environment.egress.clone(), environment.reader.clone()),
            reader: environment.reader.clone(),
            authorizer: environment.authorizer.clone(),
            mutating,
        }
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        !rules::is_exempt(request) && self.configurations.webhooks().iter().any(|webhook| webhook.version(request).is_some())
    }

    /// The webhooks whose rules are about the request.
    fn concerned(&self, request: &AdmissionRequest) -> Vec<Arc<Webhook>> {
        self.configurations.webhooks().iter().filter(|webhook| webhook.version(request).is_some()).cloned().collect()
    }

    /// Asks one webhook. `None` if its selectors leave the request out, or if it cannot be asked and that is to be ignored.
    async fn ask(&self, webhook: &Webhook, request: &AdmissionRequest, effects: &mut Effects) -> Answer<Option<(Verdict, Shown)>> {
        let asked = match webhook.selects(&*self.reader, &self.authorizer, request).await {
            Ok(false) => return Ok(None),
            Ok(true) => self.call(webhook, request).await,
            Err(error) => Err(error),
        };
        let (mut verdict, shown) = match asked {
            Ok(answered) => answered,
            Err(error) if webhook.ignores_failure => {
                tracing::warn!(webhook = webhook.name, %error, "a webhook cannot be asked, and its failure is ignored");
                return Ok(None);
            }
            Err(error) => return Err(failure(webhook, &error)),
        };
        verdict.warnings.drain(..).for_each(|warning| effects.warn(warning));
        for (key, value) in verdict.audit_annotations.drain(..) {
            effects.annotate(format!("{}/{key}", webhook.name), value);
        }
        match verdict.allowed {
            true => Ok(Some((verdict, shown))),
            false => Err(review::refusal(&webhook.name, &verdict.result).into()),
        }
    }

    async fn call(&self, webhook: &Webhook, request: &AdmissionRequest) -> Result<(Verdict, Shown), String> {
        let version = webhook.version(request).unwrap_or_else(|| request.resource.version.to_string());
        let shown = shown(request, version).await?;
        let client = webhook.client.as_ref().map_err(Clone::clone)?;
        let uid = uuid::Uuid::new_v4().to_string();
        let question = review::question(request, &shown, webhook.review_version, &uid);
        let query = format!("timeout={}s", webhook.timeout.as_secs());
        let answer = within(webhook.timeout, self.client.post(client, &query, Bytes::from(question.to_string()))).await;
        let answer = answer.map_err(|error| {
            let url = client.url();
            let separator = if url.contains('?') { '&' } else { '?' };
            format!("failed to call webhook: Post \"{url}{separator}{query}\": {error}")
        })?;
        Ok((review::verdict(&answer, webhook.review_version, &uid, self.mutating)?, shown))
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
}

fn failure(webhook: &Webhook, error: &str) -> Box<Status> {
    Box::new(Status::internal(format!("failed calling webhook {:?}: {error}", webhook.name)))
}

/// The objects of the request in `version` of its resource.
async fn shown(request: &AdmissionRequest, version: String) -> Result<Shown, String> {
    let (kind, object) = request.in_version(request.object(), &version).await?;
    let (_, old_object) = request.in_version(request.old_object.as_deref(), &version).await?;
    Ok(Shown { version, kind, object, old_object })
}

/// Applies a webhook's patch to the object as it was shown. Whether that changed it. Fields that the object's type does not have are
/// dropped, as they are from a client's object.
async fn apply(webhook: &Webhook, operations: &Value, shown: Shown, request: &mut AdmissionRequest) -> Result<bool, String> {
    let mut object = shown.object.clone();
    patch::json_patch(&mut object, operations).map_err(|error| error.to_string())?;
    if object == shown.object {
        return Ok(false);
    }
    if object.get("kind") != shown.object.get("kind") || object.get("apiVersion") != shown.object.get("apiVersion") {
        return Err(format!("the patch of {} changes the object's kind or apiVersion", webhook.name));
    }
    let object = request.from_version(conform(request, object, &shown.kind)?, &shown.kind).await?;
    if let Some(stored) = request.object_mut() {
        *stored = object;
    }
    Ok(true)
}

/// Makes a patched object fit its type. The body of a subresource is left as it is where no type of it is known.
fn conform(request: &AdmissionRequest, object: Value, kind: &GroupVersionKind) -> Result<Value, String> {
    match request.definition_of_object() {
        Some(definition) => definition.in_version(&kind.version).map_or(definition, |versioned| &**versioned).schema.conform(object, kind),
        None if type_of(&kind.group, &kind.version, &kind.kind).is_some() => Schema::Builtin.conform(object, kind),
        None => Ok(object),
    }
}
