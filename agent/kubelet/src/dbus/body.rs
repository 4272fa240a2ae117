//! Marshalling of a message's arguments: little-endian, each value aligned to its size.

/// Arguments of a call, with their signature.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    signature: String,
    /// Inside an array or structure, whose signature is already written.
    depth: usize,
}

impl Body {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn signature(&self) -> &str {
        &self.signature
    }

    fn sign(&mut self, signature: &str) {
        if self.depth == 0 {
            self.signature.push_str(signature);
        }
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn raw_string(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    pub(super) fn raw_signature(&mut self, signature: &str) {
        self.bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend_from_slice(signature.as_bytes());
        self.bytes.push(0);
    }

    pub(crate) fn string(&mut self, text: &str) {
        self.sign("s");
        self.raw_string(text);
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.sign("b");
        self.u32(u32::from(value));
    }

    /// An array of structures; `signature` is the array's.
    pub(crate) fn array(&mut self, signature: &str, items: impl FnOnce(&mut Body)) {
        self.sign(signature);
        self.depth += 1;
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        // Structures are aligned to 8; this padding does not count.
        self.align(8);
        let start = self.bytes.len();
        items(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        self.depth -= 1;
    }

    /// A structure inside an array.
    pub(crate) fn structure(&mut self, fields: impl FnOnce(&mut Body)) {
        self.align(8);
        self.depth += 1;
        fields(self);
        self.depth -= 1;
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.sign("y");
        self.bytes.push(value);
    }

    pub(crate) fn variant_string(&mut self, text: &str) {
        self.raw_signature("s");
        self.raw_string(text);
    }

    /// An object path.
    pub(super) fn variant_path(&mut self, path: &str) {
        self.raw_signature("o");
        self.raw_string(path);
    }

    /// A signature as a value.
    pub(super) fn variant_signature(&mut self, signature: &str) {
        self.raw_signature("g");
        self.raw_signature(signature);
    }

    #[cfg(test)]
    pub(super) fn variant_u32(&mut self, value: u32) {
        self.raw_signature("u");
        self.u32(value);
    }

    pub(crate) fn variant_boolean(&mut self, value: bool) {
        self.raw_signature("b");
        self.u32(u32::from(value));
    }

    pub(crate) fn variant_u64(&mut self, value: u64) {
        self.raw_signature("t");
        self.align(8);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn variant_strings(&mut self, texts: &[String]) {
        self.raw_signature("as");
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        let start = self.bytes.len();
        for text in texts {
            self.raw_string(text);
        }
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// The string at the beginning of a body.
pub(crate) fn first_string(body: &[u8]) -> Option<String> {
    let length = usize::try_from(u32::from_le_bytes(*body.first_chunk()?)).ok()?;
    Some(String::from_utf8_lossy(body.get(4..length.checked_add(4)?)?).into_owned())
}

/// The string in the variant at the beginning of a body.
pub(crate) fn first_variant_string(body: &[u8]) -> Option<String> {
    (body.get(..3)? == b"\x01s\0").then(|| first_string(body.get(4..)?)).flatten()
}
