//! Links in what a proxied pod, Service or node answers, so that they lead through the proxy again.
//!
//! Answers to upstream's `Transport` (`apimachinery/pkg/util/proxy/transport.go`): a redirect's `Location`, and in HTML the attributes that
//! hold addresses. Only addresses of the same host that begin with `/` are changed.

/// Bytes of a page that wait for the end of a tag or of a script. A longer tag or script is passed on unchanged.
const PENDING_BYTES_MAX: usize = 256 * 1024;

/// Attributes that hold an address, with the element that has them.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "src", "usemap"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose content is text, whatever it looks like.
const RAW_TEXT: [&str; 4] = ["script", "style", "textarea", "title"];

/// Where links lead.
#[derive(Clone, Debug)]
pub struct Links {
    /// The path of the proxy, without a slash at its end.
    pub prefix: String,
    /// The host that the other side was addressed by.
    pub host: String,
}

/// Changes the links of a page that arrives in pieces.
pub struct PageRewriter {
    links: Links,
    pending: Vec<u8>,
    /// How many pending bytes are worth another look. It doubles, so that tiny pieces cost no more than large ones.
    look_at: usize,
}

// === impl PageRewriter ===

impl PageRewriter {
    /// At the start of a page.
    pub fn new(links: Links) -> PageRewriter {
        PageRewriter { links, pending: Vec::new(), look_at: 0 }
    }

    /// Takes a piece; returns what is complete.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(piece);
        if self.pending.len() < self.look_at {
            return Vec::new();
        }
        let (mut out, used) = self.links.part(&self.pending, false);
        self.pending.drain(..used);
        if self.pending.len() > PENDING_BYTES_MAX {
            out.append(&mut self.pending);
        }
        self.look_at = 2 * self.pending.len();
        out
    }

    /// Returns what is left at the end of the page.
    pub fn finish(self) -> Vec<u8> {
        self.links.part(&self.pending, true).0
    }
}

// === impl Links ===

impl Links {
    /// The address, leading through the proxy if it can.
    pub fn address(&self, address: &str) -> Option<String> {
        let path = match address.split_once("://") {
            Some(("http" | "https", rest)) => {
                let at = rest.find('/').unwrap_or(rest.len());
                let (host, path) = rest.split_at(at);
                if host != self.host {
                    return None;
                }
                if path.is_empty() { "/" } else { path }
            }
            Some(_) => return None,
            None => address,
        };
        // `//host/` is another host.
        if !path.starts_with('/') || path.starts_with("//") || path.starts_with(&self.prefix) {
            return None;
        }
        Some(format!("{}{path}", self.prefix))
    }

    /// A part of a page with its links changed, and how many of its bytes that are: a tag, a comment or a script that has no end yet waits
    /// for it, unless this is the `last` part.
    fn part(&self, page: &[u8], last: bool) -> (Vec<u8>, usize) {
        let mut out = Vec::with_capacity(page.len() + page.len() / 8);
        let mut at = 0;
        while let Some(start) = page[at..].iter().position(|byte| *byte == b'<') {
            out.extend_from_slice(&page[at..at + start]);
            at += start;
            let rest = &page[at..];
            let name = element(rest);
            let Some(end) = tag_end(rest).or(last.then_some(rest.len())) else { return (out, at) };
            let raw = RAW_TEXT.iter().find(|raw| name.eq_ignore_ascii_case(raw));
            let text = match raw.map(|name| raw_text_end(&rest[end..], name)) {
                None => 0,
                Some(Some(text)) => text,
                Some(None) if last => rest.len() - end,
                Some(None) => return (out, at),
            };
            match LINKS.iter().find(|(element, _)| name.eq_ignore_ascii_case(element)) {
                Some((_, attributes)) => self.tag(&rest[..end], attributes, &mut out),
                None => out.extend_from_slice(&rest[..end]),
            }
            out.extend_from_slice(&rest[end..end + text]);
            at += end + text;
        }
        out.extend_from_slice(&page[at..]);
        (out, page.len())
    }

    /// Copies one tag, with the values of `wanted` attributes changed.
    fn tag(&self, tag: &[u8], wanted: &[&str], out: &mut Vec<u8>) {
        let mut at = 0;
        while let Some((name, value)) = attribute(tag, at) {
            let (before, end) = (value.start, value.end);
            out.extend_from_slice(&tag[at..before]);
            let text = std::str::from_utf8(&tag[value]).unwrap_or_default();
            let is_link = wanted.iter().any(|attribute| tag[name.clone()].eq_ignore_ascii_case(attribute.as_bytes()));
            match self.address(text).filter(|_| is_link) {
                Some(address) => out.extend_from_slice(address.as_bytes()),
                None => out.extend_from_slice(&tag[before..end]),
            }
            at = end;
        }
        out.extend_from_slice(&tag[at..]);
    }
}

