//! Flags of upstream's components that a server understands: each does what upstream's does. Every other one ends the start.
//!
//! Answers to `--kube-apiserver-arg`, `--kube-controller-manager-arg` and `--kube-scheduler-arg` of k3s and to upstream's
//! component references.

use std::path::PathBuf;
use std::time::Duration;

use trireme_apiserver::admission::builtin::Selection;
use trireme_controllers::Switches;

use super::audit::{self, AuditArg};
use super::oidc::{self, OidcArg};
use super::values::{duration, number, switch};

/// A flag of kube-apiserver.
#[derive(Clone, Debug, PartialEq)]
pub enum ApiServerArg {
    /// `service-node-port-range=30000-32767`
    NodePorts(u16, u16),
    /// `max-requests-inflight=400`; none: no limit.
    MaxRequests(usize),
    /// `max-mutating-requests-inflight=200`; none: no limit.
    MaxMutatingRequests(usize),
    /// `enable-priority-and-fairness=true`
    PriorityAndFairness(bool),
    /// `request-timeout=1m0s`
    RequestTimeout(Duration),
    /// `enable-admission-plugins=A,B`
    EnablePlugins(Vec<String>),
    /// `disable-admission-plugins=A,B`
    DisablePlugins(Vec<String>),
    /// `admission-control-config-file=/etc/trireme/admission.yaml`
    AdmissionConfiguration(PathBuf),
    /// `default-not-ready-toleration-seconds=300`
    NotReadySecs(i64),
    /// `default-unreachable-toleration-seconds=300`
    UnreachableSecs(i64),
    /// `enable-bootstrap-token-auth=true`
    BootstrapTokens(bool),
    /// `authentication-config=/etc/trireme/authentication.yaml`
    AuthenticationConfig(PathBuf),
    /// Flags of an identity provider.
    Oidc(OidcArg),
    /// Flags of the audit log.
    Audit(AuditArg),
    /// `v=4`
    Verbosity(u8),
}

/// A flag of kube-controller-manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerArg {
    /// `node-monitor-period=5s`
    NodeMonitorPeriod(Duration),
    /// `node-monitor-grace-period=40s`
    NodeMonitorGrace(Duration),
    /// `terminated-pod-gc-threshold=12500`
    TerminatedPods(usize),
    /// `node-cidr-mask-size=24` or `node-cidr-mask-size-ipv4=24`
    NodeCidrMask(u8),
    /// `controllers=*,-job-controller`
    Controllers(String),
    /// `leader-elect=true`: there is always one leader.
    LeaderElect,
    /// `v=4`
    Verbosity(u8),
}

/// A flag of kube-scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchedulerArg {
    /// `leader-elect=true`: there is always one leader.
    LeaderElect,
    /// `pod-max-in-unschedulable-pods-duration=5m`
    UnschedulableFlush(Duration),
    /// `v=4`
    Verbosity(u8),
}

/// Reads a flag of kube-apiserver.
pub fn api_server(text: &str) -> Result<ApiServerArg, String> {
    let (key, value) = split(text);
    Ok(match key {
        "service-node-port-range" => node_ports(value).map(|(low, high)| ApiServerArg::NodePorts(low, high))?,
        "max-requests-inflight" => ApiServerArg::MaxRequests(limit(value)?),
        "max-mutating-requests-inflight" => ApiServerArg::MaxMutatingRequests(limit(value)?),
        "enable-priority-and-fairness" => ApiServerArg::PriorityAndFairness(switch(value)?),
        "request-timeout" => ApiServerArg::RequestTimeout(duration(value)?),
        "enable-admission-plugins" => {
            let selection = Selection { enabled: list(value), ..Selection::default() };
            selection.check()?;
            ApiServerArg::EnablePlugins(selection.enabled)
        }
        "disable-admission-plugins" => {
            let selection = Selection { disabled: list(value), ..Selection::default() };
            selection.check()?;
            ApiServerArg::DisablePlugins(selection.disabled)
        }
        "admission-control-config-file" if value.is_empty() => return Err("expected the path of a file".into()),
        "admission-control-config-file" => ApiServerArg::AdmissionConfiguration(value.into()),
        "default-not-ready-toleration-seconds" => ApiServerArg::NotReadySecs(number(value)?),
        "default-unreachable-toleration-seconds" => ApiServerArg::UnreachableSecs(number(value)?),
        "enable-bootstrap-token-auth" => ApiServerArg::BootstrapTokens(switch(value)?),
        "authentication-config" if value.is_empty() => return Err("expected the path of a file".into()),
        "authentication-config" => ApiServerArg::AuthenticationConfig(value.into()),
        "v" => ApiServerArg::Verbosity(number(value)?),
        "service-cluster-ip-range" => return Err("kube-apiserver's service-cluster-ip-range is --service-cidr here".into()),
        other => {
            if let Some(arg) = audit::parse(other, value) {
                ApiServerArg::Audit(arg?)
            } else if let Some(arg) = oidc::parse(other, value) {
                ApiServerArg::Oidc(arg?)
            } else {
                return Err(unknown("kube-apiserver", other));
            }
        }
    })
}

