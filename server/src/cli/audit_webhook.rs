//! kube-apiserver's flags of the audit webhook.

use std::path::PathBuf;
use std::time::Duration;

use trireme_apiserver::audit::webhook::{Mode, WebhookOptions};

use super::values::{duration, number, switch};

/// The largest buffer: each event takes its size and some bytes more.
const BUFFER_MAX: usize = 1_000_000;

/// A flag of the webhook.
#[derive(Clone, Debug, PartialEq)]
pub enum WebhookArg {
    /// `audit-webhook-config-file=/etc/trireme/audit-webhook.yaml`
    Config(PathBuf),
    /// `audit-webhook-mode=batch`
    Mode(Mode),
    /// `audit-webhook-initial-backoff=10s`
    InitialBackoff(Duration),
    /// `audit-webhook-batch-buffer-size=10000`
    Buffer(usize),
    /// `audit-webhook-batch-max-size=400`
    MaxSize(usize),
    /// `audit-webhook-batch-max-wait=30s`
    MaxWait(Duration),
    /// `audit-webhook-batch-throttle-enable=true`
    Throttles(bool),
    /// `audit-webhook-batch-throttle-qps=10`
    Rate(f64),
    /// `audit-webhook-batch-throttle-burst=15`
    Burst(u32),
    /// `audit-webhook-truncate-enabled=false`
    Truncates(bool),
    /// `audit-webhook-truncate-max-event-size=102400`
    EventBytes(usize),
    /// `audit-webhook-truncate-max-batch-size=10485760`
    BatchBytes(usize),
    /// `audit-webhook-version=audit.k8s.io/v1`: there is no other.
    Version,
}

/// Reads a flag; none if it is not one of the webhook.
pub fn parse(key: &str, value: &str) -> Option<Result<WebhookArg, String>> {
    let key = key.strip_prefix("audit-webhook-")?;
    Some(match key {
        "config-file" if value.is_empty() => Err("expected the path of a file".into()),
        "config-file" => Ok(WebhookArg::Config(value.into())),
        "mode" => match value {
            "batch" => Ok(WebhookArg::Mode(Mode::Batch)),
            "blocking" => Ok(WebhookArg::Mode(Mode::Blocking)),
            "blocking-strict" => Ok(WebhookArg::Mode(Mode::BlockingStrict)),
            _ => Err(format!("expected batch, blocking or blocking-strict, not {value:?}")),
        },
        "initial-backoff" => duration(value).map(WebhookArg::InitialBackoff),
        "batch-buffer-size" => size(value, BUFFER_MAX).map(WebhookArg::Buffer),
        "batch-max-size" => size(value, BUFFER_MAX).map(WebhookArg::MaxSize),
        "batch-max-wait" => duration(value).map(WebhookArg::MaxWait),
        "batch-throttle-enable" => switch(value).map(WebhookArg::Throttles),
        "batch-throttle-qps" => match value.parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(WebhookArg::Rate(rate)),
            _ => Err(format!("expected batches in a second, such as 10, not {value:?}")),
        },
        "batch-throttle-burst" => number(value).map(WebhookArg::Burst),
        "truncate-enabled" => switch(value).map(WebhookArg::Truncates),
        "truncate-max-event-size" => size(value, usize::MAX).map(WebhookArg::EventBytes),
        "truncate-max-batch-size" => size(value, usize::MAX).map(WebhookArg::BatchBytes),
        "version" if value == "audit.k8s.io/v1" => Ok(WebhookArg::Version),
        "version" => Err(format!("expected audit.k8s.io/v1, not {value:?}")),
        _ => return None,
    })
}

fn size(value: &str, most: usize) -> Result<usize, String> {
    match number(value)? {
        size if (1..=most).contains(&size) => Ok(size),
        _ => Err(format!("expected a number from 1 to {most}, not {value:?}")),
    }
}

// === impl WebhookArg ===

impl WebhookArg {
    /// Carries it out.
    pub fn apply(&self, options: &mut WebhookOptions) {
        let batch = &mut options.batch;
        match self {
            WebhookArg::Config(path) => options.config.clone_from(path),
            WebhookArg::Mode(mode) => options.mode = *mode,
            WebhookArg::InitialBackoff(pause) => options.initial_backoff = *pause,
            WebhookArg::Buffer(size) => batch.buffer = *size,
            WebhookArg::MaxSize(size) => batch.max_size = *size,
            WebhookArg::MaxWait(wait) => batch.max_wait = *wait,
            WebhookArg::Throttles(is_on) => batch.throttles = *is_on,
            WebhookArg::Rate(rate) => batch.rate = *rate,
            WebhookArg::Burst(burst) => batch.burst = *burst,
            WebhookArg::Truncates(is_on) => options.truncates_events = *is_on,
            WebhookArg::EventBytes(size) => options.event_bytes_max = *size,
            WebhookArg::BatchBytes(size) => options.batch_bytes_max = *size,
            WebhookArg::Version => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_acts_or_says_what_would_be_right() {
        let mut options = WebhookOptions::new(PathBuf::new());
        for (key, value) in [
            ("config-file", "/w"),
            ("mode", "blocking"),
            ("initial-backoff", "1s"),
            ("batch-buffer-size", "7"),
            ("batch-max-wait", "2s"),
            ("batch-throttle-enable", "false"),
            ("batch-throttle-qps", "2.5"),
            ("truncate-enabled", "true"),
            ("truncate-max-event-size", "1000"),
            ("version", "audit.k8s.io/v1"),
        ] {
            parse(&format!("audit-webhook-{key}"), value).unwrap().unwrap().apply(&mut options);
        }
        assert_eq!((options.config.as_os_str(), options.mode, options.batch.buffer), ("/w".as_ref(), Mode::Blocking, 7));
        assert_eq!((options.batch.throttles, options.batch.rate, options.event_bytes_max), (false, 2.5, 1000));
        for (key, value) in
            [("mode", "x"), ("batch-buffer-size", "0"), ("batch-throttle-qps", "-1"), ("version", "v1beta1"), ("initial-backoff", "x")]
        {
            assert!(parse(&format!("audit-webhook-{key}"), value).unwrap().is_err(), "{key}={value}");
        }
        assert!(parse("audit-webhook-nothing", "1").is_none());
    }
}
