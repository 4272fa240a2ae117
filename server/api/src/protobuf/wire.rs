//! The wire format: tags, varints, length-delimited fields.
//!
//! <https://protobuf.dev/programming-guides/encoding/>

use super::ProtobufError;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const GROUP_START: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

/// The content of one field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
    /// A group: deprecated, never written and skipped on read.
    Group,
}

/// Reads the fields of a message one by one.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The next field: its number and content; None at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Item<'a>)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire) = self.tag()?;
        let item = match wire {
            GROUP_START => {
                self.skip_group()?;
                Item::Group
            }
            _ => self.item(number, wire)?,
        };
        Ok(Some((number, item)))
    }

    /// A number of a packed list; None at the end.
    pub(super) fn packed(&mut self) -> Result<Option<u64>, ProtobufError> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn tag(&mut self) -> Result<(u32, u8), ProtobufError> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n > 0).ok_or(ProtobufError::Tag(tag))?;
        Ok((number, (tag & 7) as u8))
    }

    fn item(&mut self, number: u32, wire: u8) -> Result<Item<'a>, ProtobufError> {
        Ok(match wire {
            VARINT => Item::Varint(self.varint()?),
            FIXED64 => {
                let bytes = self.take(8)?;
                Item::Fixed64(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
            }
            BYTES => {
                let len = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Truncated)?;
                Item::Bytes(self.take(len)?)
            }
            FIXED32 => {
                self.take(4)?;
                Item::Fixed32
            }
            _ => return Err(ProtobufError::Tag(u64::from(number) << 3 | u64::from(wire))),
        })
    }

    /// Skips to the end of a group, and of those within.
    fn skip_group(&mut self) -> Result<(), ProtobufError> {
        let mut depth = 1_usize;
        while depth > 0 {
            let (number, wire) = self.tag()?;
            match wire {
                GROUP_START => depth += 1,
                GROUP_END => depth -= 1,
                _ => {
                    self.item(number, wire)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0_u64;
        for (i, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { ProtobufError::Truncated } else { ProtobufError::Overflow })
    }
}

// === impl Item ===

impl<'a> Item<'a> {
    fn wire_type(self) -> u8 {
        match self {
            Item::Varint(_) => VARINT,
            Item::Fixed64(_) => FIXED64,
            Item::Bytes(_) => BYTES,
            Item::Fixed32 => FIXED32,
            Item::Group => GROUP_START,
        }
    }

    fn mismatch(self, field: &'static str) -> ProtobufError {
        ProtobufError::WireType { wire: self.wire_type(), field }
    }

    pub(super) fn bytes(self, field: &'static str) -> Result<&'a [u8], ProtobufError> {
        match self {
            Item::Bytes(bytes) => Ok(bytes),
            other => Err(other.mismatch(field)),
        }
    }

    /// Text; what is no UTF-8 in it is replaced, as Go's JSON encoder does it.
    pub(super) fn text(self, field: &'static str) -> Result<String, ProtobufError> {
        self.bytes(field).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    pub(super) fn varint(self, field: &'static str) -> Result<u64, ProtobufError> {
        match self {
            Item::Varint(value) => Ok(value),
            other => Err(other.mismatch(field)),
        }
    }

    pub(super) fn fixed64(self, field: &'static str) -> Result<u64, ProtobufError> {
        match self {
            Item::Fixed64(value) => Ok(value),
            other => Err(other.mismatch(field)),
        }
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a number.
pub(super) fn put_number(out: &mut Vec<u8>, field: u32, value: i64) {
    put_varint(out, u64::from(field) << 3 | u64::from(VARINT));
    put_varint(out, value.cast_unsigned());
}

/// Writes a floating-point number.
pub(super) fn put_double(out: &mut Vec<u8>, field: u32, value: f64) {
    put_varint(out, u64::from(field) << 3 | u64::from(FIXED64));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes text, bytes or a message.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_bytes_head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Writes what stands before `len` bytes of text, bytes or a message.
pub(super) fn put_bytes_head(out: &mut Vec<u8>, field: u32, len: usize) {
    put_varint(out, u64::from(field) << 3 | u64::from(BYTES));
    put_varint(out, len as u64);
}
