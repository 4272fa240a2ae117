//! Inputs out of a corpus: each follows from seed and number alone.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Longer inputs are cut: what matters here is structure, and limits on size have tests of their own.
const MAX_BYTES: usize = 64 << 10;

/// Pieces that parsers stumble over.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"%00",
    b"%2f",
    b"%",
    b"..",
    b"/",
    b"//",
    b"&",
    b"=",
    b"~1",
    b"-1",
    b"0",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551616",
    b"1e400",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b"[[[[[[[[",
    b"{\"a\":",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\xf0\x9f\x92\xa9",
    b"&a [*a,*a]",
    b"*a",
    b"<<:",
    b"$patch",
    b"$retainKeys",
    b"$deleteFromPrimitiveList/",
    b"in (",
    b"notin",
    b"!=",
    b"==",
    b",,",
    b"!",
    b"metadata",
    b"name",
    b"/status",
    b"/-",
    b"k8s\0",
];

/// Input number `number` of `seed`.
pub fn input(corpus: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number));
    let mut bytes = corpus.choose(&mut rng).cloned().unwrap_or_default();
    // The first inputs are the corpus itself: valid ones must pass too.
    if let Some(valid) = corpus.get(usize::try_from(number).unwrap_or(usize::MAX)) {
        return valid.clone();
    }
    for _ in 0..rng.random_range(1..=8) {
        mutate(&mut bytes, corpus, &mut rng);
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut StdRng) {
    let at = rng.random_range(0..=bytes.len());
    match rng.random_range(0..9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = rng.random(),
        2 => bytes.insert(at, rng.random()),
        3 => {
            let end = (at + rng.random_range(1..=16)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => bytes.truncate(at),
        5 => {
            let token = TOKENS.choose(rng).copied().unwrap_or_default();
            bytes.splice(at..at, token.iter().copied());
        }
        // A piece many times: depth, and lengths that add up.
        6 => {
            let end = (at + rng.random_range(1..=32)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let times = if rng.random_ratio(1, 20) { 4096 } else { rng.random_range(1..=8) };
            if piece.len() * times <= MAX_BYTES {
                bytes.splice(at..at, piece.repeat(times));
            }
        }
        7 => {
            let other = corpus.choose(rng).map_or(&[][..], Vec::as_slice);
            let from = rng.random_range(0..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            let token = TOKENS.choose(rng).copied().unwrap_or_default();
            let end = (at + token.len()).min(bytes.len());
            bytes.splice(at..end, token.iter().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_follows_from_seed_and_number() {
        let corpus = vec![b"one".to_vec(), b"{\"two\":[2]}".to_vec()];
        assert_eq!(input(&corpus, 7, 1), b"{\"two\":[2]}");
        let of = |seed| (2..200).map(|number| input(&corpus, seed, number)).collect::<Vec<_>>();
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        assert!(of(7).iter().all(|bytes| bytes.len() <= MAX_BYTES));
    }
}