/// The next attribute with a value, at or after `from`: where its name and its value are. Each call moves on, so a tag is read once.
fn attribute(tag: &[u8], from: usize) -> Option<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    let equals = from + tag.get(from..)?.iter().position(|byte| *byte == b'=')?;
    let name_end = tag[..equals].iter().rposition(|byte| !byte.is_ascii_whitespace())? + 1;
    let name_start = tag[..name_end].iter().rposition(|byte| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'/' | b'<'))? + 1;
    let value = equals + 1 + tag[equals + 1..].iter().position(|byte| !byte.is_ascii_whitespace())?;
    let (start, end) = match tag[value] {
        quote @ (b'"' | b'\'') => {
            let start = value + 1;
            (start, start + tag[start..].iter().position(|byte| *byte == quote)?)
        }
        _ => {
            let end = tag[value..].iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'>');
            (value, end.map_or(tag.len(), |end| value + end))
        }
    };
    Some((name_start..name_end, start..end))
}

/// The length of a tag, up to a `>` that is in no quotes, or of a comment; `None` if it does not end here.
fn tag_end(tag: &[u8]) -> Option<usize> {
    if tag.starts_with(b"<!--") {
        return tag.windows(3).skip(4).position(|end| end == b"-->").map(|at| at + 4 + 3);
    }
    // It may become a comment.
    if b"<!--".starts_with(tag) {
        return None;
    }
    let mut quote = None;
    for (at, byte) in tag.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    None
}

/// Where the end tag of an element with raw text begins.
fn raw_text_end(text: &[u8], name: &str) -> Option<usize> {
    let end = 2 + name.len();
    text.windows(end).position(|window| window.starts_with(b"</") && window[2..].eq_ignore_ascii_case(name.as_bytes()))
}

/// The name of a start tag; empty for anything else.
fn element(tag: &[u8]) -> &str {
    let name = tag.get(1..).unwrap_or_default();
    let end = name.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(name.len());
    std::str::from_utf8(&name[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links { prefix: "/api/v1/namespaces/n/pods/p/proxy".to_owned(), host: "10.42.0.7:80".to_owned() }
    }

    /// The page in pieces of `size` bytes.
    fn in_pieces(text: &[u8], size: usize) -> Vec<u8> {
        let mut rewriter = PageRewriter::new(links());
        let mut out = Vec::new();
        text.chunks(size).for_each(|piece| out.extend(rewriter.push(piece)));
        out.extend(rewriter.finish());
        out
    }

    /// The page, which must be the same in whatever pieces it comes.
    fn page(text: &str) -> String {
        let whole = in_pieces(text.as_bytes(), text.len());
        for size in 1..text.len() {
            assert_eq!(in_pieces(text.as_bytes(), size), whole, "{text} in pieces of {size}");
        }
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn addresses_of_the_same_host_lead_through_the_proxy() {
        for (address, wanted) in [
            ("/a?b=c#d", Some("/api/v1/namespaces/n/pods/p/proxy/a?b=c#d")),
            ("http://10.42.0.7:80/a/", Some("/api/v1/namespaces/n/pods/p/proxy/a/")),
            ("https://10.42.0.7:80", Some("/api/v1/namespaces/n/pods/p/proxy/")),
            ("http://elsewhere/a", None),
            ("//elsewhere/a", None),
            ("a/b", None),
            ("mailto:a@b", None),
            ("ftp://10.42.0.7:80/a", None),
            ("/api/v1/namespaces/n/pods/p/proxy/a", None),
        ] {
            assert_eq!(links().address(address).as_deref(), wanted, "{address}");
        }
    }

    #[test]
    fn links_in_pages_are_changed_and_nothing_else() {
        assert_eq!(page(r#"<a href="/rewriteme">test</a>"#), r#"<a href="/api/v1/namespaces/n/pods/p/proxy/rewriteme">test</a>"#);
        assert_eq!(page("<IMG alt='a > b' SRC = '/x' >"), "<IMG alt='a > b' SRC = '/api/v1/namespaces/n/pods/p/proxy/x' >");
        assert_eq!(page("<form action=/go method=post>"), "<form action=/api/v1/namespaces/n/pods/p/proxy/go method=post>");
        for same in [
            r#"<p title="/x">1 < 2 and href="/y"</p>"#,
            r#"<!-- <a href="/x"> -->"#,
            r#"<script>var a = '<a href="/x">';</script>"#,
            r#"<a href="relative" data-href="/x">"#,
            r#"<a href="/unfinished"#,
            "<",
            "<a =",
            "<a href=",
            "plain",
        ] {
            assert_eq!(page(same), same);
        }
    }

    /// Neither time nor memory may grow faster than the page.
    #[test]
    fn hostile_pages_are_copied() {
        for pattern in ["<", "<a =", "<a href='", "<!--", "<script>", "<a href=\"/x\" "] {
            let hostile = pattern.repeat(100_000);
            for size in [1, 4096, hostile.len()] {
                assert!(in_pieces(hostile.as_bytes(), size).len() >= hostile.len());
            }
        }
    }
}
