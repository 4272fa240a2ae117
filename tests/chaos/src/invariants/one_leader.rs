//! At most one leader a term (raft paper, figure 3: election safety).

use crate::history::History;
use crate::record::Record;

pub(super) fn check(history: &History, _record: &Record, broken: &mut dyn FnMut(String)) {
    for (term, leaders) in &history.leaders {
        if leaders.windows(2).any(|pair| pair[0] != pair[1]) {
            broken(format!("term {term} was led by {leaders:?}"));
        }
    }
}
