//! kube-apiserver's flags of the audit log and the audit webhook, put together.

use std::path::PathBuf;

use trireme_apiserver::audit::AuditOptions;
use trireme_apiserver::audit::log::LogOptions;
use trireme_apiserver::audit::webhook::WebhookOptions;

use super::audit_webhook::{self, WebhookArg};
use super::values::number;

/// A flag of the audit log or the webhook.
#[derive(Clone, Debug, PartialEq)]
pub enum AuditArg {
    /// `audit-policy-file=/etc/trireme/audit.yaml`
    Policy(PathBuf),
    /// `audit-log-path=/var/log/trireme/audit.log`
    Path(PathBuf),
    /// `audit-log-maxage=366`, in days; 0: no limit
    MaxAge(u32),
    /// `audit-log-maxbackup=100`; 0: no limit
    MaxBackups(usize),
    /// `audit-log-maxsize=100`, in MiB
    MaxSize(u64),
    /// `audit-log-mode=blocking` (false) or `blocking-strict` (true)
    Strict(bool),
    /// `audit-log-format=json`: there is no other.
    Json,
    /// `audit-webhook-*`
    Webhook(WebhookArg),
}

/// Reads a flag; none if it is not one of these.
pub fn parse(key: &str, value: &str) -> Option<Result<AuditArg, String>> {
    Some(match key {
        "audit-policy-file" => path(value).map(AuditArg::Policy),
        "audit-log-path" => path(value).map(AuditArg::Path),
        "audit-log-maxage" => number(value).map(AuditArg::MaxAge),
        "audit-log-maxbackup" => number(value).map(AuditArg::MaxBackups),
        "audit-log-maxsize" => number(value).and_then(|mib| match mib {
            1..=1_000_000 => Ok(AuditArg::MaxSize(mib)),
            _ => Err(format!("expected a size in MiB from 1 to 1000000, not {value:?}")),
        }),
        "audit-log-mode" => match value {
            "blocking" => Ok(AuditArg::Strict(false)),
            "blocking-strict" => Ok(AuditArg::Strict(true)),
            _ => Err(format!("the audit log is written before each answer: expected blocking or blocking-strict, not {value:?}")),
        },
        "audit-log-format" => match value {
            "json" => Ok(AuditArg::Json),
            _ => Err(format!("expected json, not {value:?}")),
        },
        _ => return audit_webhook::parse(key, value).map(|arg| arg.map(AuditArg::Webhook)),
    })
}

/// What the flags of a server ask for. The last of several counts.
///
/// # Errors
/// Flags that would record nothing.
pub fn options<'a>(args: impl Iterator<Item = &'a AuditArg>) -> Result<Option<AuditOptions>, String> {
    let (mut policy, mut strict) = (None, false);
    // Upstream's defaults.
    let mut log = LogOptions { path: PathBuf::new(), max_age_days: 366, max_backups: 100, max_size_mib: 100 };
    let mut webhook = WebhookOptions::new(PathBuf::new());
    let (mut has_any, mut has_log, mut has_webhook) = (false, false, false);
    for arg in args {
        has_any = true;
        has_log |= !matches!(arg, AuditArg::Policy(_) | AuditArg::Webhook(_));
        has_webhook |= matches!(arg, AuditArg::Webhook(_));
        match arg {
            AuditArg::Policy(path) => policy = Some(path.clone()),
            AuditArg::Path(path) => log.path.clone_from(path),
            AuditArg::MaxAge(days) => log.max_age_days = *days,
            AuditArg::MaxBackups(most) => log.max_backups = *most,
            AuditArg::MaxSize(mib) => log.max_size_mib = *mib,
            AuditArg::Strict(is_strict) => strict = *is_strict,
            AuditArg::Json => {}
            AuditArg::Webhook(arg) => arg.apply(&mut webhook),
        }
    }
    match policy {
        None if !has_any => Ok(None),
        None => Err("--kube-apiserver-arg audit-*: nothing is recorded without audit-policy-file".into()),
        Some(_) if has_log && log.path.as_os_str().is_empty() => {
            Err("--kube-apiserver-arg audit-log-*: nothing is logged without audit-log-path".into())
        }
        Some(_) if has_webhook && webhook.config.as_os_str().is_empty() => {
            Err("--kube-apiserver-arg audit-webhook-*: nothing is sent without audit-webhook-config-file".into())
        }
        Some(_) if !has_log && !has_webhook => {
            Err("--kube-apiserver-arg audit-policy-file: nothing is recorded without audit-log-path or audit-webhook-config-file".into())
        }
        Some(policy) => Ok(Some(AuditOptions { policy, log: has_log.then_some(log), strict, webhook: has_webhook.then_some(webhook) })),
    }
}

fn path(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() { Err("expected the path of a file".into()) } else { Ok(value.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_apiserver::audit::webhook::Mode;

    fn given(flags: &[&str]) -> Result<Option<AuditOptions>, String> {
        let args: Vec<AuditArg> = flags.iter().map(|flag| read(flag).unwrap().unwrap()).collect();
        options(args.iter())
    }

    fn read(flag: &str) -> Option<Result<AuditArg, String>> {
        let (key, value) = flag.split_once('=').unwrap();
        parse(key, value)
    }

    #[test]
    fn flags_record_something_or_are_refused() {
        assert_eq!(given(&[]), Ok(None));
        let all = given(&[
            "audit-policy-file=/p",
            "audit-log-path=/l",
            "audit-log-maxage=30",
            "audit-log-maxbackup=10",
            "audit-log-maxsize=50",
            "audit-log-mode=blocking-strict",
        ]);
        let log = LogOptions { path: "/l".into(), max_age_days: 30, max_backups: 10, max_size_mib: 50 };
        assert_eq!(all, Ok(Some(AuditOptions { policy: "/p".into(), log: Some(log), strict: true, webhook: None })));
        let sent = given(&["audit-policy-file=/p", "audit-webhook-config-file=/w", "audit-webhook-mode=blocking-strict"]).unwrap().unwrap();
        assert_eq!((sent.log, sent.webhook.map(|webhook| webhook.mode)), (None, Some(Mode::BlockingStrict)));
        assert!(given(&["audit-policy-file=/p"]).unwrap_err().contains("audit-log-path"));
        assert!(given(&["audit-policy-file=/p", "audit-log-maxage=1"]).unwrap_err().contains("audit-log-path"));
        assert!(given(&["audit-policy-file=/p", "audit-webhook-mode=batch"]).unwrap_err().contains("audit-webhook-config-file"));
        assert!(given(&["audit-log-path=/l"]).unwrap_err().contains("audit-policy-file"));
        for wrong in ["audit-log-mode=batch", "audit-log-format=legacy", "audit-log-maxsize=0", "audit-log-path="] {
            assert!(read(wrong).unwrap().is_err(), "{wrong}");
        }
        assert!(read("audit-dynamic-configuration=true").is_none());
    }
}
