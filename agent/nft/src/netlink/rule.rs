//! A rule in the words of nft, as the expressions that the kernel runs.
//!
//! Only the forms that rules of Services and policies have; anything else is none. A value is loaded into a register, then compared or
//! looked up; the first expression that does not match ends the rule.

use std::{net::Ipv4Addr, str::FromStr};

use super::attributes::Attributes;

/// Attribute types: of an element of a list, of an expression, of data and of a verdict.
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// Verdicts (`NF_*`, `NFT_*`).
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const JUMP: u32 = (-3_i32).cast_unsigned();
const GOTO: u32 = (-4_i32).cast_unsigned();

/// Registers: the verdict, two of 16 bytes, and the words of the first of them after its first.
const VERDICT: u32 = 0;
const FIRST: u32 = 1;
const SECOND: u32 = 2;
const SECOND_WORD: u32 = 9;
const THIRD_WORD: u32 = 10;

/// Where a payload's offset is counted from (`NFT_PAYLOAD_*`).
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const SOURCE_ADDRESS: u32 = 12;
const DESTINATION_ADDRESS: u32 = 16;
const DESTINATION_PORT: u32 = 2;

/// `NFT_META_L4PROTO`.
const L4_PROTOCOL: u32 = 16;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;
/// `NFPROTO_IPV4`.
const IPV4: u32 = 2;

/// How a register is compared (`NFT_CMP_*`).
#[derive(Debug, Clone, Copy)]
enum Compare {
    Equal = 0,
    Unequal = 1,
    Less = 2,
    AtMost = 3,
    AtLeast = 5,
}

/// The rule's expressions, as the list that a message holds. None: it has a form that is not known here.
pub(super) fn expressions(rule: &str) -> Option<Attributes> {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let mut encoder = Encoder::default();
    let mut rest = words.as_slice();
    while !rest.is_empty() {
        rest = encoder.take(rest)?;
    }
    Some(encoder.list)
}

/// A verdict as data: `goto x`, `jump x`, `accept` or `drop`.
pub(super) fn verdict(words: &[&str]) -> Option<Attributes> {
    let inner = match words {
        ["accept"] => Attributes::default().number(VERDICT_CODE, ACCEPT),
        ["drop"] => Attributes::default().number(VERDICT_CODE, DROP),
        ["jump", chain] => Attributes::default().number(VERDICT_CODE, JUMP).text(VERDICT_CHAIN, chain),
        ["goto", chain] => Attributes::default().number(VERDICT_CODE, GOTO).text(VERDICT_CHAIN, chain),
        _ => return None,
    };
    Some(Attributes::default().nested(DATA_VERDICT, &inner))
}

/// A value as data.
pub(super) fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(DATA_VALUE, bytes)
}

/// The number of a protocol (`IPPROTO_*`).
pub(super) fn protocol(name: &str) -> Option<u8> {
    match name {
        "tcp" => Some(6),
        "udp" => Some(17),
        "sctp" => Some(132),
        _ => None,
    }
}

#[derive(Debug, Default)]
struct Encoder {
    list: Attributes,
}

