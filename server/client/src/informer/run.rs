//! The loop of an informer: list once, watch from there, resume from the last revision seen.

use std::time::Duration;

use http::StatusCode;
use rand::Rng;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Informer;
use crate::backoff::Backoff;
use crate::client::is_metadata;
use crate::decode::from_text;
use crate::{Error, ListOptions, Object, PartialMeta, Status, WatchEvent, watch};

/// Objects per page of a list.
const PAGE: u32 = 500;
/// A watch that lived this long was healthy: its end is no failure.
const HEALTHY_WATCH: Duration = Duration::from_secs(1);

/// Why a watch is over.
enum Ended {
    /// Resume from the last revision.
    Broken(String),
    /// The last revision is too old, or someone asked for a list.
    Relist,
    /// Someone wants to know how far it is: resume at once.
    Reopen,
}

pub(super) async fn run<T: Object>(informer: &Informer<T>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut position: Option<String> = None;
    let mut list_failures = 0_u32;
    let resource = &informer.resource;
    loop {
        let from = match position.take() {
            Some(from) => from,
            None => match list(informer, list_failures).await {
                Ok(revision) => {
                    list_failures = 0;
                    backoff.reset();
                    revision
                }
                Err(error) => {
                    list_failures = list_failures.saturating_add(1);
                    let wait = backoff.next_wait();
                    debug!(%resource, %error, ?wait, "listing failed");
                    tokio::time::sleep(wait).await;
                    continue;
                }
            },
        };
        let started = Instant::now();
        let mut at = from;
        match follow(informer, &mut at).await {
            Ended::Relist => {
                debug!(%resource, revision = %at, "listing again");
                continue;
            }
            Ended::Reopen => {}
            Ended::Broken(reason) => {
                if started.elapsed() >= HEALTHY_WATCH {
                    backoff.reset();
                }
                let wait = backoff.next_wait();
                debug!(%resource, revision = %at, %reason, ?wait, "the watch ended");
                tokio::time::sleep(wait).await;
            }
        }
        position = Some(at);
    }
}

/// Lists all pages into the store; returns the revision to watch from.
async fn list<T: Object>(informer: &Informer<T>, failures: u32) -> Result<String, Error> {
    let floor = informer.last_revision();
    let mut options = ListOptions {
        label_selector: informer.options.label_selector.clone(),
        field_selector: informer.options.field_selector.clone(),
        limit: Some(PAGE),
        // Whatever a cache has will do, if it is not older than what we have seen. Where that does not work, ask for
        // the newest.
        resource_version: (failures == 0 || !failures.is_multiple_of(3)).then(|| floor.to_string()),
        ..ListOptions::default()
    };
    let namespace = informer.options.namespace.as_deref();
    let mut objects = Vec::new();
    loop {
        let page = raw_page::<T>(informer, namespace, &options).await?;
        for item in page.items {
            match from_text::<T>(item.get()) {
                Ok(object) => objects.push(object),
                Err(error) => {
                    let meta = serde_json::from_str::<PartialMeta>(item.get()).unwrap_or_default();
                    warn!(resource = %informer.resource, namespace = meta.namespace(), name = meta.name(), %error,
                        "an object cannot be decoded and is left out");
                }
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => {
                options.continue_token = Some(token);
                options.resource_version = None;
            }
            None => {
                let revision = page.metadata.resource_version.unwrap_or_default();
                informer.replace_all(objects);
                informer.reached(revision.parse().unwrap_or(0));
                return Ok(revision);
            }
        }
    }
}

async fn raw_page<T: Object>(
    informer: &Informer<T>,
    namespace: Option<&str>,
    options: &ListOptions,
) -> Result<crate::List<Box<RawValue>>, Error> {
    informer.client.list_raw(&informer.resource, namespace, options, is_metadata::<T>()).await
}

/// Watches until it ends; `at` is always the revision to resume from.
async fn follow<T: Object>(informer: &Informer<T>, at: &mut String) -> Ended {
    let options = ListOptions {
        label_selector: informer.options.label_selector.clone(),
        field_selector: informer.options.field_selector.clone(),
        resource_version: Some(at.clone()),
        timeout_secs: Some(rand::rng().random_range(300..600)),
        bookmarks: true,
        ..ListOptions::default()
    };
    let namespace = informer.options.namespace.as_deref();
    let opened = informer.client.watch_lines(&informer.resource, namespace, &options, is_metadata::<T>()).await;
    let mut lines = match opened {
        Ok(lines) => lines,
        Err(error) if error.is_gone() => return Ended::Relist,
        Err(error) => return Ended::Broken(error.to_string()),
    };
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = informer.relist.notified() => return Ended::Relist,
            () = informer.rewatch.notified() => return Ended::Reopen,
        };
        match line {
            Ok(Some(line)) => match take(informer, &line) {
                Ok(revision) => {
                    informer.reached(revision.parse().unwrap_or(0));
                    *at = revision;
                }
                Err(ended) => return ended,
            },
            Ok(None) => return Ended::Broken("the server ended it".to_owned()),
            Err(error) => return Ended::Broken(error.to_string()),
        }
    }
}

/// Takes one event in; returns the revision it brings us to.
fn take<T: Object>(informer: &Informer<T>, line: &[u8]) -> Result<String, Ended> {
    let event = match watch::decode_event::<T>(line) {
        Ok(event) => event,
        Err(error) => return take_undecodable(informer, line, &error),
    };
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            let revision = object.meta().resource_version.clone().unwrap_or_default();
            informer.upsert(object);
            Ok(revision)
        }
        WatchEvent::Deleted(object) => {
            let revision = object.meta().resource_version.clone().unwrap_or_default();
            let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
            informer.remove(&namespace, &name, Some(object));
            Ok(revision)
        }
        WatchEvent::Bookmark { resource_version } => Ok(resource_version),
        WatchEvent::Error(status) => Err(ended_by(&status)),
    }
}

/// An object that our types cannot hold must not stop the others: it leaves the store, and we go on after it.
fn take_undecodable<T: Object>(informer: &Informer<T>, line: &[u8], error: &Error) -> Result<String, Ended> {
    match watch::decode_event::<PartialMeta>(line) {
        Ok(WatchEvent::Added(meta) | WatchEvent::Modified(meta) | WatchEvent::Deleted(meta)) => {
            warn!(resource = %informer.resource, namespace = meta.namespace(), name = meta.name(), %error,
                "an object cannot be decoded and is left out");
            informer.remove(meta.namespace(), meta.name(), None);
            Ok(meta.metadata.resource_version.unwrap_or_default())
        }
        _ => Err(Ended::Broken(error.to_string())),
    }
}

fn ended_by(status: &Status) -> Ended {
    if status.code == StatusCode::GONE.as_u16() || status.reason == "Expired" || status.reason == "Gone" {
        Ended::Relist
    } else {
        Ended::Broken(status.message.clone())
    }
}
