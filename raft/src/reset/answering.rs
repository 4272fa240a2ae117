//! Which of the old members still answer: a reset beside a living quorum would split one cluster into two.

use std::sync::Arc;
use std::time::Duration;

use trireme_proto::peer;

use super::Survivor;
use crate::error::StoreError;
use crate::metrics::StoreMetrics;
use crate::network::client::{Lane, PeerClients};
use crate::network::directory::PeerDirectory;
use crate::network::tls::PeerIdentity;
use crate::network::transport::Tcp;

/// For a connection, and again for an answer over it.
const PATIENCE: Duration = Duration::from_secs(3);

impl Survivor {
    /// Asks the other voters, over mutual TLS, whether they are there.
    ///
    /// # Errors
    /// `Invalid` where those that answer are a quorum, alone or with this member.
    pub async fn refuse_if_quorum_answers(&self, identity: Arc<PeerIdentity>) -> Result<(), StoreError> {
        let voters = self.voters();
        let others: Vec<u64> = voters.iter().copied().filter(|id| *id != self.report.node_id).collect();
        let directory = Arc::new(PeerDirectory::default());
        directory.update(&self.membership);
        let (node_id, cluster_id) = (self.report.node_id, self.report.cluster_id);
        let clients = PeerClients::new(
            node_id,
            cluster_id,
            identity,
            Arc::new(Tcp::outgoing()),
            directory,
            PATIENCE,
            PATIENCE,
            Arc::new(StoreMetrics::new()),
        );
        let asked = others.iter().map(|id| answers(&clients, *id));
        let answers = futures::future::join_all(asked).await;
        let alive: Vec<u64> = others.iter().zip(answers).filter(|(_, alive)| *alive).map(|(id, _)| *id).collect();
        let quorum = voters.len() / 2 + 1;
        let named = || alive.iter().map(|id| self.name_of(*id)).collect::<Vec<_>>().join(", ");
        if alive.len() >= quorum {
            return Err(StoreError::Invalid(format!(
                "{} of the {} voting members answer ({}): the cluster lives without this server; start it again, or let it join with an empty directory",
                alive.len(),
                voters.len(),
                named()
            )));
        }
        if !alive.is_empty() && voters.contains(&node_id) && alive.len() + 1 >= quorum {
            return Err(StoreError::Invalid(format!(
                "{} answers: with this server that is a quorum of the {} voting members; start this server instead, nothing is lost",
                named(),
                voters.len()
            )));
        }
        Ok(())
    }

    fn name_of(&self, id: u64) -> String {
        let member = self.report.members.iter().find(|member| member.id == id);
        let address = member.and_then(|member| member.addresses.as_ref()).and_then(|addresses| addresses.peer.first());
        format!("{} at {}", member.map_or("?", |member| &member.name), address.map_or("?", String::as_str))
    }
}

/// Whether the holder of this member's key answers as a member of this cluster.
async fn answers(clients: &PeerClients, id: u64) -> bool {
    let Ok(mut client) = clients.client(id, Lane::Consensus) else { return false };
    match tokio::time::timeout(PATIENCE * 2, client.read_index(peer::ReadIndexRequest {})).await {
        Ok(Ok(_)) => true,
        // Only a member of this cluster answers with these; a member that now belongs to another cluster says so with another code.
        Ok(Err(status)) => matches!(status.code(), tonic::Code::PermissionDenied | tonic::Code::Unauthenticated),
        Err(_) => false,
    }
}
