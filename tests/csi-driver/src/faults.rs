//! What goes wrong on order, and what was called: files, for tests in the same process and in others.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::{Code, Status};

const LOOK: Duration = Duration::from_millis(20);

/// Orders, one file for each call.
#[derive(Clone, Debug)]
pub struct Faults {
    folder: PathBuf,
}

impl Faults {
    pub fn new(data: &Path) -> Faults {
        Faults { folder: data.join("faults") }
    }

    fn order(&self, call: &str, text: &str) {
        let written = std::fs::create_dir_all(&self.folder).and_then(|()| {
            std::fs::write(self.folder.join(format!(".{call}")), text)?;
            std::fs::rename(self.folder.join(format!(".{call}")), self.folder.join(call))
        });
        if let Err(error) = written {
            panic!("cannot order a fault of {call}: {error}");
        }
    }

    /// From now on the call is not answered, until [`Faults::mend`].
    pub fn hang(&self, call: &str) {
        self.order(call, "hang");
    }

    /// From now on the call is refused as an internal error with this text.
    pub fn fail(&self, call: &str, text: &str) {
        self.order(call, text);
    }

    /// From now on the call succeeds without doing anything.
    pub fn lie(&self, call: &str) {
        self.order(call, "lie");
    }

    pub fn mend(&self, call: &str) {
        let _ = std::fs::remove_file(self.folder.join(call));
    }

    /// Does as ordered. True: the call is to do nothing.
    pub(crate) async fn obey(&self, call: &str) -> Result<bool, Status> {
        loop {
            match std::fs::read_to_string(self.folder.join(call)).as_deref() {
                Err(_) => return Ok(false),
                Ok("hang") => tokio::time::sleep(LOOK).await,
                Ok("lie") => return Ok(true),
                Ok(text) => return Err(Status::new(Code::Internal, text)),
            }
        }
    }
}

/// Notes a call in the log.
pub(crate) fn note(data: &Path, what: &str) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(data.join("calls"));
    if let Err(error) = file.and_then(|mut file| file.write_all(format!("{what}\n").as_bytes())) {
        panic!("cannot note a call: {error}");
    }
}

/// The log.
pub(crate) fn calls(data: &Path) -> Vec<String> {
    std::fs::read_to_string(data.join("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
}
