//! The identity providers of a server, and who may ask without credentials: from flags, or from a file that is followed.
//!
//! Owns that a changed file takes effect as a whole, or not at all: one that cannot be used leaves everything as it was, and is told
//! and counted. A provider whose settings are as before keeps the keys that it has fetched. Answers to upstream's
//! `AuthenticationConfiguration` and its reload.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{IntCounterVec, Opts, Registry};

use super::anonymous::Anonymous;
use super::configuration::Configuration;
use super::oidc::{Oidc, Settings};
use crate::egress::Egress;

/// How often the file is compared with what was read.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// Where a server's providers come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProviderOptions {
    /// There is none.
    #[default]
    None,
    /// One, by flags.
    Flags(Box<Settings>),
    /// Those in a file.
    File(PathBuf),
}

/// All providers.
pub struct Providers {
    egress: Arc<dyn Egress>,
    own_issuers: Vec<String>,
    now: RwLock<Arc<Set>>,
    reloads: IntCounterVec,
}

/// The providers at one moment.
#[derive(Default)]
pub struct Set {
    providers: Vec<Arc<Oidc>>,
    anonymous: Anonymous,
}

// === impl Providers ===

impl Providers {
    /// The providers that the options name. None of them is asked yet.
    ///
    /// # Errors
    /// Which file or setting cannot be used, and why.
    pub fn open(options: &ProviderOptions, egress: Arc<dyn Egress>, own_issuers: Vec<String>) -> Result<Providers, String> {
        let reloads = IntCounterVec::new(
            Opts::new(
                "apiserver_authentication_config_controller_automatic_reloads_total",
                "Reloads of the authentication configuration, by status.",
            ),
            &["status"],
        );
        let providers =
            Providers { egress, own_issuers, now: RwLock::default(), reloads: reloads.expect("invariant: static names are valid") };
        let configuration = match options {
            ProviderOptions::None => return Ok(providers),
            ProviderOptions::Flags(settings) => Configuration { providers: vec![(**settings).clone()], anonymous: None },
            ProviderOptions::File(path) => {
                let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
                Configuration::parse(&text, &providers.own_issuers).map_err(|error| format!("{}: {error}", path.display()))?
            }
        };
        providers.replace(configuration)?;
        Ok(providers)
    }

    /// Shows its metrics in `registry`.
    pub fn register(&self, registry: &Registry) {
        registry.register(Box::new(self.reloads.clone())).expect("invariant: registered once");
    }

    /// Takes over a configuration, whole or not at all.
    fn replace(&self, configuration: Configuration) -> Result<(), String> {
        let old = self.now.read().clone();
        let mut providers = Vec::with_capacity(configuration.providers.len());
        for settings in configuration.providers {
            let known = old.providers.iter().find(|provider| *provider.settings() == settings).cloned();
            providers.push(match known {
                Some(provider) => provider,
                None => {
                    let issuer = settings.issuer.clone();
                    Arc::new(Oidc::new(settings, self.egress.clone()).map_err(|why| format!("{issuer}: {why}"))?)
                }
            });
        }
        *self.now.write() = Arc::new(Set { providers, anonymous: configuration.anonymous.unwrap_or_default() });
        Ok(())
    }

    /// The provider that a token says it is from.
    pub fn issuer_of(&self, token: &str) -> Option<Arc<Oidc>> {
        let set = self.now.read().clone();
        set.providers.iter().find(|provider| provider.issued(token)).cloned()
    }

    /// Whether a path answers to requests without credentials.
    pub fn allows_anonymous(&self, path: &str) -> bool {
        self.now.read().anonymous.allows(path)
    }

    /// Follows the file; never returns.
    pub async fn follow(&self, path: &Path) {
        let mut last = tokio::fs::read(path).await.ok();
        loop {
            tokio::time::sleep(LOOK_PERIOD).await;
            // One that is replaced at this moment is looked at again.
            let Ok(text) = tokio::fs::read(path).await else { continue };
            if last.as_ref() == Some(&text) {
                continue;
            }
            let outcome = Configuration::parse(&text, &self.own_issuers).and_then(|configuration| self.replace(configuration));
            last = Some(text);
            let status = if outcome.is_ok() { "success" } else { "failure" };
            self.reloads.with_label_values(&[status]).inc();
            match outcome {
                Ok(()) => tracing::info!(path = %path.display(), "the authentication configuration was read again"),
                Err(error) => {
                    tracing::error!(path = %path.display(), error, "the authentication configuration has changed and cannot be used; the one before stays");
                }
            }
        }
    }
}
