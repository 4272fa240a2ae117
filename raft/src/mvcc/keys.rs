//! How the state machine's tables are keyed. Pure functions between keys and bytes.
//!
//! User keys are arbitrary bytes. Where a revision follows a key, the key is escaped so that bytes sort as
//! (key, revision) do: `00` becomes `00 ff`, and `00 01` ends the key. Revisions behind a key are stored
//! inverted: the newest comes first, and one seek finds the version that was valid at a revision.

use bytes::Bytes;

use crate::StoreError;

/// Keys of `[start, end)`; no end means to the last key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KeyRange {
    pub(crate) start: Bytes,
    pub(crate) end: Option<Bytes>,
}

impl KeyRange {
    /// From etcd's convention: an empty `range_end` is the one key, a zero byte is open-ended.
    pub(crate) fn new(key: &Bytes, range_end: &Bytes) -> KeyRange {
        let end = if range_end.is_empty() {
            let mut end = Vec::with_capacity(key.len() + 1);
            end.extend_from_slice(key);
            end.push(0);
            Some(Bytes::from(end))
        } else if range_end.as_ref() == [0] {
            None
        } else {
            Some(range_end.clone())
        };
        KeyRange { start: key.clone(), end }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_ref() && self.end.as_ref().is_none_or(|end| key < end.as_ref())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end <= &self.start)
    }

    /// The one key that the range holds, if its end says that it is one.
    pub(crate) fn single(&self) -> Option<&Bytes> {
        let end = self.end.as_ref()?;
        (end.len() == self.start.len() + 1 && end.ends_with(&[0]) && end.starts_with(&self.start)).then_some(&self.start)
    }

    /// What of it lies outside of `hidden`, in order. `hidden` is in order, and each of its ranges has an end.
    pub(crate) fn outside(self, hidden: &[(Bytes, Bytes)]) -> Vec<KeyRange> {
        let mut left = vec![self];
        for (first, end) in hidden {
            let Some(last) = left.pop() else { break };
            let before = match &last.end {
                Some(last_end) if last_end <= first => last_end.clone(),
                _ => first.clone(),
            };
            left.push(KeyRange { start: last.start.clone(), end: Some(before) });
            left.push(KeyRange { start: last.start.max(end.clone()), end: last.end });
        }
        left.retain(|range| !range.is_empty());
        left
    }

    /// The range of `(key, revision)` keys of these keys.
    pub(crate) fn versioned(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        (escape(&self.start), self.end.as_ref().map(|end| escape(end)))
    }
}

/// `key` so that escaped keys sort as keys do, also with something behind them. Unterminated.
fn escape(key: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(key.len() + 10);
    for &byte in key {
        escaped.push(byte);
        if byte == 0 {
            escaped.push(0xff);
        }
    }
    escaped
}

/// `key` at `revision`.
pub(crate) fn versioned_key(key: &[u8], revision: i64) -> Vec<u8> {
    let mut bytes = escape(key);
    bytes.extend_from_slice(&[0, 1]);
    bytes.extend_from_slice(&(!revision.cast_unsigned()).to_be_bytes());
    bytes
}

/// The first `(key, revision)` key behind all of `key`.
pub(crate) fn versioned_end(key: &[u8]) -> Vec<u8> {
    let mut bytes = escape(key);
    bytes.extend_from_slice(&[0, 2]);
    bytes
}

/// Key and revision of [`versioned_key`].
pub(crate) fn parse_versioned_key(bytes: &[u8]) -> Result<(Vec<u8>, i64), StoreError> {
    let damaged = || StoreError::Corrupt(format!("versioned key {} makes no sense", hex::encode(bytes)));
    let mut key = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied();
    loop {
        match rest.next().ok_or_else(damaged)? {
            0 => match rest.next().ok_or_else(damaged)? {
                0xff => key.push(0),
                1 => break,
                _ => return Err(damaged()),
            },
            byte => key.push(byte),
        }
    }
    let tail: Vec<u8> = rest.collect();
    let tail: [u8; 8] = tail.try_into().map_err(|_| damaged())?;
    Ok((key, (!u64::from_be_bytes(tail)).cast_signed()))
}

