//! `trireme member`.

use http::Method;
use serde_json::json;
use trireme_api::admin::{MEMBERS, Member, MemberList, TOKENS, TokenCreated};

use super::{Failure, admin_client::AdminClient};
use crate::cli::MemberCommand;

const HEADER: [&str; 7] = ["ID", "NAME", "ROLE", "STATE", "LAG", "ADDRESS", "VERSION"];

/// Runs one of the commands.
pub async fn member(command: MemberCommand) -> Result<(), Failure> {
    match command {
        MemberCommand::List { admin } => {
            let client = AdminClient::new(&admin)?;
            client.print(&list(&client).await?, &HEADER, rows)
        }
        MemberCommand::Add { ttl, admin } => {
            let client = AdminClient::new(&admin)?;
            let list: MemberList = client.ask(Method::GET, MEMBERS, None).await?;
            let asked = list.members.iter().find(|m| m.id == list.answered_by).or(list.members.first());
            let url = asked.and_then(|m| m.api_urls.first()).ok_or_else(|| Failure::from("no member has said where its API is"))?;
            let wanted = json!({"usages": ["server"], "ttlSecs": ttl, "description": "trireme member add"});
            let made: TokenCreated = client.ask(Method::POST, TOKENS, Some(&wanted)).await?;
            client.say(&format!("trireme server --server {url} --token {}", made.token), &made)
        }
        MemberCommand::Remove { member, force, admin } => {
            let client = AdminClient::new(&admin)?;
            let found = find(&client, &member).await?;
            let force = if force { "?force=true" } else { "" };
            let after: MemberList = client.ask(Method::DELETE, &format!("{MEMBERS}/{}{force}", found.id), None).await?;
            client.say(&format!("member {} ({}) is removed", found.id, found.name), &after)
        }
        MemberCommand::Promote { member, admin } => {
            let client = AdminClient::new(&admin)?;
            let found = find(&client, &member).await?;
            let after: MemberList = client.ask(Method::POST, &format!("{MEMBERS}/{}/promote", found.id), None).await?;
            client.say(&format!("member {} ({}) is a voter", found.id, found.name), &after)
        }
        MemberCommand::TransferLeader { member, admin } => {
            let client = AdminClient::new(&admin)?;
            let path = match member {
                Some(member) => format!("{MEMBERS}/{}/lead", find(&client, &member).await?.id),
                None => format!("{MEMBERS}/lead"),
            };
            let after: MemberList = client.ask(Method::POST, &path, None).await?;
            let leader = after.members.iter().find(|m| Some(m.id) == after.leader).map(|m| format!("member {} ({})", m.id, m.name));
            client.say(&format!("the leader is {}", leader.unwrap_or_else(|| "not known yet".to_owned())), &after)
        }
    }
}

/// The members, from the leader where it can be reached: only it knows who is alive and who lags.
async fn list(client: &AdminClient) -> Result<MemberList, Failure> {
    let list: MemberList = client.ask(Method::GET, MEMBERS, None).await?;
    let leader = list.members.iter().find(|m| Some(m.id) == list.leader && m.id != list.answered_by);
    let Some(url) = leader.and_then(|m| m.api_urls.first()) else { return Ok(list) };
    Ok(client.at(url)?.ask(Method::GET, MEMBERS, None).await.unwrap_or(list))
}

/// A member by its id or name.
async fn find(client: &AdminClient, wanted: &str) -> Result<Member, Failure> {
    let list: MemberList = client.ask(Method::GET, MEMBERS, None).await?;
    let known: Vec<String> = list.members.iter().map(|m| format!("{} ({})", m.id, m.name)).collect();
    let id = wanted.parse::<u64>().ok();
    let found = list.members.into_iter().find(|m| Some(m.id) == id || m.name == wanted);
    found.ok_or_else(|| Failure::usage(format!("there is no member {wanted:?}; there are {}", known.join(", "))))
}

fn rows(list: &MemberList) -> Vec<Vec<String>> {
    let state = |m: &Member| match &m.progress {
        Some(progress) if progress.alive => "alive",
        Some(_) => "dead",
        None => "unknown",
    };
    let lag = |m: &Member| m.progress.as_ref().map_or_else(|| "-".to_owned(), |p| p.lag_entries.to_string());
    let row = |m: &Member| {
        vec![m.id.to_string(), m.name.clone(), m.role.clone(), state(m).to_owned(), lag(m), m.peer_address.clone(), m.version.clone()]
    };
    list.members.iter().map(row).collect()
}
