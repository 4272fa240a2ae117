//! Where an HTTP request goes, and where a redirect leads from there (RFC 3986, section 5). Pure.

use std::fmt;

/// Scheme, host, port, path and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) tls: bool,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query, beginning with a slash.
    pub(crate) path: String,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.path)
    }
}

impl Location {
    /// A path that does not begin with a slash gets one; what a URL may not hold is escaped.
    pub(crate) fn new(tls: bool, host: &str, port: u16, path: &str) -> Location {
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { escape(path) } else { format!("/{}", escape(path)) };
        Location { tls, host: host.into(), port, path }
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    /// Whether a reference names a scheme.
    pub(crate) fn is_absolute(reference: &str) -> bool {
        scheme(reference).is_some()
    }

    /// Where a reference leads from here.
    pub(crate) fn join(&self, reference: &str) -> Result<Location, String> {
        let reference = reference.split('#').next().unwrap_or_default();
        let (tls, rest) = match scheme(reference) {
            None => (self.tls, reference),
            Some((name, rest)) => match name.to_ascii_lowercase().as_str() {
                "http" => (false, rest),
                "https" => (true, rest),
                other => return Err(format!("unsupported protocol scheme {other:?}")),
            },
        };
        if let Some(rest) = rest.strip_prefix("//") {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, port) = split_authority(&rest[..end], tls)?;
            return Ok(Location::new(tls, &host, port, &normalize(&rest[end..])));
        }
        let path = if rest.starts_with('/') {
            normalize(rest)
        } else if let Some(query) = rest.strip_prefix('?') {
            format!("{}?{query}", self.path.split('?').next().unwrap_or_default())
        } else if rest.is_empty() {
            self.path.clone()
        } else {
            let base = self.path.split('?').next().unwrap_or_default();
            let folder = base.rfind('/').map_or("/", |at| &base[..=at]);
            normalize(&format!("{folder}{rest}"))
        };
        Ok(Location::new(tls, &self.host, self.port, &path))
    }
}

/// The scheme of a reference, and what follows its colon.
fn scheme(reference: &str) -> Option<(&str, &str)> {
    let (name, rest) = reference.split_once(':')?;
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    valid.then_some((name, rest))
}

fn split_authority(text: &str, tls: bool) -> Result<(String, u16), String> {
    let default = if tls { 443 } else { 80 };
    let text = text.rsplit('@').next().unwrap_or_default();
    let bad = || format!("failed to parse Location header: invalid host {text:?}");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(bad)?;
            (host, after.strip_prefix(':'))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err("http: no Host in request URL".into());
    }
    let port = port.filter(|p| !p.is_empty()).map(|p| p.parse().map_err(|_| bad())).transpose()?.unwrap_or(default);
    Ok((host.to_string(), port))
}

/// Resolves `.` and `..` in a path; the query stays.
fn normalize(path: &str) -> String {
    let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let ends_in_folder = matches!(path.rsplit('/').next(), Some("." | ".."));
    let mut out = format!("/{}", parts.join("/"));
    if ends_in_folder && !out.ends_with('/') {
        out.push('/');
    }
    if let Some(query) = query {
        out.push('?');
        out.push_str(query);
    }
    out
}

fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte <= b' ' || byte >= 0x7f || b"\"<>\\^`{|}".contains(&byte) {
            out.push_str(&format!("%{byte:02X}"));
        } else {
            out.push(char::from(byte));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_where_rfc_3986_says() {
        let base = Location::new(false, "10.0.0.1", 8080, "a/b/c?q");
        assert_eq!(base.to_string(), "http://10.0.0.1:8080/a/b/c?q");
        for (reference, expected) in [
            ("/x", "http://10.0.0.1:8080/x"),
            ("x", "http://10.0.0.1:8080/a/b/x"),
            ("../x?y", "http://10.0.0.1:8080/a/x?y"),
            ("../../../x", "http://10.0.0.1:8080/x"),
            ("..", "http://10.0.0.1:8080/a/"),
            ("?z", "http://10.0.0.1:8080/a/b/c?z"),
            ("", "http://10.0.0.1:8080/a/b/c?q"),
            ("//other:1/x", "http://other:1/x"),
            ("https://other", "https://other:443/"),
            ("HTTP://[::1]:9/a b#f", "http://[::1]:9/a%20b"),
            ("https://user@10.0.0.1:8080/x", "https://10.0.0.1:8080/x"),
        ] {
            assert_eq!(base.join(reference).unwrap().to_string(), expected, "{reference}");
        }
        for bad in ["ftp://x/", "http://:1/", "http://[::1/", "http://x:99999/", "http:///x"] {
            assert!(base.join(bad).is_err(), "{bad}");
        }
    }
}
