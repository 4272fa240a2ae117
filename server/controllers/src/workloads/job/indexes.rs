//! Sets of completion indexes, in the form of a Job's status: `1,3-5`. No I/O.
//!
//! Kept as ranges: an index set may be as large as a Job's completions, its text is not.

use std::fmt;

/// A set of indexes: ascending ranges, both ends included, that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads `1,3-5`; what is not such a text, or not below `completions`, is left out.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let mut ranges: Vec<(i32, i32)> = text
            .split(',')
            .filter_map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (first.parse::<i32>().ok()?, last.parse::<i32>().ok()?);
                let last = last.min(completions.saturating_sub(1));
                (first >= 0 && first <= last).then_some((first, last))
            })
            .collect();
        ranges.sort_unstable();
        Self(joined(ranges))
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(first, _)| *first <= index);
        at > 0 && self.0[at - 1].1 >= index
    }

    /// With these indexes too.
    pub(super) fn with(&self, more: impl IntoIterator<Item = i32>) -> Self {
        let mut ranges = self.0.clone();
        ranges.extend(more.into_iter().map(|index| (index, index)));
        ranges.sort_unstable();
        Self(joined(ranges))
    }

    pub(super) fn total(&self) -> i32 {
        let total: i64 = self.0.iter().map(|(first, last)| i64::from(*last) - i64::from(*first) + 1).sum();
        i32::try_from(total).unwrap_or(i32::MAX)
    }

    /// How many indexes are in both sets.
    pub(super) fn common(&self, other: &Self) -> i32 {
        let mut total: i64 = 0;
        for (first, last) in &self.0 {
            for (from, to) in &other.0 {
                total += (i64::from(*last.min(to)) - i64::from(*first.max(from)) + 1).max(0);
            }
        }
        i32::try_from(total).unwrap_or(i32::MAX)
    }

    /// The first indexes below `completions` that are not in the set and not refused.
    pub(super) fn first_missing(&self, completions: i32, count: usize, refused: impl Fn(i32) -> bool) -> Vec<i32> {
        let mut missing = Vec::new();
        let mut next = 0;
        let ends = self.0.iter().copied().chain([(completions, completions)]);
        for (first, last) in ends {
            while next < first.min(completions) {
                if missing.len() == count {
                    return missing;
                }
                if !refused(next) {
                    missing.push(next);
                }
                next += 1;
            }
            next = next.max(last.saturating_add(1));
        }
        missing
    }
}

fn joined(sorted: Vec<(i32, i32)>) -> Vec<(i32, i32)> {
    let mut ranges: Vec<(i32, i32)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match ranges.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => ranges.push((first, last)),
        }
    }
    ranges
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_read_and_write_as_upstream_has_them() {
        let set = Indexes::parse("1,3-5,9,x,7-2", 9);
        assert_eq!(set.to_string(), "1,3-5");
        assert_eq!((set.total(), set.contains(4), set.contains(2)), (4, true, false));
        assert_eq!(set.with([2, 7, 8, 8]).to_string(), "1-5,7,8");
        assert_eq!(set.first_missing(9, 3, |index| index == 2), [0, 6, 7]);
        assert_eq!(Indexes::default().first_missing(2, 9, |_| false), [0, 1]);
        assert_eq!(set.common(&Indexes::parse("4-8", 9)), 2);
        assert_eq!(Indexes::parse("0-2147483647", i32::MAX).total(), i32::MAX);
        assert_eq!(Indexes::parse("", 3), Indexes::default());
    }
}
