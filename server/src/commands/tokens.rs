//! `trireme token`.

use http::Method;
use jiff::Timestamp;
use serde_json::json;
use trireme_api::admin::{RotatedToken, TOKENS, TokenCreated, TokenInfo, TokenList, TokenUsage};

use super::{Failure, admin_client::AdminClient};
use crate::cli::{TokenCommand, Usage};

const HEADER: [&str; 5] = ["ID", "USAGES", "CREATED", "EXPIRES", "DESCRIPTION"];

/// Runs one of the commands.
pub async fn tokens(command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { usages, ttl, description, admin } => {
            let client = AdminClient::new(&admin)?;
            let usages: Vec<&str> = usages.iter().map(|usage| word(*usage)).collect();
            let wanted = json!({"usages": usages, "ttlSecs": ttl, "description": description});
            let made: TokenCreated = client.ask(Method::POST, TOKENS, Some(&wanted)).await?;
            client.say(&made.token, &made)
        }
        TokenCommand::List { admin } => {
            let client = AdminClient::new(&admin)?;
            let list: TokenList = client.ask(Method::GET, TOKENS, None).await?;
            client.print(&list, &HEADER, |list| list.tokens.iter().map(row).collect())
        }
        TokenCommand::Delete { id, admin } => {
            let client = AdminClient::new(&admin)?;
            // The whole token names the same entry.
            let id = id.rsplit("::").next().and_then(|text| text.split('.').next()).unwrap_or_default().to_owned();
            if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(Failure::usage(format!("token id {id:?}: letters and digits are expected, as `trireme token list` shows")));
            }
            let after: TokenList = client.ask(Method::DELETE, &format!("{TOKENS}/{id}"), None).await?;
            client.say(&format!("token {id} is deleted"), &after)
        }
        TokenCommand::Rotate { new_token, admin } => {
            let client = AdminClient::new(&admin)?;
            let wanted = json!({"secret": new_token});
            let now: RotatedToken = client.ask(Method::POST, &format!("{TOKENS}/rotate"), Some(&wanted)).await?;
            client.say(&format!("server token: {}\nnode token:   {}", now.server_token, now.node_token), &now)
        }
    }
}

fn word(usage: Usage) -> &'static str {
    match usage {
        Usage::Agent => "agent",
        Usage::Server => "server",
    }
}

fn row(token: &TokenInfo) -> Vec<String> {
    let usage = |usage: &TokenUsage| match usage {
        TokenUsage::Agent => "agent",
        TokenUsage::Server => "server",
    };
    let usages: Vec<&str> = token.usages.iter().map(usage).collect();
    let expires = token.expires.map_or_else(|| "never".to_owned(), instant);
    vec![token.id.clone(), usages.join(","), token.created.map(instant).unwrap_or_default(), expires, token.description.clone()]
}

fn instant(secs: i64) -> String {
    Timestamp::from_second(secs).map(|at| at.to_string()).unwrap_or_default()
}
