//! `trireme snapshot restore`: a new cluster of one out of a snapshot, on a stopped server.
//!
//! Everything is looked at before anything is written, and everything is written beside the place where it belongs:
//! `<data-dir>/server` appears whole, by a rename, or not at all.

use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use trireme_agent::join::JoinToken;
use trireme_api::join::ClusterFacts;
use trireme_cluster::pki::{ClusterKeys, PkiError, SealedBundle, ServerFiles, seal::SEALED_NAME};
use trireme_proto::store::BackupHeader;
use trireme_raft::DiskEngines;
use trireme_raft::backup::{self, BackupReader};

use super::{Failure, token};
use crate::cli::RestoreArgs;
use crate::control_plane::{FACTS_NOTE, keep_restored};

/// The new folder in the making.
const STAGING: &str = "server.restoring";

/// Restores.
pub fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let file = args.file.display();
    let reader = open(&args.file)?;
    let header = reader.header().clone();
    let secret = secret(args)?;
    let keys = unseal(&header, &secret, &args.file)?;
    let facts = facts(&header, &args.file)?;
    let target = args.data_dir.join("server");
    let occupied = check_target(args, &target)?;

    let staging = args.data_dir.join(STAGING);
    remove(&staging)?;
    let done = (|| {
        fs::create_dir_all(&args.data_dir).map_err(|e| at(&args.data_dir, &e))?;
        fs::DirBuilder::new().mode(0o700).create(&staging).map_err(|e| at(&staging, &e))?;
        let files = ServerFiles::new(&staging);
        keep_restored(&files, facts, secret.secret())?;
        files.write_keys(&keys)?;
        Ok(backup::restore(reader, &DiskEngines, &staging.join("db"))?)
    })();
    let restored = match done {
        Ok(restored) => restored,
        Err(failure) => {
            remove(&staging)?;
            return Err(failure);
        }
    };
    let aside = if occupied { Some(move_aside(&target)?) } else { None };
    if target.exists() {
        fs::remove_dir(&target).map_err(|e| at(&target, &e))?;
    }
    fs::rename(&staging, &target).map_err(|e| at(&target, &e))?;
    sync(&args.data_dir)?;
    if let Some(aside) = &aside {
        carry_over_snapshots(aside, &target)?;
        println!("what was there is in {}; remove it when nothing of it is missed", aside.display());
    }
    println!(
        "restored {file}: {} keys as of revision {}, made {} by {} of cluster {:016x}",
        restored.summary.keys,
        restored.summary.revision,
        Timestamp::from_millisecond(i64::try_from(header.created_unix_ms).unwrap_or(0)).unwrap_or_default(),
        header.member_name,
        header.cluster_id
    );
    println!(
        "{} is a cluster of one now, {:016x}, at revision {}: start it with `trireme server --data-dir {}`; others join it with --server and the same token",
        target.display(),
        restored.cluster.cluster_id,
        restored.cluster.revision,
        args.data_dir.display()
    );
    Ok(())
}

fn at(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::from(format!("{}: {error}", path.display()))
}

fn open(path: &Path) -> Result<BackupReader<BufReader<File>>, Failure> {
    let file = File::open(path).map_err(|e| Failure::usage(format!("snapshot {}: {e}", path.display())))?;
    BackupReader::open(BufReader::new(file)).map_err(|e| at(path, &e))
}

/// The token given, or the one of the server whose folder this is.
fn secret(args: &RestoreArgs) -> Result<JoinToken, Failure> {
    let kept = args.data_dir.join("server/token");
    let text = match token(args.token.clone(), args.token_file.as_deref())? {
        Some(text) => text,
        None => fs::read_to_string(&kept).map_err(|_| {
            Failure::usage("--token or --token-file is needed: the snapshot's keys are sealed under the token of the cluster that it is of")
        })?,
    };
    Ok(JoinToken::parse(text.trim())?)
}

fn unseal(header: &BackupHeader, token: &JoinToken, path: &Path) -> Result<ClusterKeys, Failure> {
    let sealed = header.sealed.iter().find(|entry| entry.name == SEALED_NAME);
    let sealed = sealed.and_then(|entry| entry.record.as_ref()).and_then(|record| record.key.as_ref());
    let sealed = sealed.ok_or_else(|| at(path, &"the snapshot has no keys in it: it was made before the cluster was founded"))?;
    let refused =
        || Failure::usage(format!("--token: does not open {}: it is not the token of the cluster that was saved", path.display()));
    let keys = match SealedBundle::from_stored(sealed)?.unseal(token.secret()) {
        Err(PkiError::Unseal) => return Err(refused()),
        other => other?,
    };
    if token.pins(&keys.server_ca.certificate_pem) { Ok(keys) } else { Err(refused()) }
}

fn facts(header: &BackupHeader, path: &Path) -> Result<ClusterFacts, Failure> {
    let note = header.notes.iter().find(|note| note.name == FACTS_NOTE);
    let note = note.ok_or_else(|| at(path, &"the snapshot does not say which networks the cluster has"))?;
    serde_json::from_slice(&note.value).map_err(|e| at(path, &e))
}

/// Whether a server's state is there that has to be moved aside.
fn check_target(args: &RestoreArgs, target: &Path) -> Result<bool, Failure> {
    if trireme_raft::reset::is_in_use(&target.join("db")) {
        return Err(Failure::from(format!("--data-dir {}: a server is running there; stop it first", args.data_dir.display())));
    }
    let occupied = fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !args.force {
        return Err(Failure::usage(format!(
            "--data-dir {}: there is a server's state already; give an empty directory, or --force to move it aside",
            args.data_dir.display()
        )));
    }
    Ok(occupied)
}

fn move_aside(target: &Path) -> Result<PathBuf, Failure> {
    let aside = target.with_file_name(format!("server.before-restore-{}", Timestamp::now().as_second()));
    fs::rename(target, &aside).map_err(|e| at(&aside, &e))?;
    Ok(aside)
}

/// Snapshots are kept, also those that were just superseded.
fn carry_over_snapshots(aside: &Path, target: &Path) -> Result<(), Failure> {
    let (from, to) = (aside.join("db/snapshots"), target.join("db/snapshots"));
    if !from.exists() {
        return Ok(());
    }
    fs::rename(&from, &to).map_err(|e| at(&to, &e))
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(at(path, &e)),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> Result<(), Failure> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| at(folder, &e))
}
