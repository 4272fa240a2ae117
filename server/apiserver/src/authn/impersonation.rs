//! `Impersonate-*` headers: acting as another user, if authorization allows every part of it.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation>.

use http::HeaderMap;
use trireme_api::status::Status;

use super::front_proxy::{extra, values};
use crate::attributes::Attributes;
use crate::authz::{Authorizer, rbac::SERVICE_ACCOUNT_PREFIX};
use crate::user::{GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED, USER_ANONYMOUS, UserInfo};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

/// Whether the request asks for impersonation.
pub fn is_asked(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        name == USER || name == UID || name == GROUP || name.starts_with(EXTRA)
    })
}

/// The impersonated identity, `None` when none is asked for, or the refusal.
pub async fn impersonate(authorizer: &Authorizer, user: &UserInfo, headers: &HeaderMap) -> Result<Option<UserInfo>, Box<Status>> {
    if !is_asked(headers) {
        return Ok(None);
    }
    let first = |name: &str| values(headers, name).into_iter().next().unwrap_or_default();
    let mut wanted = UserInfo { name: first(USER), uid: first(UID), groups: values(headers, GROUP), extra: extra(headers, EXTRA) };
    if wanted.name.is_empty() {
        return Err(Box::new(Status::internal("requested impersonation without impersonating a user")));
    }
    for request in requests(user, &wanted) {
        authorizer.require(&request).await?;
    }
    complete(&mut wanted);
    Ok(Some(wanted))
}

/// One question to the authorizer for each part of the wanted identity.
fn requests(user: &UserInfo, wanted: &UserInfo) -> Vec<Attributes> {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    let ask = |group: &str, resource: &str, name: &str| Attributes {
        user: user.clone(),
        verb: "impersonate".to_owned(),
        resource_request: true,
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    let mut asked = vec![match service_account(&wanted.name) {
        Some((namespace, name)) => Attributes { namespace: namespace.to_owned(), ..ask("", "serviceaccounts", name) },
        None => ask("", "users", &wanted.name),
    }];
    asked.extend(wanted.groups.iter().map(|group| ask("", "groups", group)));
    if !wanted.uid.is_empty() {
        asked.push(ask(AUTHENTICATION, "uids", &wanted.uid));
    }
    for (key, entries) in &wanted.extra {
        asked.extend(entries.iter().map(|entry| Attributes { subresource: key.clone(), ..ask(AUTHENTICATION, "userextras", entry) }));
    }
    asked
}

/// Namespace and name of a service account's user name.
pub fn service_account(user_name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user_name.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// Adds the groups that the identity would have had by itself.
fn complete(user: &mut UserInfo) {
    if user.groups.is_empty()
        && let Some((namespace, _)) = service_account(&user.name)
    {
        user.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let implied = if user.name == USER_ANONYMOUS { GROUP_UNAUTHENTICATED } else { GROUP_AUTHENTICATED };
    if !user.in_group(GROUP_AUTHENTICATED) && !user.in_group(GROUP_UNAUTHENTICATED) {
        user.groups.push(implied.to_owned());
    }
}
