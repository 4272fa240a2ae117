//! The disk below the data directory: room, and how long a sync takes. A server acknowledges a write when a majority has synced it.

use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use super::{Finding, Plan};

const SYNCS: usize = 40;
/// Of a disk that takes longer than this for each, enough was seen.
const PATIENCE: Duration = Duration::from_secs(5);
/// What etcd's documentation asks of a disk: 99 of 100 syncs within 10 ms.
const SLOW: Duration = Duration::from_millis(10);
const LEAST_BYTES: u64 = 2 << 30;

pub(super) fn look(plan: &Plan) -> Vec<Finding> {
    // The data directory may not exist yet, and a check creates nothing: its nearest existing parent is looked at.
    let Some(folder) = plan.data_dir.ancestors().find(|folder| folder.is_dir()) else { return Vec::new() };
    let mut findings = vec![room(folder)];
    if plan.server {
        findings.push(match syncs(folder) {
            Ok(times) => judge(folder, &times),
            Err(error) => Finding::fatal("disk speed", format!("{}: {error}", folder.display()), "choose another --data-dir"),
        });
    }
    findings
}

fn room(folder: &Path) -> Finding {
    let subject = "disk space";
    match nix::sys::statvfs::statvfs(folder) {
        Ok(stat) => {
            let free = stat.blocks_available().saturating_mul(stat.fragment_size());
            let found = format!("{} MiB free at {}", free >> 20, folder.display());
            if free < LEAST_BYTES {
                Finding::warning(subject, found, "make room: images and the store need some gigabytes")
            } else {
                Finding::fine(subject, found)
            }
        }
        Err(error) => Finding::warning(subject, format!("{}: {error}", folder.display()), "choose another --data-dir"),
    }
}

/// How long each of some small appended writes took to be synced, the shortest first.
fn syncs(folder: &Path) -> std::io::Result<Vec<Duration>> {
    let path = folder.join(format!(".trireme-check-host-{}", std::process::id()));
    let result = timed(&path);
    fs::remove_file(&path)?;
    result
}

fn timed(path: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    let (began, mut times) = (Instant::now(), Vec::new());
    while times.len() < SYNCS && began.elapsed() < PATIENCE {
        let start = Instant::now();
        file.write_all(&[0x5a; 2300])?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times)
}

fn judge(folder: &Path, times: &[Duration]) -> Finding {
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let found = format!("{} syncs at {}: median {:.1} ms, slowest {:.1} ms", times.len(), folder.display(), ms(at(50)), ms(at(100)));
    match at(95) > SLOW {
        false => Finding::fine("disk speed", found),
        true => Finding::warning(
            "disk speed",
            found,
            "put --data-dir on an SSD that syncs in a few milliseconds: each write of the cluster waits for it",
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_slow_disk_is_a_warning_and_the_test_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!syncs(folder.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(judge(folder.path(), &[Duration::from_millis(1); 40]).verdict, Verdict::Fine);
        assert_eq!(judge(folder.path(), &[Duration::from_millis(30); 40]).verdict, Verdict::Warning);
    }
}
