//! What is fuzzed: each target has a corpus of valid inputs and a function that must not panic.

mod agent;
mod api;
mod apply;
mod certificates;
mod custom;
mod dns;
mod request;
mod store;

/// One of them.
pub struct Target {
    /// On the command line.
    pub name: &'static str,
    /// In words.
    pub what: &'static str,
    /// Valid inputs.
    pub corpus: fn() -> Vec<Vec<u8>>,
    /// Takes any bytes.
    pub run: fn(&[u8]),
}

/// All targets.
pub fn all() -> Vec<Target> {
    [
        request::targets(),
        api::targets(),
        apply::targets(),
        custom::targets(),
        store::targets(),
        dns::targets(),
        certificates::targets(),
        agent::targets(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A corpus of texts.
fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::input;

    /// The long runs are `ops/test chaos fuzz`; this one runs each target once a gate.
    #[test]
    fn valid_inputs_and_some_mutations_end_no_target() {
        for target in all() {
            let corpus = (target.corpus)();
            assert!(!corpus.is_empty(), "{}: nothing to start from", target.name);
            for number in 0..corpus.len() as u64 + 200 {
                (target.run)(&input(&corpus, 1, number));
            }
        }
    }
}
