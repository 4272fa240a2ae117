//! The clock: certificates count by it.

use std::path::Path;

use super::finding::Finding;

const SUBJECT: &str = "clock";
/// A time before every release.
const EARLIEST: i64 = 1_767_225_600;
/// Made by systemd-timesyncd once it is in step.
const IN_STEP: &str = "/run/systemd/timesync/synchronized";
const SERVICES: [&str; 4] = ["chronyd", "ntpd", "systemd-timesyn", "ntpsec"];

pub(super) fn look() -> Finding {
    let now = jiff::Timestamp::now();
    let shown = format!("{} UTC", now.strftime("%Y-%m-%d %H:%M"));
    if now.as_second() < EARLIEST {
        return Finding::fatal(SUBJECT, format!("{shown}: in the past"), "set it, and install chrony");
    }
    if Path::new(IN_STEP).exists() || is_a_service_running() {
        return Finding::fine(SUBJECT, format!("{shown}, kept by a time service"));
    }
    Finding::warning(
        SUBJECT,
        format!("{shown}; no time service runs here"),
        "apt-get install chrony, unless the hypervisor keeps the clock",
    )
}

fn is_a_service_running() -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok()).any(|name| SERVICES.contains(&name.trim()))
}