/// Reads a flag of kube-controller-manager.
pub fn controllers(text: &str) -> Result<ControllerArg, String> {
    let (key, value) = split(text);
    Ok(match key {
        "node-monitor-period" => ControllerArg::NodeMonitorPeriod(duration(value)?),
        "node-monitor-grace-period" => ControllerArg::NodeMonitorGrace(duration(value)?),
        "terminated-pod-gc-threshold" => ControllerArg::TerminatedPods(number(value)?),
        "node-cidr-mask-size" | "node-cidr-mask-size-ipv4" => match number(value)? {
            bits @ 8..=30 => ControllerArg::NodeCidrMask(bits),
            _ => return Err("expected a prefix length from 8 to 30".into()),
        },
        "controllers" => {
            Switches::default().select(value)?;
            ControllerArg::Controllers(value.to_owned())
        }
        "leader-elect" => elects(value, "kube-controller-manager").map(|()| ControllerArg::LeaderElect)?,
        "v" => ControllerArg::Verbosity(number(value)?),
        "cluster-cidr" => return Err("kube-controller-manager's cluster-cidr is --cluster-cidr here".into()),
        other => return Err(unknown("kube-controller-manager", other)),
    })
}

/// Reads a flag of kube-scheduler.
pub fn scheduler(text: &str) -> Result<SchedulerArg, String> {
    let (key, value) = split(text);
    Ok(match key {
        "leader-elect" => elects(value, "kube-scheduler").map(|()| SchedulerArg::LeaderElect)?,
        "pod-max-in-unschedulable-pods-duration" => SchedulerArg::UnschedulableFlush(duration(value)?),
        "v" => SchedulerArg::Verbosity(number(value)?),
        other => return Err(unknown("kube-scheduler", other)),
    })
}

/// A switch without value is on.
fn split(text: &str) -> (&str, &str) {
    text.trim_start_matches("--").split_once('=').unwrap_or((text.trim_start_matches("--"), "true"))
}

fn unknown(component: &str, flag: &str) -> String {
    format!("{component}'s flag {flag:?} has no counterpart here; leave it out")
}

fn elects(value: &str, component: &str) -> Result<(), String> {
    if value == "true" { Ok(()) } else { Err(format!("{component} always has one leader; leave leader-elect out")) }
}

/// 0 means no limit, as upstream.
fn limit(value: &str) -> Result<usize, String> {
    let most = tokio::sync::Semaphore::MAX_PERMITS;
    number::<usize>(value).map(|n| if n == 0 { most } else { n.min(most) })
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// `30000-32767`, `30000+100` or one port.
fn node_ports(value: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("expected FIRST-LAST with ports from 1 to 65535, such as 30000-32767, not {value:?}");
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
    let range = if let Some((low, high)) = value.split_once('-') {
        port(low).zip(port(high))
    } else if let Some((low, more)) = value.split_once('+') {
        port(low).and_then(|low| Some((low, low.checked_add(port(more)?)?)))
    } else {
        port(value).map(|one| (one, one))
    };
    range.filter(|(low, high)| low <= high).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d16_a_flag_acts_or_is_refused_by_name() {
        assert_eq!(api_server("service-node-port-range=20000-22767"), Ok(ApiServerArg::NodePorts(20000, 22767)));
        assert_eq!(api_server("--request-timeout=1m30s"), Ok(ApiServerArg::RequestTimeout(Duration::from_secs(90))));
        assert_eq!(
            api_server("disable-admission-plugins=Priority, RuntimeClass"),
            Ok(ApiServerArg::DisablePlugins(vec!["Priority".into(), "RuntimeClass".into()]))
        );
        assert_eq!(
            api_server("enable-admission-plugins=AlwaysPullImages,EventRateLimit"),
            Ok(ApiServerArg::EnablePlugins(vec!["AlwaysPullImages".into(), "EventRateLimit".into()]))
        );
        assert_eq!(api_server("admission-control-config-file=/x"), Ok(ApiServerArg::AdmissionConfiguration("/x".into())));
        assert_eq!(api_server("enable-priority-and-fairness=false"), Ok(ApiServerArg::PriorityAndFairness(false)));
        assert_eq!(api_server("max-requests-inflight=0"), Ok(ApiServerArg::MaxRequests(tokio::sync::Semaphore::MAX_PERMITS)));
        assert_eq!(controllers("node-monitor-grace-period=20s"), Ok(ControllerArg::NodeMonitorGrace(Duration::from_secs(20))));
        assert_eq!(controllers("leader-elect"), Ok(ControllerArg::LeaderElect));
        assert_eq!(controllers("controllers=*,-job-controller"), Ok(ControllerArg::Controllers("*,-job-controller".into())));
        assert!(controllers("controllers=*,-job").is_err_and(|said| said.contains("\"job\" is no controller")));
        assert_eq!(scheduler("v=4"), Ok(SchedulerArg::Verbosity(4)));
        for (error, name) in [
            (api_server("tls-min-version=VersionTLS13").unwrap_err(), "tls-min-version"),
            (api_server("service-cluster-ip-range=10.0.0.0/16").unwrap_err(), "--service-cidr"),
            (api_server("enable-admission-plugins=ImagePolicyWebhook").unwrap_err(), "ImagePolicyWebhook"),
            (api_server("admission-control-config-file=").unwrap_err(), "path of a file"),
            (controllers("leader-elect=false").unwrap_err(), "leader-elect"),
            (scheduler("config=/x").unwrap_err(), "config"),
            (api_server("service-node-port-range=5-1").unwrap_err(), "30000-32767"),
            (api_server("enable-priority-and-fairness=no").unwrap_err(), "true or false"),
            (api_server("request-timeout=abc").unwrap_err(), "duration"),
            (api_server("max-requests-inflight=-1").unwrap_err(), "number"),
        ] {
            assert!(error.contains(name) && !error.contains('\n'), "{error}");
        }
    }
}
