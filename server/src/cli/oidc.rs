//! kube-apiserver's flags of an identity provider (OpenID Connect), put together.

use std::path::PathBuf;

use trireme_apiserver::authn::oidc::{ALGORITHMS, OidcOptions};

/// A flag about the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OidcArg {
    /// `oidc-issuer-url=https://accounts.example.com`
    Issuer(String),
    /// `oidc-client-id=kubernetes`
    ClientId(String),
    /// `oidc-username-claim=sub`
    UsernameClaim(String),
    /// `oidc-username-prefix=oidc:`; `-`: none
    UsernamePrefix(String),
    /// `oidc-groups-claim=groups`
    GroupsClaim(String),
    /// `oidc-groups-prefix=oidc:`
    GroupsPrefix(String),
    /// `oidc-required-claim=KEY=VALUE`, as often as necessary
    Required(String, String),
    /// `oidc-signing-algs=RS256,ES256`
    Algorithms(Vec<String>),
    /// `oidc-ca-file=/etc/trireme/provider-ca.pem`
    CaFile(PathBuf),
}

/// Reads a flag; none if it is not about a provider.
pub fn parse(key: &str, value: &str) -> Option<Result<OidcArg, String>> {
    let text = value.to_owned();
    Some(Ok(match key {
        "oidc-issuer-url" if is_issuer(value) => OidcArg::Issuer(text),
        "oidc-issuer-url" => return Some(Err(format!("expected an https URL without a query and a fragment, not {value:?}"))),
        "oidc-client-id" => OidcArg::ClientId(text),
        "oidc-username-claim" => OidcArg::UsernameClaim(text),
        "oidc-username-prefix" => OidcArg::UsernamePrefix(text),
        "oidc-groups-claim" => OidcArg::GroupsClaim(text),
        "oidc-groups-prefix" => OidcArg::GroupsPrefix(text),
        "oidc-required-claim" => match value.split_once('=') {
            Some((claim, wanted)) if !claim.is_empty() => OidcArg::Required(claim.to_owned(), wanted.to_owned()),
            _ => return Some(Err(format!("expected CLAIM=VALUE, not {value:?}"))),
        },
        "oidc-signing-algs" => {
            let algorithms: Vec<String> = value.split(',').map(|name| name.trim().to_owned()).collect();
            match algorithms.iter().find(|name| !ALGORITHMS.contains(&name.as_str())) {
                Some(other) => return Some(Err(format!("cannot verify {other:?}; expected some of {}", ALGORITHMS.join(",")))),
                None => OidcArg::Algorithms(algorithms),
            }
        }
        "oidc-ca-file" => OidcArg::CaFile(text.into()),
        _ => return None,
    }))
}

fn is_issuer(url: &str) -> bool {
    url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@']))
}

/// The provider that the flags of a server name.
///
/// # Errors
/// Flags that make no provider.
pub fn options<'a>(args: impl Iterator<Item = &'a OidcArg> + Clone) -> Result<Option<OidcOptions>, String> {
    let find = |wanted: fn(&OidcArg) -> Option<&String>| args.clone().filter_map(wanted).last().cloned();
    let issuer = find(|arg| if let OidcArg::Issuer(url) = arg { Some(url) } else { None });
    let client_id = find(|arg| if let OidcArg::ClientId(id) = arg { Some(id) } else { None }).filter(|id| !id.is_empty());
    let (Some(issuer), Some(client_id)) = (issuer, client_id) else {
        return match args.clone().next() {
            Some(_) => Err("--kube-apiserver-arg oidc-*: needs both oidc-issuer-url and oidc-client-id".into()),
            None => Ok(None),
        };
    };
    let mut options = OidcOptions::new(issuer, client_id);
    for arg in args {
        match arg {
            OidcArg::Issuer(_) | OidcArg::ClientId(_) => {}
            OidcArg::UsernameClaim(claim) => options.username_claim.clone_from(claim),
            OidcArg::UsernamePrefix(prefix) if prefix == "-" => options.username_prefix = Some(String::new()),
            OidcArg::UsernamePrefix(prefix) => options.username_prefix = Some(prefix.clone()).filter(|prefix| !prefix.is_empty()),
            OidcArg::GroupsClaim(claim) => options.groups_claim = Some(claim.clone()).filter(|claim| !claim.is_empty()),
            OidcArg::GroupsPrefix(prefix) => options.groups_prefix.clone_from(prefix),
            OidcArg::Required(claim, value) => {
                options.required_claims.insert(claim.clone(), value.clone());
            }
            OidcArg::Algorithms(algorithms) => options.algorithms.clone_from(algorithms),
            OidcArg::CaFile(path) => options.ca_file = Some(path.clone()),
        }
    }
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(flags: &[(&str, &str)]) -> Result<Option<OidcOptions>, String> {
        let args: Vec<OidcArg> = flags.iter().map(|(key, value)| parse(key, value).unwrap().unwrap()).collect();
        options(args.iter())
    }

    #[test]
    fn flags_name_a_provider_or_are_refused() {
        assert_eq!(given(&[]), Ok(None));
        let base = [("oidc-issuer-url", "https://idp.example.com/realm"), ("oidc-client-id", "kubernetes")];
        assert_eq!(given(&base), Ok(Some(OidcOptions::new("https://idp.example.com/realm".into(), "kubernetes".into()))));
        let more = [
            ("oidc-username-prefix", "-"),
            ("oidc-groups-claim", "groups"),
            ("oidc-required-claim", "team=a"),
            ("oidc-required-claim", "site=b=c"),
            ("oidc-signing-algs", "RS256, ES256"),
        ];
        let full = given(&[&base[..], &more[..]].concat()).unwrap().unwrap();
        assert_eq!((full.username_prefix.as_deref(), full.groups_claim.as_deref()), (Some(""), Some("groups")));
        assert_eq!((full.required_claims["site"].as_str(), full.algorithms), ("b=c", vec!["RS256".to_owned(), "ES256".to_owned()]));
        assert!(given(&base[..1]).unwrap_err().contains("oidc-client-id"));
        for (key, value) in [
            ("oidc-issuer-url", "http://idp"),
            ("oidc-issuer-url", "https://idp?x"),
            ("oidc-required-claim", "a"),
            ("oidc-signing-algs", "RS256,none"),
        ] {
            assert!(parse(key, value).unwrap().is_err(), "{key}={value}");
        }
        assert!(parse("authentication-config", "x").is_none());
    }
}
