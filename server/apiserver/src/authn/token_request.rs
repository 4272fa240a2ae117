//! The `token` subresource of service accounts: a TokenRequest in, a signed token out.
//!
//! Answers to <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/>.

use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::{
    field::{FieldError, FieldPath},
    gvk::{GroupKind, GroupResource},
    meta,
    status::Status,
    time,
};

use super::token::{Bound, Claims, KubernetesClaims, ServiceAccountTokens};
use crate::authz::rbac::SERVICE_ACCOUNT_PREFIX;
use crate::storage::lookup::LookedUp;

const EXPIRATION_SECS_DEFAULT: i64 = 3600;
const EXPIRATION_SECS_MIN: i64 = 600;
/// What the kubelet asks for by default; such a token lives on for clients that don't reload it, with a warning.
const WARN_ONLY_SECS: i64 = 3607;
const EXTENDED_SECS: i64 = 365 * 86_400;
const GROUP: &str = "authentication.k8s.io";

/// Answers a TokenRequest for the service account `namespace/name`. `token_id` is a fresh UUID.
pub async fn create(
    tokens: &ServiceAccountTokens,
    namespace: &str,
    name: &str,
    mut request: Value,
    token_id: &str,
    now: Timestamp,
) -> Result<Value, Box<Status>> {
    let account = find(tokens, "serviceaccounts", namespace, name).await?;
    validate(namespace, name, &request)?;
    let spec = &request["spec"];
    let mut audiences: Vec<String> = meta::list_at(spec, &["audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences = tokens.audiences().to_vec();
    }
    let asked = meta::i64_at(spec, &["expirationSeconds"]).unwrap_or(EXPIRATION_SECS_DEFAULT);
    let mut kubernetes =
        KubernetesClaims { namespace: namespace.to_owned(), serviceaccount: bound(&account), ..KubernetesClaims::default() };
    bind(tokens, &mut kubernetes, name, &spec["boundObjectRef"]).await?;

    let issued_at = now.as_second();
    let for_api_server = audiences.iter().all(|audience| tokens.audiences().contains(audience));
    let extend = asked == WARN_ONLY_SECS && for_api_server && kubernetes.pod.is_some();
    let (expiry, shown) = if extend {
        kubernetes.warnafter = Some(issued_at + asked);
        (issued_at + EXTENDED_SECS, issued_at + asked)
    } else {
        (issued_at + asked, issued_at + asked)
    };
    let claims = Claims {
        aud: audiences.clone(),
        exp: expiry,
        iat: issued_at,
        iss: tokens.issuer().to_owned(),
        jti: token_id.to_owned(),
        kubernetes,
        nbf: issued_at,
        sub: format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"),
    };
    let token = tokens.sign(&claims).map_err(|error| Box::new(Status::internal(error)))?;
    let shown = Timestamp::from_second(shown).unwrap_or(now);
    request["spec"]["audiences"] = Value::from(audiences);
    request["spec"]["expirationSeconds"] = Value::from(asked);
    meta::set_name(&mut request, name);
    meta::set_namespace(&mut request, namespace);
    meta::set_creation_timestamp(&mut request, &time::format(now));
    request["status"] = json!({"token": token, "expirationTimestamp": time::format(shown)});
    Ok(request)
}

fn validate(namespace: &str, name: &str, request: &Value) -> Result<(), Box<Status>> {
    for (field, expected) in [("name", name), ("namespace", namespace)] {
        let given = meta::str_at(request, &["metadata", field]);
        if !given.is_empty() && given != expected {
            let text = format!("must match the service account {} if specified", if field == "name" { "name" } else { "namespace" });
            let error = FieldError::invalid(&FieldPath::new("metadata").child(field), given, text);
            return Err(invalid(vec![error]));
        }
    }
    let path = FieldPath::new("spec").child("expirationSeconds");
    let seconds = meta::i64_at(request, &["spec", "expirationSeconds"]).unwrap_or(EXPIRATION_SECS_DEFAULT);
    let complaint = if seconds < EXPIRATION_SECS_MIN {
        "may not specify a duration less than 10 minutes"
    } else if seconds > 1 << 32 {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    Err(invalid(vec![FieldError::invalid(&path, seconds, complaint)]))
}

fn invalid(errors: Vec<FieldError>) -> Box<Status> {
    Box::new(Status::invalid(&GroupKind::new(GROUP, "TokenRequest"), "", &errors))
}

fn bound(found: &LookedUp) -> Bound {
    Bound { name: meta::name(&found.object).to_owned(), uid: meta::uid(&found.object).to_owned() }
}

/// Looks twice: the object may have been created through another server a moment ago.
async fn find(tokens: &ServiceAccountTokens, plural: &'static str, namespace: &str, name: &str) -> Result<LookedUp, Box<Status>> {
    let reader = tokens.reader();
    if let Some(found) = reader.get("", plural, namespace, name) {
        return Ok(found);
    }
    if reader.refresh().await
        && let Some(found) = reader.get("", plural, namespace, name)
    {
        return Ok(found);
    }
    Err(Box::new(Status::not_found(&GroupResource::new("", plural), name)))
}

async fn bind(tokens: &ServiceAccountTokens, claims: &mut KubernetesClaims, account: &str, reference: &Value) -> Result<(), Box<Status>> {
    if !reference.is_object() {
        return Ok(());
    }
    let text = |field: &str| meta::str_at(reference, &[field]);
    let name = text("name");
    let namespace = claims.namespace.clone();
    let (plural, found) = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => {
            let pod = find(tokens, "pods", &namespace, name).await?;
            if meta::str_at(&pod.object, &["spec", "serviceAccountName"]) != account {
                return Err(Box::new(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                ))));
            }
            let node_name = meta::str_at(&pod.object, &["spec", "nodeName"]);
            if !node_name.is_empty() {
                let node = tokens.reader().get("", "nodes", "", node_name);
                let uid = node.map(|node| bound(&node).uid).unwrap_or_default();
                claims.node = Some(Bound { name: node_name.to_owned(), uid });
            }
            claims.pod = Some(bound(&pod));
            ("pods", pod)
        }
        ("v1", "Secret") => {
            let secret = find(tokens, "secrets", &namespace, name).await?;
            claims.secret = Some(bound(&secret));
            ("secrets", secret)
        }
        ("v1", "Node") => {
            let node = find(tokens, "nodes", "", name).await?;
            claims.node = Some(bound(&node));
            ("nodes", node)
        }
        (version, kind) => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            return Err(Box::new(Status::bad_request(format!("cannot bind token to object of type {group}/{version}, Kind={kind}"))));
        }
    };
    let asked = text("uid");
    if !asked.is_empty() && asked != meta::uid(&found.object) {
        let message = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Box::new(Status::conflict(&GroupResource::new("", plural), name, &message)));
    }
    Ok(())
}
