//! Formats of strings that a schema may name. A format that is not known here restricts nothing, as upstream.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/validation/formats.go` and `kube-openapi/pkg/validation/strfmt`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

use crate::names;

/// The known formats of strings, without dashes.
const STRINGS: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// Whether a format means something for a type (empty: a type is not given).
pub fn is_known(type_: &str, format: &str) -> bool {
    match type_ {
        "" | "string" => STRINGS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

macro_rules! expression {
    ($name:ident, $source:literal) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($source).expect("invariant: a constant expression compiles"));
    };
}

expression!(BSON, r"^[0-9a-fA-F]{24}$");
expression!(UUID, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$");
expression!(UUID3, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$");
expression!(UUID4, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$");
expression!(UUID5, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$");
expression!(
    CARD,
    r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$"
);
expression!(SSN, r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$");
expression!(HEX_COLOR, r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$");
expression!(RGB_COLOR, r"^rgb\(\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*\)$");
expression!(HOST_LABEL, r"^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$");
expression!(BASE64, r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$");
expression!(DURATION, r"^[-+]?((([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+|0)$");
expression!(
    LONG_DURATION,
    r"^[0-9]+(\.[0-9]+)?\s*(ns|nanos?|nanoseconds?|us|µs|micros?|microseconds?|ms|millis?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?)$"
);

/// Whether a text has a format. An unknown format accepts everything.
pub fn accepts(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "bsonobjectid" => BSON.is_match(text),
        "byte" => BASE64.is_match(text),
        "cidr" => text.contains('/') && text.parse::<ipnet::IpNet>().is_ok(),
        "creditcard" => CARD.is_match(&text.chars().filter(char::is_ascii_digit).collect::<String>()),
        "date" => is_date(text),
        "datetime" => is_date_time(text),
        "duration" => DURATION.is_match(text) || LONG_DURATION.is_match(text),
        "email" => is_email(text),
        "hexcolor" => HEX_COLOR.is_match(text),
        "rgbcolor" => {
            RGB_COLOR.captures(text).is_some_and(|parts| (1..=3).all(|part| parts[part].parse::<u32>().is_ok_and(|value| value <= 255)))
        }
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8slongname" => names::is_dns1123_subdomain(text).is_empty(),
        "k8sshortname" => names::is_dns1123_label(text).is_empty(),
        "mac" => is_mac(text),
        "ssn" => SSN.is_match(text),
        "uri" => is_request_uri(text),
        "uuid" => UUID.is_match(text),
        "uuid3" => UUID3.is_match(text),
        "uuid4" => UUID4.is_match(text),
        "uuid5" => UUID5.is_match(text),
        _ => true,
    }
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// RFC 3339 with a time that may lack parts that strfmt's layouts lack.
fn is_date_time(text: &str) -> bool {
    let spaced = text.get(10..11).is_some_and(|sign| matches!(sign, "T" | "t" | " "));
    if !spaced || text.len() > 64 {
        return false;
    }
    text.parse::<jiff::Timestamp>().is_ok() || text.parse::<jiff::civil::DateTime>().is_ok()
}

/// One address, with or without a name in front of it.
fn is_email(text: &str) -> bool {
    let address = match text.rsplit_once('<') {
        Some((_, inner)) => match inner.strip_suffix('>') {
            Some(address) => address,
            None => return false,
        },
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |text: &str| text.chars().all(|sign| sign.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~-".contains(sign));
    let dotted = |text: &str| !text.is_empty() && text.split('.').all(|part| !part.is_empty() && atom(part));
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.starts_with('[') && domain.ends_with(']');
    (quoted || dotted(local)) && (literal || dotted(domain))
}

fn is_hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    !text.is_empty() && text.len() <= 253 && text.split('.').all(|label| HOST_LABEL.is_match(label))
}

/// Six, eight or twenty bytes in pairs with colons or dashes, or in fours with dots.
fn is_mac(text: &str) -> bool {
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (separator, len) in [(':', 2), ('-', 2), ('.', 4)] {
        let parts: Vec<&str> = text.split(separator).take(21).collect();
        if parts.len() > 1 {
            return matches!(parts.len() * len / 2, 6 | 8 | 20) && parts.iter().all(|part| hex(part, len));
        }
    }
    false
}

fn digits(text: &str) -> String {
    text.chars().filter(|sign| !matches!(sign, '-' | ' ')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = digits(text);
    let bytes = text.as_bytes();
    if bytes.len() != 10 || !bytes[..9].iter().all(u8::is_ascii_digit) || !(bytes[9].is_ascii_digit() || matches!(bytes[9], b'X' | b'x')) {
        return false;
    }
    let value = |byte: u8| if byte.is_ascii_digit() { u32::from(byte - b'0') } else { 10 };
    bytes.iter().zip(1..).map(|(byte, place)| value(*byte) * place).sum::<u32>() % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let text = digits(text);
    let bytes = text.as_bytes();
    if bytes.len() != 13 || !bytes.iter().all(u8::is_ascii_digit) || !(text.starts_with("978") || text.starts_with("979")) {
        return false;
    }
    bytes.iter().enumerate().map(|(place, byte)| u32::from(byte - b'0') * if place % 2 == 0 { 1 } else { 3 }).sum::<u32>() % 10 == 0
}

/// An absolute URI or an absolute path.
fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return false;
    }
    if text.starts_with('/') || text == "*" {
        return valid_escapes(text);
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let begins = scheme.starts_with(|sign: char| sign.is_ascii_alphabetic());
    let rest_of_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let host = rest.strip_prefix("//").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    begins && rest_of_scheme && valid_escapes(rest) && host.is_none_or(|host| !host.contains([' ', '<', '>', '"']))
}

fn valid_escapes(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
        let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
        hex(at + 1) && hex(at + 2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_accept_what_upstream_accepts() {
        let cases = [
            ("date", "2006-01-02", "2006-13-02"),
            ("date-time", "2014-12-15T19:30:20.000Z", "2014-12-15"),
            ("uuid", "A987FBC9-4BED-3078-CF07-9141BA07C9F3", "a987fbc9-4bed-3078"),
            ("uuid3", "a987fbc9-4bed-3078-cf07-9141ba07c9f3", "a987fbc9-4bed-4078-cf07-9141ba07c9f3"),
            ("uuid4", "57b73598-8764-4ad0-a76a-679bb6640eb1", "57b73598-8764-1ad0-a76a-679bb6640eb1"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "::1", "1::2::3"),
            ("cidr", "10.0.0.0/8", "10.0.0.0"),
            ("mac", "01:02:03:04:05:06", "01:02:03:04:05"),
            ("hostname", "a.example.com", "-a"),
            ("email", "me@example.com", "me"),
            ("uri", "https://example.com/a?b=c", "example"),
            ("byte", "aGVsbG8=", "a"),
            ("duration", "1h30m", "1x"),
            ("isbn", "978-0321751041", "978-0321751042"),
            ("isbn10", "0321751043", "0321751044"),
            ("creditcard", "4111-1111-1111-1111", "1"),
            ("ssn", "111-11-1111", "1111"),
            ("hexcolor", "#FFFFFF", "#FFF0"),
            ("rgbcolor", "rgb(255, 0,1)", "rgb(256,0,1)"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
            ("k8s-short-name", "a-b", "A"),
            ("k8s-long-name", "a.b", "a..b"),
        ];
        for (format, good, bad) in cases {
            assert!(is_known("string", format), "{format}");
            assert!(accepts(format, good), "{format}: {good}");
            assert!(!accepts(format, bad), "{format}: {bad}");
        }
        assert!(accepts("unheard-of", "x") && !is_known("string", "unheard-of") && !is_known("object", "date"));
        assert!(is_known("integer", "int32") && is_known("number", "double") && !is_known("integer", "date"));
    }
}
