//! Elements of sets and maps.

use std::{net::Ipv4Addr, str::FromStr};

use super::{
    attributes::Attributes,
    rule::{protocol, value, verdict},
};

const LIST_ELEMENT: u16 = 1;
const KEY: u16 = 1;
const DATA: u16 = 2;

/// A list with this element; `text` is a key (`10.42.0.7 . tcp . 80`), and in a map ` : ` and a verdict. None: a form that is not known here.
pub(super) fn list(text: &str) -> Option<Attributes> {
    let (key, data) = match text.split_once(" : ") {
        Some((key, data)) => (key, Some(data)),
        None => (text, None),
    };
    let mut element = Attributes::default().nested(KEY, &value(&encoded(key)?));
    if let Some(data) = data {
        element = element.nested(DATA, &verdict(&data.split_whitespace().collect::<Vec<_>>())?);
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

/// An address, a protocol or a port.
fn part(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    if let Ok(address) = Ipv4Addr::from_str(text) {
        return Some(address.octets().to_vec());
    }
    if let Some(number) = protocol(text) {
        return Some(vec![number]);
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
        for unknown in ["10.0.0.0/8", "10.0.0.1-10.0.0.9", "fd00::1", "10.0.0.1 . icmp", "65536", "", "10.0.0.1 timeout 5s"] {
            assert_eq!(encoded(unknown), None, "{unknown}");
        }
    }
}
