//! The doors that answer strangers: the CA bundle, and joining with a token.
//!
//! Owns: who may come in as a node or a server, that a node's name stays with the machine that took it first,
//! and a rate limit in front of all of it. Must not do: anything for callers who have an identity already
//! (but the list of servers, for nodes).
//!
//! Shapes and paths are in [`trireme_api::join`].

pub mod limiter;
pub mod node_secrets;

use std::{net::IpAddr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Method, Response, StatusCode, header, request::Parts};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use trireme_api::{
    gvk::GroupResource,
    join::{
        CA_PATH, ClusterFacts, NODE_PATH, NodeJoinAnswer, NodeJoinRequest, SERVER_PATH, SERVERS_PATH, ServerJoinAnswer, ServerJoinRequest,
        ServerList,
    },
    names,
    status::Status,
};
use trireme_raft::{Store, StoreError};

use crate::{
    authn::unauthorized,
    error::{Answer, store_status},
    lookup::ObjectReader,
    pki::{ClusterKeys, PkiError, Profile, SealedBundle, seal::SEALED_NAME},
    tokens::{JoinTokens, TokenRole},
    user::{GROUP_MASTERS, UserInfo},
};
use limiter::RateLimiter;
use node_secrets::NodeSecrets;

/// A refused token costs as much as this many good requests.
const REFUSAL_COST: u32 = 5;
/// The group of nodes.
const NODES: &str = "system:nodes";
/// Addresses that a node may have in its certificate.
const NODE_IPS_MAX: usize = 16;

/// What the join endpoints need.
pub struct JoinOptions {
    /// The replicated store.
    pub store: Store,
    /// The watch cache.
    pub reader: Arc<dyn ObjectReader>,
    /// The cluster's keys.
    pub keys: Arc<ClusterKeys>,
    /// The secrets that admit.
    pub tokens: JoinTokens,
    /// What all parts of the cluster agree on.
    pub facts: ClusterFacts,
}

/// The join endpoints. Cheap to clone.
#[derive(Clone)]
pub struct JoinService {
    inner: Arc<Inner>,
}

struct Inner {
    options: JoinOptions,
    secrets: NodeSecrets,
    limiter: Mutex<RateLimiter>,
}

impl JoinService {
    /// The endpoints over these options.
    pub fn new(options: JoinOptions) -> JoinService {
        let secrets = NodeSecrets::new(options.store.clone(), options.reader.clone());
        JoinService { inner: Arc::new(Inner { options, secrets, limiter: Mutex::default() }) }
    }

    /// Answers a stranger's request, before any authentication; `None` if the path is not one of these doors.
    pub async fn stranger(&self, parts: &Parts, body: &Bytes, from: Option<IpAddr>, now: Timestamp) -> Option<Response<Bytes>> {
        let (method, path) = (&parts.method, parts.uri.path());
        if !matches!(path, CA_PATH | NODE_PATH | SERVER_PATH) {
            return None;
        }
        if !self.inner.limiter.lock().allow(from, 1, now) {
            let status = Status::too_many_requests("too many join requests, try again later", 1);
            return Some(refusal(&status));
        }
        let answer = match (method, path) {
            (&Method::GET, CA_PATH) => {
                let pem = self.inner.options.keys.server_ca.certificate_pem.clone();
                Ok(respond("application/x-pem-file", pem.into()))
            }
            (&Method::POST, NODE_PATH) => self.node(parts, body, from, now).await,
            (&Method::POST, SERVER_PATH) => self.server(parts, body, from, now).await,
            _ => Err(Box::new(Status::failure(405, "MethodNotAllowed", format!("{method} is not supported on {path}")))),
        };
        Some(answer.unwrap_or_else(|status| refusal(&status)))
    }

    /// Answers `GET` [`SERVERS_PATH`] for an authenticated user; `None` for other paths.
    pub async fn servers_for(&self, user: &UserInfo, path: &str) -> Option<Answer<Response<Bytes>>> {
        if path != SERVERS_PATH {
            return None;
        }
        if !user.in_group(NODES) && !user.in_group(GROUP_MASTERS) {
            let message = format!("User {:?} cannot get path {path:?}", user.name);
            return Some(Err(Box::new(Status::forbidden_path(&message))));
        }
        Some(json(&ServerList { servers: self.servers().await }))
    }

    /// The API addresses of all members.
    pub async fn servers(&self) -> Vec<String> {
        let members = self.inner.options.store.members().await;
        let mut servers: Vec<String> =
            members.into_iter().filter_map(|member| member.addresses).flat_map(|addresses| addresses.api).collect();
        servers.sort();
        servers.dedup();
        servers
    }

