//! Elements of sets and maps.

use std::{net::Ipv4Addr, str::FromStr};

use super::{
    attributes::Attributes,
    rule::{protocol, value, verdict},
};

const LIST_ELEMENT: u16 = 1;
const KEY: u16 = 1;
const DATA: u16 = 2;

/// A list with this element; `text` is a key (`10.42.0.7 . tcp . 80`), and in a map ` : ` and a verdict, or a value in the form of a key. None: a
/// form that is not known here.
pub(super) fn list(text: &str) -> Option<Attributes> {
    let (key, data) = match text.split_once(" : ") {
        Some((key, data)) => (key, Some(data)),
        None => (text, None),
    };
    let mut element = Attributes::default().nested(KEY, &value(&encoded(key)?));
    if let Some(data) = data {
        let words: Vec<&str> = data.split_whitespace().collect();
        element = element.nested(DATA, &verdict(&words).or_else(|| Some(value(&encoded(data)?)))?);
    }
    Some(Attributes::default().nested(LIST_ELEMENT, &element))
}

/// The key's bytes. Each part of a key of several is padded to four.
fn encoded(key: &str) -> Option<Vec<u8>> {
    let parts: Vec<Vec<u8>> = key.split(" . ").map(part).collect::<Option<_>>()?;
    match parts.as_slice() {
        [single] => Some(single.clone()),
        several => Some(several.iter().flat_map(|part| part.iter().copied().chain([0; 4]).take(4)).collect()),
    }
}

/// An address, a protocol, a port, or, with the prefix `0x`, a number of four bytes.
fn part(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    if let Ok(address) = Ipv4Addr::from_str(text) {
        return Some(address.octets().to_vec());
    }
    if let Some(number) = protocol(text) {
        return Some(vec![number]);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u32::from_str_radix(digits, 16).ok().map(|number| number.to_ne_bytes().to_vec());
    }
    u16::from_str(text).ok().map(|port| port.to_be_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_of_several_parts_are_padded() {
        assert_eq!(encoded("10.43.0.9").unwrap(), [10, 43, 0, 9]);
        assert_eq!(encoded("10.43.0.9 . tcp . 80").unwrap(), [10, 43, 0, 9, 6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(encoded("10.43.0.9 . 80 . 0x1f").unwrap()[8..], 31_u32.to_ne_bytes());
        for unknown in [
            "10.0.0.0/8",
            "10.0.0.1-10.0.0.9",
            "fd00::1",
            "10.0.0.1 . icmp",
            "65536",
            "",
            "0x",
            "0x1ffffffff",
            "-0x1",
            "10.0.0.1 timeout 5s",
        ] {
            assert_eq!(encoded(unknown), None, "{unknown}");
        }
    }
}
