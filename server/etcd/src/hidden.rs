//! Keys that clients of the etcd API can neither read nor write nor watch.

use std::sync::Arc;

use bytes::Bytes;

/// Ranges of keys, in order and apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HiddenKeys {
    ranges: Arc<[(Bytes, Bytes)]>,
}

/// How much of a range is hidden.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// Nothing.
    Clear,
    /// Some of it.
    Partly,
    /// All of it.
    Wholly,
}

/// Keys from `start` to, exclusively, `end`.
struct Span<'a> {
    start: &'a [u8],
    end: Option<Bytes>,
}

// === impl HiddenKeys ===

impl HiddenKeys {
    /// Nothing is hidden.
    #[must_use]
    pub fn none() -> HiddenKeys {
        HiddenKeys::default()
    }

    /// Hides these, each from its first key to, exclusively, its second.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = (Bytes, Bytes)>) -> HiddenKeys {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|(first, end)| first < end).collect();
        ranges.sort();
        HiddenKeys { ranges: ranges.into() }
    }

    pub(crate) fn ranges(&self) -> &[(Bytes, Bytes)] {
        &self.ranges
    }

    pub(crate) fn hides(&self, key: &[u8]) -> bool {
        self.ranges.iter().any(|(first, end)| key >= first.as_ref() && key < end.as_ref())
    }

    /// How much of `[key, range_end)` is hidden, by etcd's convention of range ends.
    pub(crate) fn reach(&self, key: &Bytes, range_end: &Bytes) -> Reach {
        let span = Span::new(key, range_end);
        if self.ranges.iter().any(|(first, end)| span.start >= first.as_ref() && span.end.as_ref().is_some_and(|last| last <= end)) {
            return Reach::Wholly;
        }
        match self.ranges.iter().any(|(first, end)| span.start < end.as_ref() && span.end.as_ref().is_none_or(|last| last > first)) {
            true => Reach::Partly,
            false => Reach::Clear,
        }
    }

    /// The parts of `[key, range_end)` that are not hidden, as pairs of key and range end.
    pub(crate) fn visible(&self, key: &Bytes, range_end: &Bytes) -> Vec<(Bytes, Bytes)> {
        if self.reach(key, range_end) == Reach::Clear {
            return vec![(key.clone(), range_end.clone())];
        }
        let last = Span::new(key, range_end).end;
        let mut start = key.clone();
        let mut visible = Vec::new();
        let below = |bound: &Bytes| last.as_ref().is_none_or(|last| bound < last);
        for (first, end) in self.ranges.iter() {
            if start < *first && below(&start) {
                let until = if below(first) { first.clone() } else { last.clone().unwrap_or_default() };
                visible.push((start.clone(), until));
            }
            start = start.max(end.clone());
        }
        if below(&start) {
            visible.push((start, last.clone().unwrap_or(Bytes::from_static(&[0]))));
        }
        visible
    }
}

// === impl Span ===

impl<'a> Span<'a> {
    fn new(key: &'a Bytes, range_end: &Bytes) -> Span<'a> {
        let end = match range_end.as_ref() {
            [] => Some([key.as_ref(), &[0]].concat().into()),
            [0] => None,
            _ => Some(range_end.clone()),
        };
        Span { start: key, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Ends = (&'static str, &'static str);

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn ranges_are_cut_where_keys_are_hidden() {
        let hidden = HiddenKeys::new([(bytes("h"), bytes("i")), (bytes("p"), bytes("q"))]);
        let cases: &[(&'static str, &'static str, Reach, &[Ends])] = &[
            ("a", "", Reach::Clear, &[("a", "")]),
            ("a", "h", Reach::Clear, &[("a", "h")]),
            ("i", "", Reach::Clear, &[("i", "")]),
            ("i", "p", Reach::Clear, &[("i", "p")]),
            ("q", "\0", Reach::Clear, &[("q", "\0")]),
            ("h", "", Reach::Wholly, &[]),
            ("h", "i", Reach::Wholly, &[]),
            ("ha", "hb", Reach::Wholly, &[]),
            ("a", "hb", Reach::Partly, &[("a", "h")]),
            ("hb", "k", Reach::Partly, &[("i", "k")]),
            ("a", "z", Reach::Partly, &[("a", "h"), ("i", "p"), ("q", "z")]),
            ("\0", "\0", Reach::Partly, &[("\0", "h"), ("i", "p"), ("q", "\0")]),
            ("h", "\0", Reach::Partly, &[("i", "p"), ("q", "\0")]),
        ];
        for (key, end, reach, visible) in cases {
            assert_eq!(hidden.reach(&bytes(key), &bytes(end)), *reach, "{key:?} {end:?}");
            let expected: Vec<_> = visible.iter().map(|(key, end)| (bytes(key), bytes(end))).collect();
            assert_eq!(hidden.visible(&bytes(key), &bytes(end)), expected, "{key:?} {end:?}");
        }
        assert!(hidden.hides(b"h\xff") && !hidden.hides(b"i") && !HiddenKeys::none().hides(b"h"));
    }
}