    /// The role that the request's token gives, or 401 (and a dearer next attempt).
    fn role(&self, parts: &Parts, from: Option<IpAddr>, now: Timestamp) -> Answer<TokenRole> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match header.and_then(|header| self.inner.options.tokens.verify_header(header)) {
            Some(role) => Ok(role),
            None => {
                self.inner.limiter.lock().allow(from, REFUSAL_COST, now);
                Err(unauthorized())
            }
        }
    }

    async fn node(&self, parts: &Parts, body: &Bytes, from: Option<IpAddr>, now: Timestamp) -> Answer<Response<Bytes>> {
        // A server token admits agents too.
        self.role(parts, from, now)?;
        let request: NodeJoinRequest = parse(body)?;
        check_name(&request.node_name)?;
        if request.node_ips.len() > NODE_IPS_MAX {
            return Err(Box::new(Status::bad_request(format!("more than {NODE_IPS_MAX} node addresses"))));
        }
        self.inner.secrets.claim(&request.node_name, &request.node_password, now).await?;
        let options = &self.inner.options;
        let client = Profile::KubeletClient { node_name: request.node_name.clone() };
        let serving = Profile::KubeletServing { node_name: request.node_name.clone(), addresses: request.node_ips.clone() };
        let sign = |profile: &Profile, csr: &str| profile.sign_csr(&options.keys, csr, now).map_err(bad_csr);
        let answer = NodeJoinAnswer {
            client_certificate_pem: sign(&client, &request.client_csr_pem)?,
            serving_certificate_pem: sign(&serving, &request.serving_csr_pem)?,
            server_ca_pem: options.keys.server_ca.certificate_pem.clone(),
            client_ca_pem: options.keys.client_ca.certificate_pem.clone(),
            servers: self.servers().await,
            cluster: options.facts.clone(),
        };
        tracing::info!(node = request.node_name, ?from, "a node joined");
        json(&answer)
    }

    async fn server(&self, parts: &Parts, body: &Bytes, from: Option<IpAddr>, now: Timestamp) -> Answer<Response<Bytes>> {
        if self.role(parts, from, now)? != TokenRole::Server {
            let message = "a node token does not admit servers: use the token of server/token";
            return Err(Box::new(Status::failure(403, "Forbidden", message)));
        }
        let request: ServerJoinRequest = parse(body)?;
        check_name(&request.node_name)?;
        let sealed_keys = serde_json::to_value(self.sealed()?).map_err(|error| Box::new(Status::internal(error)))?;
        let ticket = match &request.peer_spki {
            None => None,
            Some(spki) => Some(self.make_place(&request, spki).await?),
        };
        json(&ServerJoinAnswer { sealed_keys, cluster: self.inner.options.facts.clone(), ticket })
    }

    /// The sealed keys as the store has them.
    fn sealed(&self) -> Answer<SealedBundle> {
        let record = self.inner.options.store.sealed(SEALED_NAME).map_err(|error| Box::new(store_status(&error, &members(), "get")))?;
        let key = record.and_then(|record| record.key);
        let key = key.ok_or_else(|| Box::new(Status::service_unavailable("this cluster has not stored its keys yet, try again")))?;
        SealedBundle::from_stored(&key).map_err(|error| Box::new(Status::internal(error)))
    }

    /// Makes the joiner a learner of the Raft group. Returns its ticket, base64.
    async fn make_place(&self, request: &ServerJoinRequest, spki: &str) -> Answer<String> {
        let spki = hex::decode(spki)
            .ok()
            .filter(|spki| spki.len() == 32)
            .ok_or_else(|| Box::new(Status::bad_request("peerSpki: not the hex SHA-256 of a key")))?;
        let record = trireme_raft::member_record(
            &request.node_name,
            spki.into(),
            &request.peer_address,
            std::slice::from_ref(&request.api_url),
            env!("CARGO_PKG_VERSION"),
        );
        match self.inner.options.store.add_learner(record).await {
            Ok(ticket) => Ok(BASE64_STANDARD.encode(ticket.to_bytes())),
            Err(StoreError::Invalid(reason)) => Err(Box::new(Status::conflict(&members(), &request.node_name, &reason))),
            Err(error) => Err(Box::new(store_status(&error, &members(), "create"))),
        }
    }
}

fn members() -> GroupResource {
    GroupResource::new("trireme", "members")
}

fn parse<T: serde::de::DeserializeOwned>(body: &Bytes) -> Answer<T> {
    serde_json::from_slice(body).map_err(|error| Box::new(Status::bad_request(format!("join request: {error}"))))
}

fn check_name(name: &str) -> Answer<()> {
    match names::is_dns1123_subdomain(name).first() {
        None => Ok(()),
        Some(complaint) => Err(Box::new(Status::bad_request(format!("node name {name:?}: {complaint}")))),
    }
}

fn bad_csr(error: PkiError) -> Box<Status> {
    Box::new(Status::bad_request(format!("certificate signing request: {error}")))
}

fn json(answer: &impl Serialize) -> Answer<Response<Bytes>> {
    let body = serde_json::to_vec(answer).map_err(|error| Box::new(Status::internal(error)))?;
    Ok(respond("application/json", body.into()))
}

fn respond(content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

fn refusal(status: &Status) -> Response<Bytes> {
    let mut response = respond("application/json", status.to_bytes());
    *response.status_mut() = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(secs) = status.retry_after_secs() {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(secs));
    }
    response
}

#[cfg(test)]
mod tests;
