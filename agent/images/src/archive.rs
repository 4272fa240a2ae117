//! An archive's table of contents, and its blobs as streams. Blocking: for threads that may block.
//!
//! Every file is known by what its content hashes to, never by the digest that its path claims.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, Cursor, Read},
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use tar::EntryType;

use crate::Error;

/// A piece of a blob. Two of them or three are in memory at any time.
const PIECE_BYTES: usize = 256 << 10;
/// Manifests, configurations and indexes are kept in memory; real ones are smaller than this.
const MAX_DOCUMENT_BYTES: u64 = 1 << 20;
const MAX_DOCUMENTS_BYTES: usize = 16 << 20;
/// An image has a file for each layer and document: this many files are no image.
const MAX_FILES: usize = 10_000;

/// What an archive holds.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    files: Vec<ArchivedFile>,
    by_path: BTreeMap<String, usize>,
}

/// One file in an archive.
#[derive(Debug)]
pub(crate) struct ArchivedFile {
    /// `sha256:...` of its content.
    pub(crate) digest: String,
    pub(crate) size: u64,
    /// How its content is compressed, by its first bytes.
    pub(crate) compression: Compression,
    /// The content, if it looks like a JSON document.
    pub(crate) document: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A piece of the file with this number, or its end.
pub(crate) enum Piece {
    Data(usize, Bytes),
    End(usize),
}

impl Archive {
    /// Reads an archive from end to end.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        Self::read_from(File::open(path)?, path)
    }

    /// As [`Archive::read`], from any source; `path` is where [`Archive::stream`] reads it again.
    pub(crate) fn read_from(source: impl Read + Send + 'static, path: &Path) -> Result<Self, Error> {
        let mut archive = Self { path: path.to_owned(), files: Vec::new(), by_path: BTreeMap::new() };
        let mut links = Vec::new();
        let mut kept = 0;
        for_each_file(source, |name, entry| {
            if let Some(target) = link_target(&name, entry) {
                if links.len() == MAX_FILES {
                    return Err(Error::Archive(format!("more than {MAX_FILES} links: this is no image archive")));
                }
                links.push((name, target));
                return Ok(());
            }
            if archive.files.len() == MAX_FILES {
                return Err(Error::Archive(format!("more than {MAX_FILES} files: this is no image archive")));
            }
            let file = summarize(&name, entry)?;
            kept += file.document.as_ref().map_or(0, Bytes::len);
            if kept > MAX_DOCUMENTS_BYTES {
                return Err(Error::Archive(format!("its JSON documents have more than {} MiB", MAX_DOCUMENTS_BYTES >> 20)));
            }
            archive.by_path.insert(name, archive.files.len());
            archive.files.push(file);
            Ok(())
        })?;
        // Docker names a layer that two images share by a link; it may come before what it points at.
        for (name, target) in links {
            if let Some(&at) = archive.by_path.get(&target) {
                archive.by_path.insert(name, at);
            }
        }
        if archive.files.is_empty() {
            return Err(Error::Archive("there is no file in it".into()));
        }
        Ok(archive)
    }

    /// The number of the file at this path.
    pub(crate) fn at(&self, path: &str) -> Option<usize> {
        self.by_path.get(&clean(Path::new(path))?).copied()
    }

    /// The number of a file with this content.
    pub(crate) fn with_digest(&self, digest: &str) -> Option<usize> {
        self.files.iter().position(|f| f.digest == digest)
    }

    /// A file by its number.
    pub(crate) fn file(&self, number: usize) -> &ArchivedFile {
        &self.files[number]
    }

    /// Reads the archive once more and hands the content of the wanted files to `sink`, in pieces. A sink that answers false ends it.
    pub(crate) fn stream(&self, wanted: &BTreeSet<usize>, mut sink: impl FnMut(Piece) -> bool) -> Result<(), Error> {
        let mut next = 0;
        let mut open = true;
        for_each_file(File::open(&self.path)?, |name, entry| {
            if link_target(&name, entry).is_some() {
                return Ok(());
            }
            let number = next;
            next += 1;
            while open && wanted.contains(&number) {
                let piece = read_piece(entry)?;
                if piece.is_empty() {
                    open = sink(Piece::End(number));
                    break;
                }
                open = sink(Piece::Data(number, piece));
            }
            Ok(())
        })
    }
}

/// Calls `visit` with the path and content of every regular file and link.
fn for_each_file(
    source: impl Read + Send + 'static,
    mut visit: impl FnMut(String, &mut tar::Entry<'_, Box<dyn Read + Send>>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut tarball = tar::Archive::new(decompressed(source)?);
    for entry in tarball.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous | EntryType::Symlink | EntryType::Link) {
            continue;
        }
        let name = entry.path().ok().and_then(|p| clean(&p));
        if let Some(name) = name {
            visit(name, &mut entry)?;
        }
    }
    Ok(())
}

/// The tar archive itself, by the first bytes of its file.
fn decompressed(mut source: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>, Error> {
    let mut magic = Vec::new();
    source.by_ref().take(4).read_to_end(&mut magic)?;
    let compression = Compression::of(&magic);
    let whole = BufReader::with_capacity(PIECE_BYTES, Cursor::new(magic).chain(source));
    match compression {
        Compression::None => Ok(Box::new(whole)),
        Compression::Gzip => Ok(Box::new(MultiGzDecoder::new(whole))),
        Compression::Zstd => Err(Error::Archive("compressed with zstd, which is not supported: decompress it, or use gzip".into())),
    }
}

fn summarize<R: Read>(name: &str, entry: &mut tar::Entry<'_, R>) -> Result<ArchivedFile, Error> {
    let expected = entry.size();
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut first = Vec::new();
    let mut document = None;
    loop {
        let piece = read_piece(entry)?;
        if piece.is_empty() {
            break;
        }
        if size == 0 {
            first = piece.slice(..piece.len().min(4)).to_vec();
            let json = expected <= MAX_DOCUMENT_BYTES && matches!(piece[0], b'{' | b'[');
            document = json.then(|| Vec::with_capacity(expected as usize));
        }
        hash.update(&piece);
        size += piece.len() as u64;
        if let Some(document) = &mut document {
            document.extend_from_slice(&piece);
        }
    }
    if size != expected {
        return Err(Error::Archive(format!("it is cut short: {name} has {size} of {expected} bytes")));
    }
    let digest = format!("sha256:{}", hex::encode(hash.finalize()));
    Ok(ArchivedFile { digest, size, compression: Compression::of(&first), document: document.map(Bytes::from) })
}

/// A full piece, except at the end of the content; empty after it.
fn read_piece(from: &mut impl Read) -> Result<Bytes, Error> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    from.take(PIECE_BYTES as u64).read_to_end(&mut piece).map_err(broken)?;
    Ok(piece.into())
}

fn link_target<R: Read>(name: &str, entry: &tar::Entry<'_, R>) -> Option<String> {
    let target = entry.link_name().ok()??;
    match entry.header().entry_type() {
        // A symbolic link is relative to its own folder, a hard link to the archive's root.
        EntryType::Symlink => clean(&Path::new(name).parent()?.join(target)),
        EntryType::Link => clean(&target),
        _ => None,
    }
}

/// `a/b` for `./a/x/../b`; none for what leaves the archive.
fn clean(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir | Component::RootDir => {}
            Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn broken(error: std::io::Error) -> Error {
    Error::Archive(format!("it is no readable tar archive: {error}"))
}

impl Compression {
    fn of(first_bytes: &[u8]) -> Self {
        match first_bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}
