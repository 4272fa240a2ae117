//! Runs a program with bounded output and bounded time.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::Error;

/// A table of thousands of services loads in a few seconds; nothing takes this long but a hanging kernel.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of an error message that are kept.
const MAX_MESSAGE: u64 = 4096;
const MAX_MESSAGE_LINES: usize = 3;
/// Largest listing that is read.
const MAX_LISTING: u64 = 64 << 20;

/// Runs a program, gives it `input`, and returns what it printed.
pub(crate) async fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<String, Error> {
    match tokio::time::timeout(TIMEOUT, run_to_end(program, arguments, input)).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout { program, seconds: TIMEOUT.as_secs() }),
    }
}

async fn run_to_end(program: &'static str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let failed = |source| Error::Run { program, source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        let Some(mut stdin) = stdin else { return };
        // A program that ends before it has read everything says why on its standard error: that is the message to show.
        drop(stdin.write_all(input.as_bytes()).await);
    };
    let ((), output, message, status) = tokio::join!(write, bounded(stdout, MAX_LISTING), bounded(stderr, MAX_MESSAGE), child.wait());
    let (output, message) = (output.map_err(failed)?, message.map_err(failed)?);
    if status.map_err(failed)?.success() {
        return Ok(output);
    }
    let message = message.lines().map(str::trim).filter(|l| !l.is_empty()).take(MAX_MESSAGE_LINES).collect::<Vec<_>>().join("; ");
    Err(Error::Refused { program, message })
}

/// Reads up to `limit` bytes and throws the rest away, so that the writer never blocks.
async fn bounded(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<String> {
    let Some(mut stream) = stream else { return Ok(String::new()) };
    let mut kept = Vec::new();
    (&mut stream).take(limit).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

/// Whether a program is installed and can be run.
pub fn exists(program: &str) -> bool {
    std::process::Command::new(program).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn output_and_messages_are_bounded_and_the_first_lines_are_shown() {
        assert_eq!(run("cat", &[], "echo").await.unwrap(), "echo");
        let noisy = "yes error | head -c 10000000 >&2; exit 1";
        let error = run("sh", &["-c", noisy], &"x".repeat(1 << 20)).await.unwrap_err();
        assert_eq!(error.to_string(), "sh refused: error; error; error");
        let missing = run("no-such-program", &[], "").await.unwrap_err();
        assert!(missing.to_string().starts_with("run no-such-program: "), "{missing}");
    }
}
