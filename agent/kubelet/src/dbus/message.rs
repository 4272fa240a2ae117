//! A message's header: its kind, its serial number, and the fields that say what it is about.

use std::io;

use super::body::Body;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const VERSION: u8 = 1;
const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_ERROR_NAME: u8 = 4;
const FIELD_REPLY_SERIAL: u8 = 5;
const FIELD_DESTINATION: u8 = 6;
const FIELD_SIGNATURE: u8 = 8;
/// What comes before the fields: the fixed part and the length of the fields.
pub(super) const FIXED_LEN: usize = 16;
/// Longer than any reply that a service manager sends us.
const MAX_LEN: usize = 1 << 20;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Return,
    Error,
    Other,
}

/// The fields that matter to a caller.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) reply_to: Option<u32>,
    pub(super) error_name: Option<String>,
    pub(super) signature: String,
}

/// How much follows the fixed part.
pub(super) struct Lengths {
    /// With the padding after them.
    pub(super) fields: usize,
    pub(super) body: usize,
}

/// A method call.
pub(super) fn call(serial: u32, destination: &str, path: &str, interface: &str, member: &str, body: &Body) -> Vec<u8> {
    compose(CALL, serial, body, |fields| {
        field(fields, FIELD_PATH, |v| v.variant_path(path));
        field(fields, FIELD_INTERFACE, |v| v.variant_string(interface));
        field(fields, FIELD_MEMBER, |v| v.variant_string(member));
        field(fields, FIELD_DESTINATION, |v| v.variant_string(destination));
    })
}

fn field(fields: &mut Body, code: u8, value: impl FnOnce(&mut Body)) {
    fields.structure(|f| {
        f.byte(code);
        value(f);
    });
}

fn compose(kind: u8, serial: u32, body: &Body, fields: impl FnOnce(&mut Body)) -> Vec<u8> {
    let mut header = Body::default();
    for byte in [b'l', kind, 0, VERSION] {
        header.byte(byte);
    }
    let length = u32::try_from(body.bytes().len()).unwrap_or(u32::MAX);
    for byte in length.to_le_bytes().into_iter().chain(serial.to_le_bytes()) {
        header.byte(byte);
    }
    header.array("a(yv)", |list| {
        fields(list);
        if !body.signature().is_empty() {
            field(list, FIELD_SIGNATURE, |v| v.variant_signature(body.signature()));
        }
    });
    let mut message = header.bytes().to_vec();
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend_from_slice(body.bytes());
    message
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("D-Bus message: {what}"))
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    let chunk = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or_else(|| invalid("cut off"))?;
    Ok(u32::from_le_bytes(*chunk))
}

/// How much of a message follows its fixed part.
pub(super) fn lengths(fixed: &[u8; FIXED_LEN]) -> io::Result<Lengths> {
    if fixed[0] != b'l' {
        return Err(invalid("not little-endian"));
    }
    let body = usize::try_from(u32_at(fixed, 4)?).map_err(|_| invalid("too long"))?;
    let fields = usize::try_from(u32_at(fixed, 12)?).map_err(|_| invalid("too long"))?;
    if body > MAX_LEN || fields > MAX_LEN {
        return Err(invalid("too long"));
    }
    Ok(Lengths { fields: fields.next_multiple_of(8), body })
}

impl Header {
    pub(super) fn parse(fixed: &[u8; FIXED_LEN], fields: &[u8]) -> io::Result<Header> {
        let kind = match fixed[1] {
            RETURN => Kind::Return,
            ERROR => Kind::Error,
            _ => Kind::Other,
        };
        let mut header = Header { kind, reply_to: None, error_name: None, signature: String::new() };
        // The fields begin at byte 16, so that alignment within them is alignment within the message.
        let end = usize::try_from(u32_at(fixed, 12)?).map_err(|_| invalid("too long"))?.min(fields.len());
        let mut at = 0;
        while at < end {
            let code = *fields.get(at).ok_or_else(|| invalid("cut off"))?;
            let (signature, after) = short_string(fields, at + 1)?;
            at = after;
            match signature.as_str() {
                "s" | "o" => {
                    at = at.next_multiple_of(4);
                    let length = usize::try_from(u32_at(fields, at)?).map_err(|_| invalid("too long"))?;
                    let text = fields.get(at + 4..).and_then(|rest| rest.get(..length)).ok_or_else(|| invalid("cut off"))?;
                    if code == FIELD_ERROR_NAME {
                        header.error_name = Some(String::from_utf8_lossy(text).into_owned());
                    }
                    at += 4 + length + 1;
                }
                "g" => {
                    let (text, after) = short_string(fields, at)?;
                    if code == FIELD_SIGNATURE {
                        header.signature = text;
                    }
                    at = after;
                }
                "u" => {
                    at = at.next_multiple_of(4);
                    if code == FIELD_REPLY_SERIAL {
                        header.reply_to = Some(u32_at(fields, at)?);
                    }
                    at += 4;
                }
                other => return Err(invalid(&format!("field of unknown type {other:?}"))),
            }
            at = at.next_multiple_of(8);
        }
        Ok(header)
    }
}

/// A signature: one byte of length, the text, a zero. Returns where it ends.
fn short_string(bytes: &[u8], at: usize) -> io::Result<(String, usize)> {
    let length = usize::from(*bytes.get(at).ok_or_else(|| invalid("cut off"))?);
    let text = bytes.get(at + 1..at + 1 + length).ok_or_else(|| invalid("cut off"))?;
    Ok((String::from_utf8_lossy(text).into_owned(), at + length + 2))
}

#[cfg(test)]
pub(super) fn error_reply(reply_to: u32, name: &str, text: &str) -> Vec<u8> {
    let mut body = Body::default();
    body.string(text);
    compose(ERROR, 100, &body, |fields| {
        field(fields, FIELD_ERROR_NAME, |v| v.variant_string(name));
        field(fields, FIELD_REPLY_SERIAL, |v| v.variant_u32(reply_to));
    })
}

#[cfg(test)]
pub(super) fn return_reply(reply_to: u32) -> Vec<u8> {
    compose(RETURN, 101, &Body::default(), |fields| field(fields, FIELD_REPLY_SERIAL, |v| v.variant_u32(reply_to)))
}
