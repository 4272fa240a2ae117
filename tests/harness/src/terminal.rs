//! An interactive terminal: a pty, and a command on it that behaves as it does for a user.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::pty::{Winsize, openpty};

use crate::eventually;

/// Nothing that a test types takes longer to show, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A window with a running command.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    device: PathBuf,
    screen: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Terminal {
    /// Runs a command in a window of this size. It is the session's leader, so a key like ^C and a change of size reach it.
    pub fn open(command: &Command, rows: u16, columns: u16) -> anyhow::Result<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).context("openpty")?;
        let device = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pty.slave)))?;
        let slave = File::from(pty.slave);
        let mut leader = Command::new("setsid");
        leader.arg("--ctty").arg("--wait").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            leader.env(name, value.unwrap_or(OsStr::new("")));
        }
        let child = leader.env("TERM", "xterm").stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(Stdio::from(slave)).spawn();
        // The builder holds the device open, and its end would never be seen.
        drop(leader);
        let screen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (seen, mut output) = (screen.clone(), File::from(pty.master.try_clone()?));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of the last process on the device reads as an error.
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
            }
        });
        Ok(Self { keyboard: pty.master.into(), device, screen, child: child.context("run setsid")? })
    }

    /// Types.
    pub fn types(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.keyboard.write_all(text.as_bytes())?)
    }

    /// Makes the window larger or smaller.
    pub fn resize(&self, rows: u16, columns: u16) -> anyhow::Result<()> {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let mut stty = Command::new("stty");
        stty.arg("-F").arg(&self.device).args(["rows", &rows, "columns", &columns]);
        let status = stty.status().context("run stty")?;
        ensure!(status.success(), "stty: {status}");
        Ok(())
    }

    /// Everything that was ever on the screen.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until the screen has shown a text.
    pub fn shows(&self, text: &str) -> anyhow::Result<()> {
        eventually(&format!("{text:?} on the screen"), PATIENCE, || {
            let screen = self.screen();
            ensure!(screen.contains(text), "the screen: {screen:?}");
            Ok(())
        })
    }

    /// Types a line repeatedly until the screen shows the answer: the program that reads it may not be ready yet.
    pub fn types_until(&mut self, line: &str, answer: &str) -> anyhow::Result<()> {
        eventually(&format!("{answer:?} after {line:?}"), PATIENCE, || {
            self.types(&format!("{line}\n"))?;
            std::thread::sleep(Duration::from_millis(300));
            let screen = self.screen();
            ensure!(screen.contains(answer), "the screen: {screen:?}");
            Ok(())
        })
    }

    /// Waits for the command's end.
    pub fn ends(mut self) -> anyhow::Result<ExitStatus> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("the command does not end; the screen: {:?}", self.screen());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A window that is closed ends what runs in it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
