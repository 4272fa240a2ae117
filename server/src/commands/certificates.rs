//! `trireme certificate`.

use std::path::Path;

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use jiff::Timestamp;
use trireme_api::admin::{CERTIFICATES, CertificateInfo, CertificateList, MEMBERS, MemberList, NODE_CERTIFICATES_PATH};
use trireme_cluster::pki::renewal::describe;

use super::{Failure, admin_client::AdminClient};
use crate::cli::CertificateCommand;

const HEADER: [&str; 6] = ["HOLDER", "NAME", "SUBJECT", "EXPIRES", "LEFT", "CA"];

/// Runs one of the commands.
pub async fn certificates(command: CertificateCommand) -> Result<(), Failure> {
    match command {
        CertificateCommand::Check { data_dir: Some(folder), admin } => {
            let lists = local(&folder)?;
            AdminClient::print_as(admin.output, &lists, &HEADER, |lists| rows(lists))
        }
        CertificateCommand::Check { data_dir: None, admin } => {
            let client = AdminClient::new(&admin)?;
            let (lists, missing) = everywhere(&client, &[], false).await?;
            client.print(&lists, &HEADER, |lists| rows(lists))?;
            complain(missing)
        }
        CertificateCommand::Rotate { names, admin } => {
            let client = AdminClient::new(&admin)?;
            let (lists, missing) = everywhere(&client, &names, true).await?;
            client.print(&lists, &HEADER, |lists| rows(lists))?;
            complain(missing)
        }
    }
}

/// Fails with the servers and nodes that could not be asked, after the others have been printed.
fn complain(missing: Vec<String>) -> Result<(), Failure> {
    if missing.is_empty() { Ok(()) } else { Err(Failure::from(missing.join("; "))) }
}

/// Asks every server itself, and every node through the API server. With `names` only those.
async fn everywhere(client: &AdminClient, names: &[String], rotate: bool) -> Result<(Vec<CertificateList>, Vec<String>), Failure> {
    let members: MemberList = client.ask(Method::GET, MEMBERS, None).await?;
    let nodes = node_names(client).await?;
    let known = |name: &String| members.members.iter().any(|m| m.name == *name) || nodes.contains(name);
    if let Some(stranger) = names.iter().find(|name| !known(name)) {
        return Err(Failure::usage(format!("{stranger:?} is neither a server nor a node")));
    }
    let wanted = |name: &String| names.is_empty() || names.contains(name);
    let (mut lists, mut missing) = (Vec::new(), Vec::new());
    let mut take = |holder: String, answer: Result<CertificateList, Failure>| match answer {
        Ok(list) => lists.push(list),
        Err(failure) => missing.push(format!("{holder}: {}", failure.message)),
    };
    let (method, path) = if rotate { (Method::POST, format!("{CERTIFICATES}/rotate")) } else { (Method::GET, CERTIFICATES.to_owned()) };
    for member in members.members.iter().filter(|m| wanted(&m.name)) {
        let answer = match member.api_urls.first() {
            Some(url) => client.at(url)?.ask(method.clone(), &path, None).await,
            None => Err(Failure::from("it has not said where its API is")),
        };
        take(format!("server {}", member.name), answer);
    }
    let end = if rotate { "/rotate" } else { "" };
    for node in nodes.iter().filter(|name| wanted(name)) {
        let path = format!("/api/v1/nodes/{node}/proxy{NODE_CERTIFICATES_PATH}{end}");
        take(format!("node {node}"), of_node(client, method.clone(), &path).await);
    }
    Ok((lists, missing))
}

async fn of_node(client: &AdminClient, method: Method, path: &str) -> Result<CertificateList, Failure> {
    let body = client.stream(method, path, Bytes::new()).await?.collect().await.map_err(|e| Failure::from(e.to_string()))?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

async fn node_names(client: &AdminClient) -> Result<Vec<String>, Failure> {
    let body =
        client.stream(Method::GET, "/api/v1/nodes", Bytes::new()).await?.collect().await.map_err(|e| Failure::from(e.to_string()))?;
    let list: serde_json::Value = serde_json::from_slice(&body.to_bytes())?;
    let names = list["items"].as_array().into_iter().flatten().filter_map(|node| node["metadata"]["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// The certificates in the files of a data directory.
fn local(data_dir: &Path) -> Result<Vec<CertificateList>, Failure> {
    let mut lists = Vec::new();
    let tls = data_dir.join("server/tls");
    if tls.is_dir() {
        let mut paths: Vec<_> = std::fs::read_dir(&tls)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        let mut certificates = Vec::new();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "crt")) {
            let pem = std::fs::read_to_string(path).map_err(|e| Failure::from(format!("{}: {e}", path.display())))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            certificates.push(describe(&name, &pem).map_err(|e| Failure::from(format!("{}: {e}", path.display())))?);
        }
        lists.push(CertificateList { holder: "server".into(), certificates });
    }
    let identity = data_dir.join("agent/tls/identity.json");
    if identity.exists() {
        let bytes = std::fs::read(&identity).map_err(|e| Failure::from(format!("{}: {e}", identity.display())))?;
        let identity: trireme_agent::identity::Identity =
            serde_json::from_slice(&bytes).map_err(|e| Failure::from(format!("{}: {e}", identity.display())))?;
        let of = |name: &str, pem: &str| describe(name, pem).map_err(|e| Failure::from(e.to_string()));
        let certificates =
            vec![of("kubelet-client", &identity.client.certificate_pem)?, of("kubelet-serving", &identity.serving.certificate_pem)?];
        lists.push(CertificateList { holder: "node".into(), certificates });
    }
    if lists.is_empty() {
        return Err(Failure::usage(format!("--data-dir {}: there are no certificates in it", data_dir.display())));
    }
    Ok(lists)
}

fn rows(lists: &[CertificateList]) -> Vec<Vec<String>> {
    let now = Timestamp::now().as_second();
    let row = |holder: &str, c: &CertificateInfo| {
        let expires = Timestamp::from_second(c.not_after).map(|at| at.to_string()).unwrap_or_default();
        vec![holder.to_owned(), c.name.clone(), c.subject.clone(), expires, left(c.not_after - now), c.issuer.clone()]
    };
    lists.iter().flat_map(|list| list.certificates.iter().map(|c| row(&list.holder, c))).collect()
}

fn left(secs: i64) -> String {
    match secs {
        ..=0 => "expired".to_owned(),
        1..7200 => format!("{}m", secs / 60),
        7200..172_800 => format!("{}h", secs / 3600),
        _ => format!("{}d", secs / 86_400),
    }
}
