//! The certificates of this server: `/trireme/v1/certificates`.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Response};
use jiff::Timestamp;
use trireme_api::admin::{CERTIFICATES, CertificateList};
use trireme_api::status::Status;

use crate::pki::Certificates;
use trireme_apiserver::Answer;
use trireme_apiserver::endpoints::operator::{RouteFamily, RouteRequest, json, method_not_allowed, not_found};
use trireme_apiserver::http::respond::Body;

/// The endpoints of the certificates.
pub struct CertificatesOf {
    name: String,
    certificates: Arc<Certificates>,
}

impl RouteFamily for CertificatesOf {
    fn name(&self) -> &'static str {
        CERTIFICATES
    }

    fn answer(&self, request: RouteRequest) -> BoxFuture<'_, Answer<Response<Body>>> {
        self.dispatch(request).boxed()
    }
}

impl CertificatesOf {
    /// Those of the server of this name.
    pub fn new(name: String, certificates: Arc<Certificates>) -> CertificatesOf {
        CertificatesOf { name, certificates }
    }

    async fn dispatch(&self, request: RouteRequest) -> Answer<Response<Body>> {
        match (&request.method, request.parts().as_slice()) {
            (&Method::GET, []) => self.list(),
            (&Method::POST, ["rotate"]) => {
                tracing::info!(user = request.user.name, "all certificates of this server are to be renewed");
                let certificates = self.certificates.clone();
                // Keys are made and files synced: not on a thread that serves.
                let renewed = tokio::task::spawn_blocking(move || certificates.renew(true, Timestamp::now())).await;
                match renewed {
                    Ok(Ok(_)) => self.list(),
                    Ok(Err(reason)) => Err(Box::new(Status::internal(reason))),
                    Err(error) => Err(Box::new(Status::internal(error))),
                }
            }
            (_, [] | ["rotate"]) => Err(method_not_allowed(&request)),
            _ => Err(not_found()),
        }
    }

    fn list(&self) -> Answer<Response<Body>> {
        let certificates = self.certificates.list().map_err(|error| Box::new(Status::internal(error)))?;
        json(&CertificateList { holder: self.name.clone(), certificates })
    }
}
