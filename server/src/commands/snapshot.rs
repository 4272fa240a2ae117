//! `trireme snapshot save|list|prune`: asks a running server, or works on a folder of this machine.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use trireme_api::admin::{PREFIX, SNAPSHOTS, Snapshot, SnapshotList};

use super::{Failure, admin_client::AdminClient, restore::restore};
use crate::cli::{AdminArgs, SnapshotCommand};
use crate::snapshots::{self, Folder, ON_DEMAND, Unfinished};

const HEADER: [&str; 5] = ["NAME", "SIZE", "CREATED", "REVISION", "LOCATION"];

/// Runs one of the commands.
pub async fn snapshot(command: SnapshotCommand) -> Result<(), Failure> {
    match command {
        SnapshotCommand::Save { name, dir: None, file: None, admin } => {
            let client = AdminClient::new(&admin)?;
            let asked = name.map_or_else(|| json!({}), |name| json!({ "name": name }));
            let saved: Snapshot = client.ask(Method::POST, SNAPSHOTS, Some(&asked)).await?;
            say(&client, &saved)
        }
        SnapshotCommand::Save { name, dir, file, admin } => {
            let client = AdminClient::new(&admin)?;
            let target = match (dir, file) {
                (Some(dir), _) => dir.join(snapshots::name(name.as_deref().unwrap_or(ON_DEMAND), &node_name()?, Timestamp::now())?),
                (None, Some(file)) => file,
                (None, None) => return Err(Failure::usage("--file or --dir is needed")),
            };
            say(&client, &download(&client, &target).await?)
        }
        SnapshotCommand::List { dir, admin } => {
            let list = match dir {
                Some(dir) => SnapshotList { snapshots: Folder::new(dir).list()? },
                None => AdminClient::new(&admin)?.ask(Method::GET, SNAPSHOTS, None).await?,
            };
            AdminClient::print_as(admin.output, &list, &HEADER, rows)
        }
        SnapshotCommand::Prune { retention, name, dir, admin } => {
            let removed = match dir {
                Some(dir) => SnapshotList { snapshots: Folder::new(dir).prune(name.as_deref().unwrap_or_default(), retention)? },
                None => prune(&admin, retention, name).await?,
            };
            AdminClient::print_as(admin.output, &removed, &["REMOVED", "SIZE", "CREATED", "REVISION", "LOCATION"], rows)
        }
        SnapshotCommand::Restore(args) => restore(&args),
    }
}

async fn prune(admin: &AdminArgs, retention: usize, name: Option<String>) -> Result<SnapshotList, Failure> {
    let mut asked = json!({ "retention": retention });
    if let Some(name) = name {
        asked["name"] = name.into();
    }
    AdminClient::new(admin)?.ask(Method::POST, &format!("{SNAPSHOTS}/prune"), Some(&asked)).await
}

fn say(client: &AdminClient, saved: &Snapshot) -> Result<(), Failure> {
    let text = format!(
        "saved {} ({}, revision {}) and proven by restoring it: {}",
        saved.name,
        human(saved.size_bytes),
        saved.revision,
        saved.location
    );
    client.say(&text, saved)
}

/// Saves the server's archive as a file here, and proves it here.
async fn download(client: &AdminClient, target: &Path) -> Result<Snapshot, Failure> {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = target.file_name().ok_or_else(|| Failure::usage(format!("--file {}: not a file's name", target.display())))?;
    let partial: PathBuf = folder.join(format!(".{}.partial", name.to_string_lossy()));
    let mut body = client.stream(Method::GET, &format!("{PREFIX}{SNAPSHOTS}/archive"), Bytes::new()).await?;
    let mut sink = tokio::fs::File::from_std(snapshots::private_file(&partial)?);
    let unfinished = Unfinished(partial.clone());
    let failed = |error: &dyn std::fmt::Display| Failure::from(format!("snapshot {}: {error}", target.display()));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failed(&error))?;
        if let Ok(piece) = frame.into_data() {
            sink.write_all(&piece).await.map_err(|error| failed(&error))?;
        }
    }
    sink.sync_all().await.map_err(|error| failed(&error))?;
    drop(sink);
    snapshots::finish(partial, target.to_owned(), None).await?;
    drop(unfinished);
    Ok(snapshots::look_at(target))
}

fn node_name() -> Result<String, Failure> {
    Ok(trireme_agent::host::node_name()?)
}

fn rows(list: &SnapshotList) -> Vec<Vec<String>> {
    let row = |snapshot: &Snapshot| {
        let created = i64::try_from(snapshot.created_unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let created = created.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let revision = match &snapshot.problem {
            None => snapshot.revision.to_string(),
            Some(problem) => problem.clone(),
        };
        vec![snapshot.name.clone(), human(snapshot.size_bytes), created, revision, snapshot.location.clone()]
    };
    list.snapshots.iter().map(row).collect()
}

/// A size for people.
fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
