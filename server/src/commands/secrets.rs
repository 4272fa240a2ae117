//! `trireme secrets-encrypt`.

use http::Method;
use trireme_api::admin::{SECRETS, SecretsStatus};

use super::{Failure, admin_client::AdminClient};
use crate::cli::SecretsCommand;

/// Runs one of the commands.
pub async fn secrets(command: SecretsCommand) -> Result<(), Failure> {
    let SecretsCommand::Status { admin } = command;
    let client = AdminClient::new(&admin)?;
    let status: SecretsStatus = client.ask(Method::GET, SECRETS, None).await?;
    client.print(&status, &["ENABLED", "CIPHER", "ACTIVE KEY", "KEYS"], |status| {
        vec![vec![status.enabled.to_string(), status.cipher.clone(), status.active_key.clone(), status.keys.join(",")]]
    })
}
