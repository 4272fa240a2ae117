//! What a server knows of a provider: who it is, which of its tokens are meant for this cluster, and how their claims make a user.
//!
//! Plain text, as flags or a file give it; [`super::mapping`] compiles it. The flags of kube-apiserver ([`OidcOptions`]) are a provider whose claims are
//! read without expressions.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::keys::ALGORITHMS;

/// The provider of kube-apiserver's `--oidc-*` flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcOptions {
    /// The `https` URL of the provider, as its tokens name it.
    pub issuer: String,
    /// The audience of the tokens.
    pub client_id: String,
    /// The claim with the user's name.
    pub username_claim: String,
    /// What is put before it; None: the issuer and `#`, except before an e-mail address.
    pub username_prefix: Option<String>,
    /// The claim with the user's groups.
    pub groups_claim: Option<String>,
    /// What is put before each group.
    pub groups_prefix: String,
    /// Claims that a token must have.
    pub required_claims: BTreeMap<String, String>,
    /// Accepted signature algorithms.
    pub algorithms: Vec<String>,
    /// The authorities of the provider's certificate; None: those that the system trusts.
    pub ca_file: Option<PathBuf>,
}

/// A provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its URL, as its tokens name it.
    pub issuer: String,
    /// Where its document is, if not below the URL.
    pub discovery_url: Option<String>,
    /// A token must be meant for one of these.
    pub audiences: Vec<String>,
    /// Accepted signature algorithms.
    pub algorithms: Vec<String>,
    /// Who has signed its certificate.
    pub authority: Authority,
    /// What must be true of claims.
    pub claim_rules: Vec<ClaimRule>,
    /// The user's name.
    pub username: Source,
    /// The user's groups.
    pub groups: Option<Source>,
    /// The user's uid.
    pub uid: Option<Source>,
    /// Further facts about the user: key, and the expression of the values.
    pub extra: Vec<(String, String)>,
    /// What must be true of the user.
    pub user_rules: Vec<ExpressionRule>,
}

/// Who has signed a provider's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// Those that the system trusts.
    System,
    /// Those in a file.
    File(PathBuf),
    /// Those in this PEM text.
    Pem(String),
}

/// Where a fact about the user comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A claim, with something put before it.
    Claim(String, String),
    /// An expression over the claims.
    Expression(String),
}

/// What must be true of claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimRule {
    /// This claim has this value.
    Value(String, String),
    /// This expression is true.
    Expression(ExpressionRule),
}

/// An expression that must be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionRule {
    /// Its text.
    pub expression: String,
    /// What is said if it is not; empty: its text.
    pub message: String,
}

// === impl OidcOptions ===

impl OidcOptions {
    /// A provider, with upstream's defaults.
    pub fn new(issuer: String, client_id: String) -> OidcOptions {
        OidcOptions {
            issuer,
            client_id,
            username_claim: "sub".to_owned(),
            username_prefix: None,
            groups_claim: None,
            groups_prefix: String::new(),
            required_claims: BTreeMap::new(),
            algorithms: vec!["RS256".to_owned()],
            ca_file: None,
        }
    }
}

// === impl Settings ===

impl Settings {
    /// The algorithms of a provider that a file names: there all are accepted.
    pub fn all_algorithms() -> Vec<String> {
        ALGORITHMS.iter().map(|name| (*name).to_owned()).collect()
    }
}

impl From<OidcOptions> for Settings {
    fn from(options: OidcOptions) -> Settings {
        let prefix = match options.username_prefix {
            Some(prefix) => prefix,
            None if options.username_claim == "email" => String::new(),
            None => format!("{}#", options.issuer),
        };
        Settings {
            issuer: options.issuer,
            discovery_url: None,
            audiences: vec![options.client_id],
            algorithms: options.algorithms,
            authority: options.ca_file.map_or(Authority::System, Authority::File),
            claim_rules: options.required_claims.into_iter().map(|(claim, value)| ClaimRule::Value(claim, value)).collect(),
            username: Source::Claim(options.username_claim, prefix),
            groups: options.groups_claim.map(|claim| Source::Claim(claim, options.groups_prefix)),
            uid: None,
            extra: Vec::new(),
            user_rules: Vec::new(),
        }
    }
}
