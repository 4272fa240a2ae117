//! The decoder of archives, for random input. Only with the feature `fuzzing`; nothing else uses it.

use std::io::Cursor;
use std::path::Path;

use crate::{archive::Archive, layout};

/// Reads an archive and plans its import.
pub fn archive(bytes: Vec<u8>) {
    let Ok(archive) = Archive::read_from(Cursor::new(bytes), Path::new("fuzz.tar")) else { return };
    for architecture in ["amd64", "arm64"] {
        drop(layout::plan(&archive, architecture));
    }
}
