//! The name in a proxied path: `name`, `name:port` or `scheme:name:port`.
//!
//! Answers to upstream's `SplitSchemeNamePort` (`apimachinery/pkg/util/net`).

use trireme_api::status::Status;

use crate::error::Answer;

/// What is proxied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyName<'a> {
    /// Whether the scheme is `https`.
    pub https: bool,
    /// The name of the object.
    pub name: &'a str,
    /// The port, as a number or a name, or empty.
    pub port: &'a str,
}

impl<'a> ProxyName<'a> {
    /// Splits a name; `kind` is what the refusal calls it.
    pub fn parse(text: &'a str, kind: &str) -> Answer<ProxyName<'a>> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => ("invalid", "", ""),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            return Err(Status::bad_request(format!("invalid {kind} request {text:?}")).into());
        }
        Ok(ProxyName { https: scheme == "https", name, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_as_upstream_splits_them() {
        let parse = |text| ProxyName::parse(text, "pod").map(|n| (n.https, n.name, n.port)).map_err(|status| status.code());
        assert_eq!(parse("a"), Ok((false, "a", "")));
        assert_eq!(parse("a:80"), Ok((false, "a", "80")));
        assert_eq!(parse("https:a:web"), Ok((true, "a", "web")));
        assert_eq!(parse("http:a:"), Ok((false, "a", "")));
        for bad in ["", ":80", "ftp:a:80", "a:b:c:d", "https::80"] {
            assert_eq!(parse(bad), Err(400), "{bad}");
        }
    }
}
