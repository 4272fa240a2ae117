//! The webhook of one resource: reviews sent to it, and its answers judged.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use trireme_api::custom::conversion::{self, ConversionWebhook};
use trireme_api::gvk::GroupVersionKind;
use trireme_api::meta;

use crate::egress::webhooks::{Client, ClientConfig};

/// How long one review may take. Upstream has the same.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The same, as it is told to the webhook.
const QUERY: &str = "timeout=30s";
/// Bytes of the objects of one review, unless one object alone has more. The client takes answers of twice as much.
const REVIEW_BYTES: usize = 4 * 1024 * 1024;

/// What converts the objects of a resource.
#[derive(Debug)]
pub struct Webhook {
    client: Result<ClientConfig, String>,
    review_version: Option<&'static str>,
}

// === impl Webhook ===

impl Webhook {
    /// As a definition names it.
    pub fn new(webhook: &ConversionWebhook) -> Webhook {
        Webhook { client: ClientConfig::parse(&webhook.client_config), review_version: webhook.review_version }
    }

    /// Objects of one kind in the version of `to`, in their order. Those that are in it already are not sent.
    ///
    /// # Errors
    /// Upstream's words.
    pub async fn convert(&self, client: &Client, objects: Vec<Value>, to: &GroupVersionKind) -> Result<Vec<Value>, String> {
        let desired = to.api_version();
        let sent: Vec<&Value> = objects.iter().filter(|object| meta::api_version(object) != desired).collect();
        if sent.is_empty() {
            return Ok(objects);
        }
        let mut converted = Vec::with_capacity(sent.len());
        for review in reviews(&sent) {
            converted.extend(self.review(client, review, to).await?);
        }
        let mut converted = converted.into_iter();
        let replace = |object: Value| if meta::api_version(&object) == desired { Some(object) } else { converted.next() };
        Ok(objects.into_iter().filter_map(replace).collect())
    }

    /// One question. The answer has as many objects.
    async fn review(&self, client: &Client, sent: &[&Value], to: &GroupVersionKind) -> Result<Vec<Value>, String> {
        let about = sent.first().and_then(|object| meta::gvk(object)).map(|gvk| gvk.to_string()).unwrap_or_default();
        let failed = |why: &dyn Display| format!("conversion webhook for {about} failed: {why}");
        let version = self.review_version.ok_or("no supported conversion review versions")?;
        let config = self.client.as_ref().map_err(|why| failed(why))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let question = conversion::question(sent, &to.api_version(), version, &uid);
        let posted = client.post(config, QUERY, Bytes::from(question.to_string()));
        let posted = tokio::time::timeout(TIMEOUT, posted).await.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
        let answer = posted.map_err(|why| {
            let url = config.url();
            let separator = if url.contains('?') { '&' } else { '?' };
            failed(&format_args!("Post \"{url}{separator}{QUERY}\": {why}"))
        })?;
        let answered = conversion::answered(&answer, version, &uid).map_err(|why| failed(&why))?;
        if answered.len() != sent.len() {
            return Err(format!("conversion webhook for {about} returned {} objects, expected {}", answered.len(), sent.len()));
        }
        let accepted = answered.into_iter().zip(sent).enumerate().map(|(index, (object, original))| {
            conversion::accept(original, object, to)
                .map_err(|why| format!("conversion webhook for {about} returned invalid converted object at index {index}: {why}"))
        });
        accepted.collect()
    }
}

/// Cuts a list into what one review holds.
fn reviews<'a, 'b>(objects: &'b [&'a Value]) -> Vec<&'b [&'a Value]> {
    let (mut reviews, mut rest) = (Vec::new(), objects);
    while !rest.is_empty() {
        let (mut count, mut bytes) = (0_usize, 0_usize);
        for object in rest {
            bytes = bytes.saturating_add(size(object));
            if count > 0 && bytes > REVIEW_BYTES {
                break;
            }
            count = count.saturating_add(1);
        }
        let (review, after) = rest.split_at(count);
        reviews.push(review);
        rest = after;
    }
    reviews
}

/// How many bytes the JSON of a value has.
fn size(value: &Value) -> usize {
    struct Counter(usize);
    impl Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // Counting does not fail.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_is_one_review_unless_it_is_large() {
        let small = json!({"a": 1});
        assert_eq!((size(&small), reviews(&[&small; 1000]).len()), (7, 1));
        let large = json!("x".repeat(REVIEW_BYTES / 2));
        let cut: Vec<usize> = reviews(&[&small, &large, &large, &large]).iter().map(|review| review.len()).collect();
        assert_eq!(cut, [2, 1, 1]);
        let huge = json!("x".repeat(REVIEW_BYTES * 2));
        assert_eq!(reviews(&[&huge, &huge]).len(), 2);
        assert!(reviews(&[]).is_empty());
    }
}
