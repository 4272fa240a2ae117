//! The file of `--authentication-config`: providers, how their claims make users, and who may ask without credentials.
//!
//! Pure: text to settings, or why not. Every error names its field. A field that is not known is refused, and so is one whose effect this
//! server does not have.
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration> and upstream's
//! `apiserver/pkg/apis/apiserver/validation`.

use std::collections::HashSet;

use serde::Deserialize;
use trireme_api::names;
use trireme_api::schema::parse_yaml;

use super::anonymous::Anonymous;
use super::oidc::{Authority, ClaimRule, ExpressionRule, Settings, Source};

/// The largest file.
const FILE_BYTES_MAX: usize = 1 << 20;
/// The most providers.
const PROVIDERS_MAX: usize = 64;
const GROUP: &str = "apiserver.config.k8s.io/";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The providers.
    pub providers: Vec<Settings>,
    /// Who may ask without credentials; none: as without a file.
    pub anonymous: Option<Anonymous>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Jwt>,
    anonymous: Option<AnonymousSection>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AnonymousSection {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<PathCondition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PathCondition {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwt {
    issuer: Issuer,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimValidationRule>,
    claim_mappings: ClaimMappings,
    #[serde(default)]
    user_validation_rules: Vec<UserValidationRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Issuer {
    url: String,
    #[serde(default, rename = "discoveryURL")]
    discovery_url: String,
    #[serde(default)]
    certificate_authority: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    #[serde(default)]
    egress_selector_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct ClaimValidationRule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserValidationRule {
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimMappings {
    username: Mapped,
    groups: Option<Mapped>,
    uid: Option<Mapped>,
    #[serde(default)]
    extra: Vec<Extra>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Mapped {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extra {
    key: String,
    value_expression: String,
}

// === impl Configuration ===

impl Configuration {
    /// Parses a file in YAML or JSON. `own_issuers`: who issues service account tokens, which is no provider.
    ///
    /// # Errors
    /// What is wrong with it, in one line with the field.
    pub fn parse(text: &[u8], own_issuers: &[String]) -> Result<Configuration, String> {
        if text.len() > FILE_BYTES_MAX {
            return Err(format!("it has {} bytes, more than {FILE_BYTES_MAX}", text.len()));
        }
        let file: File = serde_json::from_value(parse_yaml(text)?).map_err(|error| error.to_string())?;
        let is_known = file.api_version.strip_prefix(GROUP).is_some_and(|version| VERSIONS.contains(&version));
        if !is_known || file.kind != "AuthenticationConfiguration" {
            return Err(format!("expected an AuthenticationConfiguration of {GROUP}v1, not a {:?} of {:?}", file.kind, file.api_version));
        }
        if file.jwt.len() > PROVIDERS_MAX {
            return Err(format!("jwt: Too many: {}: must have at most {PROVIDERS_MAX} items", file.jwt.len()));
        }
        let (mut issuers, mut documents) = (HashSet::new(), HashSet::new());
        let mut providers = Vec::new();
        for (at, jwt) in file.jwt.into_iter().enumerate() {
            let settings = jwt.settings().map_err(|why| format!("jwt[{at}].{why}"))?;
            let (url, document) = (settings.issuer.clone(), settings.discovery_url.clone());
            if own_issuers.contains(&url) {
                return Err(format!("jwt[{at}].issuer.url: {url:?} issues service account tokens, and is no provider"));
            }
            if !issuers.insert(url) || document.is_some_and(|document| !documents.insert(document)) {
                return Err(format!("jwt[{at}].issuer: Duplicate value: each provider has its own url and discoveryURL"));
            }
            providers.push(settings);
        }
        let anonymous = file.anonymous.map(AnonymousSection::read).transpose().map_err(|why| format!("anonymous.{why}"))?;
        Ok(Configuration { providers, anonymous })
    }
}

impl AnonymousSection {
    fn read(self) -> Result<Anonymous, String> {
        if !self.enabled && !self.conditions.is_empty() {
            return Err("conditions: must not be set where enabled is false".to_owned());
        }
        if self.conditions.iter().any(|condition| !condition.path.starts_with('/')) {
            return Err("conditions: each path begins with a slash".to_owned());
        }
        let paths: Vec<String> = self.conditions.into_iter().map(|condition| condition.path).collect();
        Ok(match (self.enabled, paths.is_empty()) {
            (false, _) => Anonymous::Nowhere,
            (true, true) => Anonymous::Everywhere,
            (true, false) => Anonymous::Paths(paths),
        })
    }
}

impl Jwt {
    fn settings(self) -> Result<Settings, String> {
        let issuer = self.issuer;
        issuer.check().map_err(|why| format!("issuer.{why}"))?;
        let mut rules = Vec::new();
        for (at, rule) in self.claim_validation_rules.into_iter().enumerate() {
            let rule = rule.read().map_err(|why| format!("claimValidationRules[{at}]: {why}"))?;
            if rules.contains(&rule) {
                return Err(format!("claimValidationRules[{at}]: Duplicate value"));
            }
            rules.push(rule);
        }
        let mut user_rules: Vec<ExpressionRule> = Vec::new();
        for (at, UserValidationRule { expression, message }) in self.user_validation_rules.into_iter().enumerate() {
            if expression.is_empty() || user_rules.iter().any(|rule| rule.expression == expression) {
                return Err(format!("userValidationRules[{at}].expression: each rule needs an expression of its own"));
            }
            user_rules.push(ExpressionRule { expression, message });
        }
        let mappings = self.claim_mappings;
        let settings = Settings {
            issuer: issuer.url,
            discovery_url: Some(issuer.discovery_url).filter(|url| !url.is_empty()),
            audiences: issuer.audiences,
            algorithms: Settings::all_algorithms(),
            authority: match issuer.certificate_authority.as_str() {
                "" => Authority::System,
                pem => Authority::Pem(pem.to_owned()),
            },
            claim_rules: rules,
            username: mappings
                .username
                .read(true)
                .and_then(|one| one.ok_or_else(|| "claim or expression is required".to_owned()))
                .map_err(|why| format!("claimMappings.username: {why}"))?,
            groups: mappings.groups.unwrap_or_default().read(true).map_err(|why| format!("claimMappings.groups: {why}"))?,
            uid: mappings.uid.unwrap_or_default().read(false).map_err(|why| format!("claimMappings.uid: {why}"))?,
            extra: extra(mappings.extra)?,
            user_rules,
        };
        check_email(&settings)?;
        Ok(settings)
    }
}

impl Issuer {
    fn check(&self) -> Result<(), String> {
        let is_url = |url: &str| url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@', ' ']));
        if !is_url(&self.url) {
            return Err(format!("url: Invalid value: {:?}: expected an https URL without user, query and fragment", self.url));
        }
        if !self.discovery_url.is_empty() && (!is_url(&self.discovery_url) || self.discovery_url == self.url) {
            return Err(format!("discoveryURL: Invalid value: {:?}: expected an https URL that is not the issuer's", self.discovery_url));
        }
        let unique: HashSet<&String> = self.audiences.iter().filter(|audience| !audience.is_empty()).collect();
        if unique.is_empty() || unique.len() < self.audiences.len() {
            return Err("audiences: at least one is required, each once and not empty".to_owned());
        }
        match self.audience_match_policy.as_str() {
            "" if unique.len() > 1 => Err("audienceMatchPolicy: must be MatchAny for multiple audiences".to_owned()),
            "" | "MatchAny" => Ok(()),
            other => Err(format!("audienceMatchPolicy: Unsupported value: {other:?}: supported values: \"MatchAny\"")),
        }?;
        match self.egress_selector_type.as_str() {
            "" => Ok(()),
            other => Err(format!("egressSelectorType: {other:?} has no effect here: providers are reached directly; leave it out")),
        }
    }
}

impl ClaimValidationRule {
    fn read(self) -> Result<ClaimRule, String> {
        match (self.claim.is_empty(), self.expression.is_empty()) {
            (false, false) => Err("claim and expression exclude each other".to_owned()),
            (true, true) => Err("claim or expression is required".to_owned()),
            (false, true) if !self.message.is_empty() => Err("message can only be set with an expression".to_owned()),
            (false, true) => Ok(ClaimRule::Value(self.claim, self.required_value)),
            (true, false) if !self.required_value.is_empty() => Err("requiredValue can only be set with a claim".to_owned()),
            (true, false) => Ok(ClaimRule::Expression(ExpressionRule { expression: self.expression, message: self.message })),
        }
    }
}

impl Mapped {
    /// None if it is empty. `prefixed`: whether a claim needs a prefix, which may be empty.
    fn read(self, prefixed: bool) -> Result<Option<Source>, String> {
        match (self.claim.is_empty(), self.expression.is_empty()) {
            (false, false) => Err("claim and expression exclude each other".to_owned()),
            (true, _) if self.prefix.is_some() => Err("prefix can only be set with a claim".to_owned()),
            (true, true) => Ok(None),
            (true, false) => Ok(Some(Source::Expression(self.expression))),
            (false, true) if prefixed && self.prefix.is_none() => Err("prefix is required with a claim; it may be empty".to_owned()),
            (false, true) if !prefixed && self.prefix.is_some() => Err("it has no prefix".to_owned()),
            (false, true) => Ok(Some(Source::Claim(self.claim, self.prefix.unwrap_or_default()))),
        }
    }
}

fn extra(all: Vec<Extra>) -> Result<Vec<(String, String)>, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (at, Extra { key, value_expression }) in all.into_iter().enumerate() {
        let failed = |why: &str| Err(format!("claimMappings.extra[{at}].key: Invalid value: {key:?}: {why}"));
        let Some((domain, _)) = key.split_once('/').filter(|(_, rest)| !rest.is_empty()) else {
            return failed("expected a domain, a slash and a path");
        };
        if !names::is_dns1123_subdomain(domain).is_empty() || key.chars().any(|c| c.is_uppercase() || c.is_whitespace()) {
            return failed("expected a domain, a slash and a path, in lower case");
        }
        let is_reserved = |suffix: &str| domain == suffix || domain.ends_with(&format!(".{suffix}"));
        if is_reserved("k8s.io") || is_reserved("kubernetes.io") {
            return failed("k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
        }
        if found.iter().any(|(known, _)| *known == key) {
            return failed("it is there twice");
        }
        if value_expression.is_empty() {
            return Err(format!("claimMappings.extra[{at}].valueExpression: Required value"));
        }
        found.push((key, value_expression));
    }
    Ok(found)
}

/// An unverified e-mail address proves nothing: an expression that makes a user name of it must check `email_verified` too.
fn check_email(settings: &Settings) -> Result<(), String> {
    let Source::Expression(name) = &settings.username else { return Ok(()) };
    if !name.contains("claims.email") {
        return Ok(());
    }
    let rules =
        settings.claim_rules.iter().filter_map(|rule| if let ClaimRule::Expression(rule) = rule { Some(&rule.expression) } else { None });
    let mut all = rules.chain(settings.extra.iter().map(|(_, expression)| expression)).chain([name]);
    if all.any(|expression| expression.contains("claims.email_verified")) {
        return Ok(());
    }
    Err("claimMappings.username.expression: claims.email_verified must be used in claimMappings.username.expression or \
         claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in \
         claimMappings.username.expression"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn file(change: impl FnOnce(&mut Value)) -> Result<Configuration, String> {
        let mut file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [{
            "issuer": {"url": "https://idp.example.com", "audiences": ["k"]},
            "claimValidationRules": [{"claim": "hd", "requiredValue": "example.com"}, {"expression": "claims.exp > 0", "message": "m"}],
            "claimMappings": {"username": {"claim": "sub", "prefix": ""}, "groups": {"expression": "claims.roles"}, "uid": {"claim": "sub"},
                "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}]},
            "userValidationRules": [{"expression": "!user.username.startsWith('system:')"}],
        }], "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]}});
        change(&mut file);
        Configuration::parse(file.to_string().as_bytes(), &["https://kubernetes.default.svc".to_owned()])
    }

    #[test]
    fn a_file_is_read_whole() {
        let read = file(|_| {}).unwrap();
        assert_eq!(read.anonymous, Some(Anonymous::Paths(vec!["/livez".to_owned()])));
        let provider = &read.providers[0];
        assert_eq!((provider.issuer.as_str(), provider.claim_rules.len(), provider.user_rules.len()), ("https://idp.example.com", 2, 1));
        assert_eq!(provider.username, Source::Claim("sub".to_owned(), String::new()));
        assert_eq!(provider.uid, Some(Source::Claim("sub".to_owned(), String::new())));
        assert_eq!(file(|all| all["anonymous"] = json!({"enabled": false})).unwrap().anonymous, Some(Anonymous::Nowhere));
        assert_eq!(file(|all| drop(all.as_object_mut().unwrap().remove("anonymous"))).unwrap().anonymous, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (path, value, why) in [
            ("/kind", json!("X"), "expected an AuthenticationConfiguration"),
            ("/jwt/0/issuer/url", json!("http://a"), "jwt[0].issuer.url"),
            ("/jwt/0/issuer/url", json!("https://kubernetes.default.svc"), "service account"),
            ("/jwt/0/issuer/audiences", json!([]), "jwt[0].issuer.audiences"),
            ("/jwt/0/issuer/audiences", json!(["a", "b"]), "audienceMatchPolicy"),
            ("/jwt/0/claimValidationRules/0", json!({"claim": "a", "expression": "b"}), "claimValidationRules[0]"),
            ("/jwt/0/claimMappings/username", json!({"claim": "sub"}), "claimMappings.username: prefix"),
            ("/jwt/0/claimMappings/username", json!({}), "claimMappings.username"),
            ("/jwt/0/claimMappings/username", json!({"expression": "claims.email"}), "email_verified"),
            ("/jwt/0/claimMappings/extra/0/key", json!("tenant"), "extra[0].key"),
            ("/jwt/0/claimMappings/extra/0/key", json!("a.k8s.io/x"), "reserved"),
            ("/jwt/0/userValidationRules/0", json!({"message": "m"}), "userValidationRules[0]"),
            ("/jwt/0/userValidationRules/0", json!({"expresion": "m"}), "expresion"),
            ("/anonymous/conditions/0/path", json!("livez"), "anonymous.conditions"),
        ] {
            let error = file(|all| *all.pointer_mut(path).unwrap() = value).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{path}: {error}");
        }
        let twice = file(|all| {
            let one = all["jwt"][0].clone();
            all["jwt"].as_array_mut().unwrap().push(one);
        });
        assert!(twice.unwrap_err().contains("jwt[1].issuer"));
    }
}