impl Encoder {
    /// Encodes the first match or statement; returns the words after it.
    fn take<'a, 'b>(&mut self, words: &'a [&'b str]) -> Option<&'a [&'b str]> {
        match words {
            ["accept" | "drop", ..] => self.end(&words[..1], &words[1..]),
            ["jump" | "goto", _, ..] => self.end(&words[..2], &words[2..]),
            ["ip", "daddr", ".", "meta", "l4proto", ".", "th", "dport", rest @ ..] => {
                self.payload(NETWORK, DESTINATION_ADDRESS, 4, FIRST);
                self.meta_protocol(SECOND_WORD);
                self.payload(TRANSPORT, DESTINATION_PORT, 2, THIRD_WORD);
                self.look_up(rest)
            }
            ["ip", "saddr", rest @ ..] => self.address(SOURCE_ADDRESS, rest),
            ["ip", "daddr", rest @ ..] => self.address(DESTINATION_ADDRESS, rest),
            ["meta", "l4proto", name, rest @ ..] => {
                self.protocol(name)?;
                Some(rest)
            }
            [name @ ("tcp" | "udp" | "sctp"), "dport", ports, rest @ ..] => {
                self.protocol(name)?;
                self.ports(ports)?;
                Some(rest)
            }
            ["fib", "saddr", "type", "local", rest @ ..] => {
                let (result, source) = (3, 1);
                self.push("fib", &Attributes::default().number(1, FIRST).number(2, result).number(3, source));
                self.compare(Compare::Equal, &LOCAL.to_ne_bytes());
                Some(rest)
            }
            ["numgen", "random", "mod", modulus, "==", wanted, rest @ ..] => {
                self.random(modulus, FIRST)?;
                self.compare(Compare::Equal, &u32::from_str(wanted).ok()?.to_ne_bytes());
                Some(rest)
            }
            ["numgen", "random", "mod", modulus, "<", bound, rest @ ..] => {
                self.random(modulus, FIRST)?;
                // Greater and less compare byte by byte, the first one first.
                let (to_network, length, size) = (1, 4, 4);
                let inner = Attributes::default().number(1, FIRST).number(2, FIRST).number(3, to_network).number(4, length).number(5, size);
                self.push("byteorder", &inner);
                self.compare(Compare::Less, &u32::from_str(bound).ok()?.to_be_bytes());
                Some(rest)
            }
            ["update", set, "{", "ip", "saddr", "}", rest @ ..] => {
                self.payload(NETWORK, SOURCE_ADDRESS, 4, FIRST);
                let update = 1;
                let inner = Attributes::default().text(1, set.strip_prefix('@')?).number(3, update).number(4, FIRST);
                self.push("dynset", &inner);
                Some(rest)
            }
            ["dnat", "ip", "to", rest @ ..] => self.translate_by_map(rest),
            ["dnat", "to", target, rest @ ..] => {
                self.translate(target)?;
                Some(rest)
            }
            _ => None,
        }
    }

    fn end<'a, 'b>(&mut self, words: &[&str], rest: &'a [&'b str]) -> Option<&'a [&'b str]> {
        let inner = Attributes::default().number(1, VERDICT).nested(2, &verdict(words)?);
        self.push("immediate", &inner);
        Some(rest)
    }

    /// What follows the name of an address field.
    fn address<'a, 'b>(&mut self, offset: u32, words: &'a [&'b str]) -> Option<&'a [&'b str]> {
        self.payload(NETWORK, offset, 4, FIRST);
        match words {
            ["vmap", ..] => self.look_up(words),
            [set, ..] if set.starts_with('@') => self.look_up(words),
            ["!=", network, rest @ ..] => self.network(Compare::Unequal, network).map(|()| rest),
            [network, rest @ ..] => self.network(Compare::Equal, network).map(|()| rest),
            [] => None,
        }
    }

    fn network(&mut self, compare: Compare, text: &str) -> Option<()> {
        let (address, length) = match text.split_once('/') {
            None => (Ipv4Addr::from_str(text).ok()?, 32),
            Some((address, length)) => (Ipv4Addr::from_str(address).ok()?, u32::from_str(length).ok().filter(|l| (1..=32).contains(l))?),
        };
        let mask = u32::MAX << (32 - length);
        if length < 32 {
            let inner = Attributes::default().number(1, FIRST).number(2, FIRST).number(3, 4);
            let inner = inner.nested(4, &value(&mask.to_be_bytes())).nested(5, &value(&[0; 4]));
            self.push("bitwise", &inner);
        }
        self.compare(compare, &(u32::from(address) & mask).to_be_bytes());
        Some(())
    }

    /// A set, or a map whose verdict ends the rule.
    fn look_up<'a, 'b>(&mut self, words: &'a [&'b str]) -> Option<&'a [&'b str]> {
        let (name, rest, is_map) = match words {
            ["vmap", map, rest @ ..] => (map, rest, true),
            [set, rest @ ..] => (set, rest, false),
            [] => return None,
        };
        let mut inner = Attributes::default().text(1, name.strip_prefix('@')?).number(2, FIRST);
        if is_map {
            inner = inner.number(3, VERDICT);
        }
        self.push("lookup", &inner);
        Some(rest)
    }

    fn protocol(&mut self, name: &str) -> Option<()> {
        self.meta_protocol(FIRST);
        self.compare(Compare::Equal, &[protocol(name)?]);
        Some(())
    }

    fn ports(&mut self, text: &str) -> Option<()> {
        self.payload(TRANSPORT, DESTINATION_PORT, 2, FIRST);
        match text.split_once('-') {
            None => self.compare(Compare::Equal, &u16::from_str(text).ok()?.to_be_bytes()),
            Some((first, last)) => {
                let (first, last) = (u16::from_str(first).ok()?, u16::from_str(last).ok()?);
                self.compare(Compare::AtLeast, &first.to_be_bytes());
                self.compare(Compare::AtMost, &last.to_be_bytes());
            }
        }
        Some(())
    }

    /// Loads a number below the modulus.
    fn random(&mut self, modulus: &str, register: u32) -> Option<()> {
        let (modulus, random, offset) = (u32::from_str(modulus).ok().filter(|m| *m > 0)?, 1, 0);
        self.push("numgen", &Attributes::default().number(1, register).number(2, modulus).number(3, random).number(4, offset));
        Some(())
    }

    fn translate(&mut self, target: &str) -> Option<()> {
        let (address, port) = target.split_once(':')?;
        let (address, port) = (Ipv4Addr::from_str(address).ok()?, u16::from_str(port).ok()?);
        for (register, bytes) in [(FIRST, address.octets().to_vec()), (SECOND, port.to_be_bytes().to_vec())] {
            self.push("immediate", &Attributes::default().number(1, register).nested(2, &value(&bytes)));
        }
        let destination = 1;
        self.push("nat", &Attributes::default().number(1, destination).number(2, IPV4).number(3, FIRST).number(5, SECOND));
        Some(())
    }

    /// To the address and port that a map has for what is asked for and a number. The rule has matched the protocol.
    fn translate_by_map<'a, 'b>(&mut self, words: &'a [&'b str]) -> Option<&'a [&'b str]> {
        let (words, by_address) = match words {
            ["ip", "daddr", ".", words @ ..] => (words, true),
            words => (words, false),
        };
        let ["tcp" | "udp" | "sctp", "dport", ".", "numgen", "random", "mod", modulus, "map", map, rest @ ..] = words else { return None };
        let mut registers = [FIRST, SECOND_WORD, THIRD_WORD].into_iter();
        if by_address {
            self.payload(NETWORK, DESTINATION_ADDRESS, 4, registers.next()?);
        }
        self.payload(TRANSPORT, DESTINATION_PORT, 2, registers.next()?);
        self.random(modulus, registers.next()?)?;
        self.push("lookup", &Attributes::default().text(1, map.strip_prefix('@')?).number(2, FIRST).number(3, FIRST));
        let destination = 1;
        self.push("nat", &Attributes::default().number(1, destination).number(2, IPV4).number(3, FIRST).number(5, SECOND_WORD));
        Some(rest)
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.push("payload", &Attributes::default().number(1, register).number(2, base).number(3, offset).number(4, length));
    }

    fn meta_protocol(&mut self, register: u32) {
        self.push("meta", &Attributes::default().number(1, register).number(2, L4_PROTOCOL));
    }

    fn compare(&mut self, how: Compare, bytes: &[u8]) {
        self.push("cmp", &Attributes::default().number(1, FIRST).number(2, how as u32).nested(3, &value(bytes)));
    }

    fn push(&mut self, name: &str, data: &Attributes) {
        let expression = Attributes::default().text(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, data);
        self.list = std::mem::take(&mut self.list).nested(LIST_ELEMENT, &expression);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_are_not_known_are_left_to_nft() {
        for rule in [
            "counter accept",
            "ip saddr 10.0.0.1 . tcp accept",
            "ip saddr { 10.0.0.1 } accept",
            "ip saddr 10.0.0.0/33 accept",
            "ip saddr 10.0.0.0/0 accept",
            "ip saddr != @set accept",
            "ip saddr",
            "tcp dport 65536 accept",
            "tcp sport 1 accept",
            "numgen random mod 0 == 0 accept",
            "numgen random mod 9 vmap { 0 : accept }",
            "dnat to 10.0.0.1",
            "dnat ip to ip daddr map @m",
            "dnat ip to tcp dport . numgen inc mod 2 map @m",
            "update set { ip saddr }",
            "jump",
            "reject",
        ] {
            assert_eq!(expressions(rule), None, "{rule}");
        }
    }
}
