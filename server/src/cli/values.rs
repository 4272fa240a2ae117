//! Values that need more than a `FromStr` of the standard library; each error says what would be right.

use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    time::Duration,
};

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Before the first `=`.
    pub key: String,
    /// After it; may be empty.
    pub value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.into(), value: value.into() }),
            _ => Err("expected KEY=VALUE".into()),
        }
    }
}

/// `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaintArg {
    /// The taint's key.
    pub key: String,
    /// Its value, often empty.
    pub value: String,
    /// NoSchedule, PreferNoSchedule or NoExecute.
    pub effect: String,
}

impl FromStr for TaintArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "expected KEY=VALUE:EFFECT with EFFECT one of NoSchedule, PreferNoSchedule, NoExecute".to_owned();
        let (front, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (key, value) = front.split_once('=').unwrap_or((front, ""));
        if key.is_empty() || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
            return Err(wrong());
        }
        Ok(Self { key: key.into(), value: value.into(), effect: effect.into() })
    }
}

/// Bytes that a store may take: a number, and not so few that the cluster's own objects would not fit.
pub fn quota_bytes(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 16 << 20;
    match text.parse::<u64>() {
        Ok(bytes) if bytes >= LEAST => Ok(bytes),
        _ => Err(format!("expected a number of bytes, at least {LEAST}")),
    }
}

/// An `https://` address of a server, without path.
pub fn server_url(text: &str) -> Result<String, String> {
    let wrong = || "expected https://HOST:PORT".to_owned();
    let rest = text.strip_prefix("https://").ok_or_else(wrong)?.trim_end_matches('/');
    if rest.is_empty() || rest.contains('/') {
        return Err(wrong());
    }
    let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(if has_port { format!("https://{rest}") } else { format!("https://{rest}:6443") })
}

/// A port that can be listened on.
pub fn port(text: &str) -> Result<u16, String> {
    text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(|| "expected a port, a number from 1 to 65535".into())
}

/// An address of either family.
pub fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "expected an IP address such as 192.0.2.10".into())
}

/// An IPv4 address.
pub fn ipv4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| "expected an IPv4 address such as 10.43.0.10".into())
}

/// An IPv4 network with room for more than a handful of addresses.
pub fn ipv4_network(text: &str) -> Result<ipnet::Ipv4Net, String> {
    let network: Option<ipnet::Ipv4Net> = text.parse().ok();
    match network {
        Some(network) if network.prefix_len() > 28 => Err("expected a network of at least 16 addresses, such as 10.42.0.0/16".into()),
        Some(network) => Ok(network.trunc()),
        None => Err("expected an IPv4 network such as 10.42.0.0/16".into()),
    }
}

/// A name that a Node may have.
pub fn node_name(text: &str) -> Result<String, String> {
    if trireme_api::names::is_dns1123_subdomain(text).is_empty() {
        return Ok(text.to_owned());
    }
    Err("expected lower-case letters, digits, '-' and '.', such as node-1.example.org".into())
}

/// An octal file mode.
pub fn file_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| "expected an octal mode such as 600".into())
}

/// A path of a unix socket, with or without `unix://`.
pub fn socket_path(text: &str) -> Result<std::path::PathBuf, String> {
    let path = std::path::PathBuf::from(text.strip_prefix("unix://").unwrap_or(text));
    if path.is_absolute() { Ok(path) } else { Err("expected an absolute path of a unix socket".into()) }
}

/// A time span: a number with `s`, `m`, `h` or `d` behind it; 0 stands alone. In seconds.
pub fn seconds(text: &str) -> Result<i64, String> {
    let wrong = || "expected a number with s, m, h or d behind it, such as 24h, or 0".to_owned();
    if text == "0" {
        return Ok(0);
    }
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    Ok(i64::from(number) * factor)
}

/// A number of the wanted type.
pub fn number<N: std::str::FromStr>(value: &str) -> Result<N, String> {
    value.parse().map_err(|_| format!("expected a number that is not negative, not {value:?}"))
}

/// `true` or `false`.
///
/// # Errors
/// What would be right.
pub fn switch(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("expected true or false, not {value:?}"))
}

/// Go's notation: `1m30s`, `500ms`, `40s`.
///
/// # Errors
/// What would be right.
pub fn duration(value: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a duration such as 40s or 1m30s, not {value:?}");
    trireme_api::time::go_duration(value).filter(|duration| !duration.is_zero()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_say_what_would_be_right() {
        assert_eq!(server_url("https://a/").as_deref(), Ok("https://a:6443"));
        assert!(server_url("http://a:6443").is_err_and(|e| e.contains("https://")));
        assert!("a".parse::<Label>().is_err_and(|e| e.contains("KEY=VALUE")));
        assert!("a=b:Never".parse::<TaintArg>().is_err_and(|e| e.contains("NoExecute")));
        assert_eq!("a:NoExecute".parse(), Ok(TaintArg { key: "a".into(), value: String::new(), effect: "NoExecute".into() }));
        assert!(file_mode("999").is_err());
        assert!(port("abc").is_err_and(|e| e.contains("1 to 65535")) && port("0").is_err() && port("6443") == Ok(6443));
        assert!(ipv4_network("10.0.0.0/30").is_err_and(|e| e.contains("16 addresses")));
        assert!(node_name("Node_1").is_err_and(|e| e.contains("lower-case")));
    }
}
