//! Figures in columns, with the peer's figure and the goal beside them.
//!
//! The peer is kube-apiserver 1.36 with etcd 3.6 on a machine of this kind (2 cores), measured with HTTP/1.1 and JSON. Rates of different
//! machines differ: its figures say where to look, and the goals are multiples of them.

/// A figure beside the peer's.
#[derive(Clone, Copy)]
pub struct Beside {
    /// What was measured here.
    pub ours: f64,
    /// The peer's figure, where there is one.
    pub peer: Option<f64>,
    /// How many times better than the peer it shall be.
    pub goal: f64,
    /// Whether more is better.
    pub more: bool,
}

impl Beside {
    /// Figure of the peer, how many times better ours is, and the goal: 21 columns.
    pub fn columns(&self) -> String {
        let Some(peer) = self.peer else { return format!("{:>7} {:>6} {:>6}", "-", "-", "-") };
        let (good, bad) = if self.more { (self.ours, peer) } else { (peer, self.ours) };
        let ratio = if bad > 0.0 { good / bad } else { 0.0 };
        format!("{:>7} {:>6} {:>6}", figure(peer), format!("{ratio:.1}x"), format!("{}x", self.goal))
    }
}

/// Three digits or more.
pub fn figure(value: f64) -> String {
    match value {
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_says_how_many_times_better() {
        let rate = Beside { ours: 600.0, peer: Some(200.0), goal: 5.0, more: true };
        assert_eq!(rate.columns(), "    200   3.0x     5x");
        let time = Beside { ours: 20.0, peer: Some(10.0), goal: 9.0, more: false };
        assert_eq!(time.columns(), "   10.0   0.5x     9x");
        assert_eq!(Beside { peer: None, ..time }.columns(), "      -      -      -");
    }
}
