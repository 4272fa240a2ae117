//! What a service manager sees: `Type=notify` units become active when the server is ready, and not before.

use std::{os::unix::net::UnixDatagram, time::Duration};

use anyhow::{Context, ensure};
use trireme_e2e::process::Place;

/// Until the server has said something.
const LIMIT: Duration = Duration::from_secs(60);

fn said(socket: &UnixDatagram) -> anyhow::Result<String> {
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer).context("the server told its service manager nothing")?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[test]
fn the_service_manager_is_told_when_the_server_is_ready_and_when_it_stops() -> anyhow::Result<()> {
    let place = Place::new()?;
    let path = place.path("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(LIMIT))?;
    let mut server = place.server_told(&["--cluster-init"], &path)?;
    ensure!(said(&socket)? == "READY=1");
    ensure!(server.is_ready(), "it was not ready when it said so");
    server.interrupt()?;
    ensure!(said(&socket)? == "STOPPING=1");
    Ok(())
}
