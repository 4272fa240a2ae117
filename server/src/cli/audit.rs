//! kube-apiserver's flags of the audit log, put together.

use std::path::PathBuf;

use trireme_apiserver::audit::AuditOptions;
use trireme_apiserver::audit::log::LogOptions;

use super::values::number;

/// A flag of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// Reads a flag; none if it is not one of the audit log.
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
        _ => return None,
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
    let mut has_any = false;
    for arg in args {
        has_any = true;
        match arg {
            AuditArg::Policy(path) => policy = Some(path.clone()),
            AuditArg::Path(path) => log.path.clone_from(path),
            AuditArg::MaxAge(days) => log.max_age_days = *days,
            AuditArg::MaxBackups(most) => log.max_backups = *most,
            AuditArg::MaxSize(mib) => log.max_size_mib = *mib,
            AuditArg::Strict(is_strict) => strict = *is_strict,
            AuditArg::Json => {}
        }
    }
    match policy {
        None if !has_any => Ok(None),
        Some(policy) if !log.path.as_os_str().is_empty() => Ok(Some(AuditOptions { policy, log, strict })),
        Some(_) => Err("--kube-apiserver-arg audit-policy-file: nothing is recorded without audit-log-path".into()),
        None => Err("--kube-apiserver-arg audit-log-*: nothing is recorded without audit-policy-file".into()),
    }
}

fn path(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() { Err("expected the path of a file".into()) } else { Ok(value.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(all, Ok(Some(AuditOptions { policy: "/p".into(), log, strict: true })));
        assert!(given(&["audit-policy-file=/p"]).unwrap_err().contains("audit-log-path"));
        assert!(given(&["audit-log-path=/l"]).unwrap_err().contains("audit-policy-file"));
        for wrong in ["audit-log-mode=batch", "audit-log-format=legacy", "audit-log-maxsize=0", "audit-log-path="] {
            assert!(read(wrong).unwrap().is_err(), "{wrong}");
        }
        assert!(read("audit-webhook-config-file=/a").is_none());
    }
}
