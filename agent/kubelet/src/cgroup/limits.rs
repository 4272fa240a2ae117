//! What a cgroup may use, in the numbers of cgroup v1, and how those read in v2. Pure.

use crate::container::resources::CPU_PERIOD_US;

/// The limits of one cgroup. None leaves a value alone; [`Bound::None`] lifts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The relative weight, 2 to 262144.
    pub(crate) cpu_shares: Option<i64>,
    /// Microseconds of each period.
    pub(crate) cpu_quota_us: Option<Bound>,
    pub(crate) memory_bytes: Option<Bound>,
}

/// A value, or no bound at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    At(i64),
    None,
}

impl From<Option<i64>> for Bound {
    fn from(value: Option<i64>) -> Bound {
        value.map_or(Bound::None, Bound::At)
    }
}

/// The kernel's and upstream's formula from shares, 2..262144, to a weight, 1..10000.
pub(crate) fn weight(shares: i64) -> i64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9999) / 262_142
}

impl Limits {
    /// Files and values of cgroup v2.
    pub(crate) fn v2(&self) -> Vec<(&'static str, String)> {
        let mut files = Vec::new();
        if let Some(shares) = self.cpu_shares {
            files.push(("cpu.weight", weight(shares).to_string()));
        }
        match self.cpu_quota_us {
            Some(Bound::At(quota)) => files.push(("cpu.max", format!("{quota} {CPU_PERIOD_US}"))),
            Some(Bound::None) => files.push(("cpu.max", format!("max {CPU_PERIOD_US}"))),
            None => {}
        }
        match self.memory_bytes {
            Some(Bound::At(bytes)) => files.push(("memory.max", bytes.to_string())),
            Some(Bound::None) => files.push(("memory.max", "max".into())),
            None => {}
        }
        files
    }

    /// Controllers, files and values of cgroup v1.
    pub(crate) fn v1(&self) -> Vec<(&'static str, &'static str, String)> {
        let mut files = Vec::new();
        if let Some(shares) = self.cpu_shares {
            files.push(("cpu", "cpu.shares", shares.to_string()));
        }
        match self.cpu_quota_us {
            Some(Bound::At(quota)) => {
                files.push(("cpu", "cpu.cfs_period_us", CPU_PERIOD_US.to_string()));
                files.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
            }
            Some(Bound::None) => files.push(("cpu", "cpu.cfs_quota_us", "-1".into())),
            None => {}
        }
        match self.memory_bytes {
            Some(Bound::At(bytes)) => files.push(("memory", "memory.limit_in_bytes", bytes.to_string())),
            Some(Bound::None) => files.push(("memory", "memory.limit_in_bytes", "-1".into())),
            None => {}
        }
        files
    }

    /// Properties of a systemd unit.
    pub(crate) fn properties(&self, unified: bool) -> Vec<(&'static str, u64)> {
        let unsigned = |value: i64| u64::try_from(value).unwrap_or_default();
        let or_infinity = |bound: Bound| match bound {
            Bound::At(value) => unsigned(value),
            Bound::None => u64::MAX,
        };
        let mut properties = Vec::new();
        if let Some(shares) = self.cpu_shares {
            properties.push(if unified { ("CPUWeight", unsigned(weight(shares))) } else { ("CPUShares", unsigned(shares)) });
        }
        if let Some(quota) = self.cpu_quota_us {
            // Microseconds of each second; the period is ten to the second.
            let per_second = match quota {
                Bound::At(us) => unsigned(us).saturating_mul(1_000_000 / unsigned(CPU_PERIOD_US).max(1)),
                Bound::None => u64::MAX,
            };
            properties.push(("CPUQuotaPerSecUSec", per_second));
            properties.push(("CPUQuotaPeriodUSec", unsigned(CPU_PERIOD_US)));
        }
        if let Some(memory) = self.memory_bytes {
            properties.push((if unified { "MemoryMax" } else { "MemoryLimit" }, or_infinity(memory)));
        }
        properties
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d13_limits_in_the_words_of_each_generation() {
        let limits = Limits { cpu_shares: Some(1024), cpu_quota_us: Some(Bound::At(150_000)), memory_bytes: Some(Bound::At(64 << 20)) };
        assert_eq!(limits.v2(), [("cpu.weight", "39".into()), ("cpu.max", "150000 100000".into()), ("memory.max", "67108864".into())]);
        assert_eq!(
            limits.v1().iter().map(|(c, f, v)| format!("{c}/{f}={v}")).collect::<Vec<_>>().join(" "),
            "cpu/cpu.shares=1024 cpu/cpu.cfs_period_us=100000 cpu/cpu.cfs_quota_us=150000 memory/memory.limit_in_bytes=67108864"
        );
        assert_eq!(
            limits.properties(true),
            [("CPUWeight", 39), ("CPUQuotaPerSecUSec", 1_500_000), ("CPUQuotaPeriodUSec", 100_000), ("MemoryMax", 64 << 20)]
        );
        let lifted = Limits { cpu_shares: None, cpu_quota_us: Some(Bound::None), memory_bytes: Some(Bound::None) };
        assert_eq!(lifted.v2(), [("cpu.max", "max 100000".into()), ("memory.max", "max".into())]);
        assert_eq!(
            lifted.properties(false),
            [("CPUQuotaPerSecUSec", u64::MAX), ("CPUQuotaPeriodUSec", 100_000), ("MemoryLimit", u64::MAX)]
        );
        assert_eq!((weight(2), weight(262_144), weight(0)), (1, 10_000, 1));
    }
}
