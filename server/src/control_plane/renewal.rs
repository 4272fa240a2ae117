//! Renews this server's certificates in time.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use trireme_apiserver::ApiServer;
use trireme_cluster::pki::Certificates;

/// The longest sleep: the wall clock may jump under a timer that only counts.
const CHECK_INTERVAL: Duration = Duration::from_secs(600);
/// After a renewal that failed.
const AGAIN: Duration = Duration::from_secs(30);

/// Sleeps until a certificate is due, renews it, and shows in the metrics when each ends. Runs until dropped.
pub async fn keep(certificates: Arc<Certificates>, api: ApiServer) {
    loop {
        let due = certificates.clone();
        // Keys are made and files synced: not on a thread that serves.
        let renewed = tokio::task::spawn_blocking(move || due.renew(false, Timestamp::now())).await;
        let mut sleep = CHECK_INTERVAL;
        match renewed {
            Ok(Ok(_)) => {
                let left = certificates.next_due().saturating_sub(Timestamp::now().as_second());
                sleep = sleep.min(Duration::from_secs(left.clamp(1, i64::MAX).unsigned_abs()));
            }
            Ok(Err(reason)) => {
                tracing::error!(reason, "certificates are due and cannot be renewed; trying again");
                sleep = AGAIN;
            }
            Err(error) => tracing::error!(%error, "the renewal of certificates ended badly"),
        }
        match certificates.list() {
            Ok(list) => api.note_certificates(&list),
            Err(error) => tracing::warn!(%error, "certificates cannot be read"),
        }
        tokio::time::sleep(sleep).await;
    }
}
