//! `trireme cluster reset`: a cluster of one out of a survivor, on that stopped server.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use trireme_cluster::pki::ServerFiles;
use trireme_raft::reset::{Survivor, SurvivorReport, resume};
use trireme_raft::{DiskEngines, PeerIdentity};

use super::Failure;
use crate::cli::{ClusterCommand, ResetArgs};

/// Runs one of the commands.
pub async fn cluster(command: ClusterCommand) -> Result<(), Failure> {
    let ClusterCommand::Reset(args) = command;
    reset(&args).await
}

/// Resets, after saying what will be lost, and asking.
pub async fn reset(args: &ResetArgs) -> Result<(), Failure> {
    let server = args.data_dir.join("server");
    let db = server.join("db");
    if resume(&db)? {
        println!("a reset that was interrupted is finished: {}", next(&args.data_dir));
        return Ok(());
    }
    let identity = identity(&server)?;
    let survivor = Survivor::open(&db, Arc::new(DiskEngines), &mut |_| Ok(())).await?;
    if let Err(refusal) = survivor.refuse_if_quorum_answers(identity).await {
        survivor.abandon()?;
        return Err(refusal.into());
    }
    println!("{}", tell(survivor.report()));
    if !args.yes && !confirmed()? {
        survivor.abandon()?;
        return Err(Failure::from("nothing was changed"));
    }
    let done = survivor.reset(&mut |_| Ok(()))?;
    println!(
        "done: cluster {:016x} with one member, at revision {}; the old state is in {}, remove it when nothing of it is missed",
        done.cluster.cluster_id,
        done.cluster.revision,
        done.moved_to.display()
    );
    println!("{}", next(&args.data_dir));
    Ok(())
}

fn next(data_dir: &Path) -> String {
    format!(
        "start this server with `trireme server --data-dir {}`; empty the data directories of the other servers before they join again with --server and the token",
        data_dir.display()
    )
}

/// What is kept and what may be lost, in words.
fn tell(report: &SurvivorReport) -> String {
    let names: Vec<String> = report.members.iter().map(|member| format!("{} ({})", member.name, member.id)).collect();
    let open = match report.last_index - report.committed_index {
        0 => String::new(),
        n => format!(
            " Among it are the log's last {n} entries, up to {}, of which this server does not know whether they were acknowledged.",
            report.last_index
        ),
    };
    format!(
        "This server is member {} of cluster {:016x}, with {}.\n\
         Kept: everything up to revision {}.{open}\n\
         Lost: every revision after {}, if the other members have acknowledged any without this one.\n\
         The other members must be stopped for good: if they run on as the old cluster, there will be two.",
        report.node_id,
        report.cluster_id,
        names.join(", "),
        report.revision,
        report.revision
    )
}

fn confirmed() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("--yes is needed where nobody can be asked"));
    }
    print!("Make it a cluster of one? Type yes: ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// With the certificate that the member had; the others know its key.
fn identity(server: &Path) -> Result<Arc<PeerIdentity>, Failure> {
    let files = ServerFiles::new(server);
    let missing = || Failure::from(format!("{}: the cluster's keys are gone; restore a snapshot instead", files.cred("").display()));
    let keys = files.read_keys()?.ok_or_else(missing)?;
    let read = |name: &str| std::fs::read(files.tls(name)).map_err(|e| Failure::from(format!("{}: {e}", files.tls(name).display())));
    let (certificate, key) = (read("peer.crt")?, read("peer.key")?);
    Ok(Arc::new(PeerIdentity::from_pem(keys.peer_ca.certificate_pem.as_bytes(), &certificate, &key)?))
}
