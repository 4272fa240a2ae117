//! Netlink attributes: length, type and payload, padded to four bytes.

/// Marks an attribute whose payload is attributes.
const NESTED: u16 = 0x8000;
const HEADER: usize = 4;

/// Attributes in the order in which they were put.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, kind: u16, payload: &[u8]) -> Self {
        self.put(kind, payload);
        self
    }

    /// Numbers are big-endian in all attributes of nftables.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn long(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Text ends with a zero.
    pub(super) fn text(self, kind: u16, text: &str) -> Self {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.extend(text.as_bytes());
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(super) fn nested(mut self, kind: u16, inner: &Attributes) -> Self {
        self.put(kind | NESTED, &inner.0);
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn put(&mut self, kind: u16, payload: &[u8]) {
        // Longer than any list that `Batch` builds: its caller refuses what does not fit before it comes here.
        let length = u16::try_from(HEADER + payload.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}