/// Place `ordinal` in the transaction of `revision`.
pub(crate) fn change_key(revision: i64, ordinal: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&revision.cast_unsigned().to_be_bytes());
    bytes[8..].copy_from_slice(&ordinal.to_be_bytes());
    bytes
}

/// Revision of a [`change_key`].
pub(crate) fn change_revision(bytes: &[u8]) -> Result<i64, StoreError> {
    match bytes.first_chunk::<8>() {
        Some(revision) if bytes.len() == 12 => Ok(u64::from_be_bytes(*revision).cast_signed()),
        _ => Err(StoreError::Corrupt(format!("change key {} makes no sense", hex::encode(bytes)))),
    }
}

/// Key of a lease.
pub(crate) fn lease_key(id: i64) -> [u8; 8] {
    id.cast_unsigned().to_be_bytes()
}

/// Key of the attachment of `key` to a lease.
pub(crate) fn attachment_key(lease: i64, key: &[u8]) -> Vec<u8> {
    let mut bytes = lease_key(lease).to_vec();
    bytes.extend_from_slice(key);
    bytes
}

/// The exclusive end of a lease's attachments; none for the last lease id.
pub(crate) fn attachment_end(lease: i64) -> Option<Vec<u8>> {
    lease.cast_unsigned().checked_add(1).map(|next| next.to_be_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        // Mostly the bytes that the escape treats specially.
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(0xfe), Just(0xff), any::<u8>()], 0..6)
    }

    proptest! {
        #[test]
        fn versioned_keys_sort_by_key_and_then_newest_first(a in key(), b in key(), r in 0i64..9, s in 0i64..9) {
            let order = (&a, std::cmp::Reverse(r)).cmp(&(&b, std::cmp::Reverse(s)));
            prop_assert_eq!(versioned_key(&a, r).cmp(&versioned_key(&b, s)), order);
            prop_assert_eq!(parse_versioned_key(&versioned_key(&a, r)).unwrap(), (a.clone(), r));
            prop_assert!(versioned_key(&a, 0) < versioned_end(&a));
            if a < b {
                prop_assert!(versioned_end(&a) <= versioned_key(&b, i64::MAX));
            }
        }

        #[test]
        fn outside_of_hidden_ranges_are_the_other_keys(a in key(), b in key(), c in key(), d in key(), open: bool, k in key()) {
            let mut edges = [c, d];
            edges.sort();
            let [first, end] = edges;
            let hidden = [(Bytes::from(first.clone()), Bytes::from(end.clone())), (Bytes::from_static(&[0xff, 2]), Bytes::from_static(&[0xff, 3]))];
            prop_assume!(hidden[0].1 <= hidden[1].0);
            let range = KeyRange { start: a.into(), end: (!open).then(|| b.into()) };
            let is_hidden = hidden.iter().any(|(first, end)| k.as_slice() >= first.as_ref() && k.as_slice() < end.as_ref());
            let left = range.clone().outside(&hidden);
            prop_assert_eq!(left.iter().filter(|left| left.contains(&k)).count(), usize::from(range.contains(&k) && !is_hidden));
            prop_assert!(left.is_sorted_by(|a, b| a.end.as_ref().is_some_and(|end| *end <= b.start)));
        }

        #[test]
        fn a_range_holds_the_same_keys_versioned(a in key(), b in key(), k in key(), r in 0i64..9) {
            let range = KeyRange { start: a.into(), end: Some(b.into()) };
            let (start, end) = range.versioned();
            let versioned = versioned_key(&k, r);
            prop_assert_eq!(versioned >= start && versioned < end.unwrap(), range.contains(&k));
        }
    }
}
