//! Shuffle sharding: the few queues of a level among which the requests of one flow are spread.
//!
//! Owns the hand of a flow: a function of its hash alone. Two flows rarely have the same hand, so a flow that fills its queues leaves
//! nearly every other flow a queue that is not full. KEP-1040, "Shuffle Sharding".

/// The largest hand: what 60 bits of a hash can tell apart (20! needs 62).
pub const HAND_MAX: u32 = 19;

/// The queues of a flow, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hand {
    cards: [u32; HAND_MAX as usize],
    size: usize,
}

impl Hand {
    /// Deals `size` of `queues` queues. There is at least one card unless there are no queues.
    pub fn deal(mut hash: u64, queues: u32, size: u32) -> Hand {
        let size = size.clamp(1, HAND_MAX).min(queues);
        let mut hand = Hand { cards: [0; HAND_MAX as usize], size: 0 };
        for dealt in 0..size {
            // `left` is at least 1: fewer cards are dealt than there are queues.
            let left = u64::from(queues.saturating_sub(dealt));
            let number = u32::try_from(hash % left).unwrap_or(0);
            hash /= left;
            hand.add(number);
        }
        hand
    }

    /// Adds the card of this number among those that were not dealt yet.
    fn add(&mut self, number: u32) {
        let mut sorted = self.cards;
        let sorted = &mut sorted[..self.size];
        sorted.sort_unstable();
        let card = sorted.iter().fold(number, |card, taken| if card >= *taken { card.saturating_add(1) } else { card });
        self.cards[self.size] = card;
        self.size += 1;
    }

    /// The queues.
    pub fn cards(&self) -> &[u32] {
        &self.cards[..self.size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn a_hand_has_different_queues_and_all_queues_are_dealt_as_often() {
        let mut dealt: BTreeMap<u32, u32> = BTreeMap::new();
        for flow in 0..20_000_u64 {
            let hand = Hand::deal(flow.wrapping_mul(0x9E37_79B9_7F4A_7C15), 64, 6);
            let different: BTreeSet<u32> = hand.cards().iter().copied().collect();
            assert_eq!((different.len(), hand.cards().len()), (6, 6), "{hand:?}");
            assert!(different.iter().all(|card| *card < 64), "{hand:?}");
            hand.cards().iter().for_each(|card| *dealt.entry(*card).or_default() += 1);
        }
        let (least, most) = (dealt.values().min().unwrap(), dealt.values().max().unwrap());
        assert!(dealt.len() == 64 && *least > 1600 && *most < 2200, "{least} to {most} of 1875");
    }

    #[test]
    fn no_shape_is_too_much() {
        for (queues, size) in [(0, 0), (0, 5), (1, 0), (1, 9), (3, 3), (u32::MAX, u32::MAX)] {
            let hand = Hand::deal(u64::MAX, queues, size);
            assert!(hand.cards().iter().all(|card| *card < queues), "{queues} {size}");
            assert_eq!(hand.cards().is_empty(), queues == 0);
        }
    }
}
