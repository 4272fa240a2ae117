//! The query of a URL, parsed once.
//!
//! Owns how a query string is split and decoded, and which of several values of a name counts. Authentication, authorization,
//! admission and handlers all read this value, so that none of them can understand a request differently from the others (D15).
//! Answers to Go's `url.ParseQuery` and to upstream's conversion of `url.Values` (`apimachinery/pkg/runtime/conversion.go`): the
//! first value of a name counts, except where a parameter is a list.
//!
//! Pure, and total over every input: a target of fuzzing.

#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap)]

/// The decoded parameters of a query string, in the order in which they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    raw: String,
    pairs: Vec<(String, String)>,
}

impl Parameters {
    /// Parses a query string. A pair with an invalid escape or a semicolon is dropped, as Go drops it.
    pub fn parse(raw: &str) -> Parameters {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(name, true)?, unescape(value, true)?))
        });
        Parameters { pairs: pairs.collect(), raw: raw.to_owned() }
    }

    /// The query string as it was sent.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The first value of `name`, or the empty string.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All values of `name`, for parameters that are lists.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether `name` was sent at all.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A boolean parameter: absent is false, `false` and `0` are false, everything else is true.
    pub fn flag(&self, name: &str) -> bool {
        self.optional_flag(name).unwrap_or(false)
    }

    /// A boolean parameter that may be absent.
    pub fn optional_flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// An integer parameter: absent or empty is `None`.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, InvalidInteger> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| InvalidInteger(text.to_owned())),
        }
    }
}

/// A parameter that should be an integer and is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("strconv.ParseInt: parsing {0:?}: invalid syntax")]
pub struct InvalidInteger(String);

/// Undoes percent-encoding (and, in a query, `+` for a space). `None` if an escape is not followed by two hexadecimal digits. Bytes
/// that are no UTF-8 become U+FFFD, for every reader alike.
pub fn unescape(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    Some(String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Percent-encodes every byte that is neither an ASCII letter or digit nor one of `kept`.
pub fn escape(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_counts_and_malformed_pairs_are_dropped() {
        let query = Parameters::parse("a=1&a=2&b=%zz&c=x%20y+z&d&e=1;f=2&%61=3&=4");
        assert_eq!(query.get("a"), Some("1"));
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!((query.get("b"), query.get("c"), query.get("d"), query.get("e")), (None, Some("x y z"), Some(""), None));
        let flags = Parameters::parse("a=&b=0&c=FALSE&d=f&e=false&e=true");
        assert_eq!(["a", "b", "c", "d", "e", "x"].map(|name| flags.flag(name)), [true, false, false, true, false, false]);
        let numbers = Parameters::parse("a=9223372036854775807&b=9223372036854775808&c=&d=-1&e=1.5");
        assert_eq!(numbers.integer("a"), Ok(Some(i64::MAX)));
        assert!(numbers.integer("b").is_err() && numbers.integer("e").is_err());
        assert_eq!((numbers.integer("c"), numbers.integer("d"), numbers.integer("x")), (Ok(None), Ok(Some(-1)), Ok(None)));
    }

    #[test]
    fn escapes_are_decoded_once_or_refused() {
        assert_eq!(unescape("%2525", false).as_deref(), Some("%25"));
        assert_eq!(unescape("a+b", false).as_deref(), Some("a+b"));
        assert_eq!(unescape("%ff", false).as_deref(), Some("\u{fffd}"));
        for bad in ["%", "%2", "%2g", "%+1", "a%"] {
            assert_eq!(unescape(bad, false), None, "{bad}");
        }
        assert_eq!(escape("a/b c%é", b"/"), "a/b%20c%25%C3%A9");
        assert_eq!(unescape(&escape("a/b c%é+", b""), true).as_deref(), Some("a/b c%é+"));
    }
}
