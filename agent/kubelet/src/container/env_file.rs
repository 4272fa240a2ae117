//! Variables from a file in a volume (`fileKeyRef`).
//!
//! The file is a tenant's: it is opened beneath its volume, must be a regular file, and is read up to a limit. The format is the subset
//! of a shell's that upstream reads: `NAME='value'`, values over several lines, comments.
//!
//! Answers to
//! <https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-via-file/> and upstream's
//! `pkg/kubelet/util/env`.

use std::{fs::File, io::Read, path::Path};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};

use crate::error::{Error, Result};

/// The most bytes of a file that are read.
const MAX_BYTES: u64 = 1 << 20;
const BLANK: [char; 2] = [' ', '\t'];

/// The value of a key in a file of a volume. None if the file does not exist, or has no value for the key.
pub(crate) fn value(volume: &Path, path: &str, key: &str) -> Result<Option<String>> {
    let Some(text) = read(volume, path)? else { return Ok(None) };
    find(&text, key).map_err(|reason| Error::Config(format!("couldn't parse env file {path:?}: {reason}")))
}

fn read(volume: &Path, path: &str) -> Result<Option<String>> {
    let failed = |reason: &str| Error::Config(format!("couldn't read env file {path:?}: {reason}"));
    let root = open(volume, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).map_err(|e| failed(e.desc()))?;
    // A pipe would block until somebody writes.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(&root, path, how) {
        Ok(file) => File::from(file),
        Err(nix::Error::ENOENT) => return Ok(None),
        Err(e) => return Err(failed(e.desc())),
    };
    let metadata = file.metadata().map_err(|e| failed(&e.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| failed(&e.to_string()))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(failed(&format!("larger than {MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| failed("not UTF-8"))
}

/// The value of the first assignment to the key. Lines behind it are not looked at.
fn find(text: &str, key: &str) -> std::result::Result<Option<String>, String> {
    let mut lines = text.lines().zip(1_u64..);
    while let Some((line, number)) = lines.next() {
        let line = line.trim_start_matches(BLANK);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, assigned) = line.split_once('=').ok_or_else(|| format!("line {number}: missing '='"))?;
        if name.is_empty() || name.ends_with(BLANK) {
            return Err(format!("line {number}: no variable name directly before '='"));
        }
        // As a shell reads it: the variable is empty, and a command follows.
        if assigned.starts_with(BLANK) {
            if name == key {
                return Ok(None);
            }
            continue;
        }
        let mut rest = assigned.strip_prefix('\'').ok_or_else(|| format!("line {number}: the value must be enclosed in single quotes"))?;
        let mut value = String::new();
        let after = loop {
            if let Some((last, after)) = rest.split_once('\'') {
                value.push_str(last);
                break after;
            }
            value.push_str(rest);
            value.push('\n');
            rest = lines.next().ok_or_else(|| format!("line {number}: unclosed single quote"))?.0;
        };
        let after = after.trim_start_matches(BLANK);
        if !after.is_empty() && !after.starts_with('#') {
            return Err(format!("line {number}: unexpected content after the closing quote"));
        }
        if name == key {
            return Ok(Some(value).filter(|value| !value.is_empty()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn values_are_read_as_a_shell_reads_them() {
        let text = "# comment\n\n  A='1' # one\nB='x $HOME \\n'\nC='first\n  second'\nD= 'no'\nA='2'\nE=''\n";
        let found = |key: &str| find(text, key).unwrap();
        assert_eq!(found("A").as_deref(), Some("1"), "the first counts");
        assert_eq!(found("B").as_deref(), Some("x $HOME \\n"), "nothing is expanded");
        assert_eq!(found("C").as_deref(), Some("first\n  second"));
        assert_eq!((found("D"), found("E"), found("F")), (None, None, None));
    }

    #[test]
    fn what_is_no_assignment_is_refused_with_its_line() {
        for (text, reason) in [
            ("A='1'\nB", "line 2: missing '='"),
            ("='1'", "line 1: no variable name directly before '='"),
            ("A ='1'", "line 1: no variable name directly before '='"),
            ("\nA=1", "line 2: the value must be enclosed in single quotes"),
            ("A=\"1\"", "line 1: the value must be enclosed in single quotes"),
            ("A='1\n\n", "line 1: unclosed single quote"),
            ("A='1'2", "line 1: unexpected content after the closing quote"),
        ] {
            assert_eq!(find(text, "Z"), Err(reason.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_file_is_read_only_inside_its_volume() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(folder.path().join("outside"), "A='secret'").unwrap();
        std::fs::write(volume.join("env"), "A='1'").unwrap();
        symlink("env", volume.join("link")).unwrap();
        symlink("../outside", volume.join("out")).unwrap();
        symlink(folder.path().join("outside"), volume.join("absolute")).unwrap();
        nix::unistd::mkfifo(&volume.join("pipe"), Mode::S_IRWXU).unwrap();
        std::fs::write(volume.join("large"), vec![b'#'; MAX_BYTES as usize + 1]).unwrap();
        assert_eq!(value(&volume, "env", "A").unwrap().as_deref(), Some("1"));
        assert_eq!(value(&volume, "link", "A").unwrap().as_deref(), Some("1"));
        assert_eq!(value(&volume, "missing", "A").unwrap(), None);
        for path in ["out", "absolute", "pipe", "large", "../outside", "."] {
            assert!(value(&volume, path, "A").is_err(), "{path}");
        }
    }
}
