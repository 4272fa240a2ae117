//! The routes that need no identity: the CA bundle, and joining with a token.
//!
//! Owns: which clients may join as a node or a server, that a node's name stays with the machine that took it first,
//! and a rate limit before all of it. Must not do: anything for callers that are authenticated already
//! (except the list of servers, for nodes).
//!
//! Shapes and paths are in [`trireme_api::join`].

pub mod limiter;
mod node_names;
pub mod node_secrets;

use std::{net::IpAddr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Response, header};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use trireme_api::{
    gvk::GroupResource,
    join::{
        CA_PATH, ClusterFacts, NODE_PATH, NodeJoinAnswer, NodeJoinRequest, RENEW_PATH, SERVER_PATH, SERVERS_PATH, ServerJoinAnswer,
        ServerJoinRequest, ServerList,
    },
    names,
    status::Status,
};
use trireme_raft::{Store, StoreError};

use crate::pki::{ClusterKeys, PkiError, Profile, SealedBundle};
use crate::tokens::{Admitted, LiveTokens, LiveTokensError, TokenRole};
use limiter::RateLimiter;
use node_names::{NodeNames, granted_ips};
use node_secrets::NodeSecrets;
use trireme_apiserver::authn::unauthorized;
use trireme_apiserver::http::extra_routes::{ExtraRoutes, RouteCall};
use trireme_apiserver::storage::lookup::ObjectReader;
use trireme_apiserver::user::{GROUP_MASTERS, GROUP_NODES, UserInfo};
use trireme_apiserver::{Answer, store_status};

/// A refused token costs as much as this many good requests.
const REFUSAL_COST: u32 = 5;
/// The user name of a node begins so.
const NODE_USER: &str = "system:node:";

/// What the join endpoints need.
pub struct JoinOptions {
    /// The replicated store.
    pub store: Store,
    /// The watch cache.
    pub reader: Arc<dyn ObjectReader>,
    /// The cluster's keys.
    pub keys: Arc<ClusterKeys>,
    /// What admits.
    pub tokens: LiveTokens,
    /// Names and addresses of the API server's certificate, and what else no node may have in its own.
    pub reserved: Vec<String>,
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

    /// The API addresses of all members.
    pub async fn servers(&self) -> Vec<String> {
        let members = self.inner.options.store.members().await;
        let mut servers: Vec<String> =
            members.into_iter().filter_map(|member| member.addresses).flat_map(|addresses| addresses.api).collect();
        servers.sort();
        servers.dedup();
        servers
    }

    /// The role that the request's token grants. Without a valid token, 401, and the next attempt costs the client more.
    async fn admit(&self, headers: &HeaderMap, from: Option<IpAddr>, now: Timestamp) -> Answer<Admitted> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let admitted = match header {
            Some(header) => self.inner.options.tokens.verify_header(header, now).await.map_err(token_status)?,
            None => None,
        };
        admitted.ok_or_else(|| {
            self.inner.limiter.lock().allow(from, REFUSAL_COST, now);
            unauthorized()
        })
    }

    async fn node(&self, headers: &HeaderMap, body: &Bytes, from: Option<IpAddr>, now: Timestamp) -> Answer<Response<Bytes>> {
        // A server token admits agents too.
        let admitted = self.admit(headers, from, now).await?;
        let request: NodeJoinRequest = parse(body)?;
        check_name(&request.node_name)?;
        self.check_names(&request.node_name, &request.node_ips, admitted.role).await?;
        self.inner.secrets.claim(&request.node_name, &request.node_password, now).await?;
        let answer = self.certify(&request, now).await?;
        tracing::info!(node = request.node_name, ?from, "a node joined");
        json(&answer)
    }

    /// Another pair of certificates for a node that has one: its name is the one that it proved.
    async fn renew(&self, user: &UserInfo, body: &Bytes, now: Timestamp) -> Answer<Response<Bytes>> {
        let Some(node) = user.name.strip_prefix(NODE_USER).filter(|_| user.in_group(GROUP_NODES)) else {
            return Err(Box::new(Status::forbidden_path(&format!("User {:?} is no node", user.name))));
        };
        let request: NodeJoinRequest = parse(body)?;
        if request.node_name != node {
            return Err(Box::new(Status::forbidden_path(&format!("node {node:?} cannot get certificates of {:?}", request.node_name))));
        }
        // Only the machine that took the name has the secret that was stored with it.
        self.inner.secrets.claim(node, &request.node_password, now).await?;
        // Not what its Node object says: a kubelet writes that itself.
        let old = request.serving_certificate_pem.as_deref().unwrap_or_default();
        let granted = granted_ips(old, &self.inner.options.keys.server_ca.certificate_pem, node);
        let new: Vec<IpAddr> = request.node_ips.iter().copied().filter(|ip| !granted.contains(ip)).collect();
        if !new.is_empty() {
            self.check_names(node, &new, TokenRole::Node).await?;
        }
        tracing::info!(node, "a node's certificates were renewed");
        json(&self.certify(&request, now).await?)
    }

    async fn certify(&self, request: &NodeJoinRequest, now: Timestamp) -> Answer<NodeJoinAnswer> {
        let options = &self.inner.options;
        let client = Profile::KubeletClient { node_name: request.node_name.clone() };
        let serving = Profile::KubeletServing { node_name: request.node_name.clone(), addresses: request.node_ips.clone() };
        let sign = |profile: &Profile, csr: &str| profile.sign_csr(&options.keys, csr, now).map_err(bad_csr);
        Ok(NodeJoinAnswer {
            client_certificate_pem: sign(&client, &request.client_csr_pem)?,
            serving_certificate_pem: sign(&serving, &request.serving_csr_pem)?,
            server_ca_pem: options.keys.server_ca.certificate_pem.clone(),
            client_ca_pem: options.keys.client_ca.certificate_pem.clone(),
            servers: self.servers().await,
            cluster: options.facts.clone(),
        })
    }

    /// Refuses what a node's serving certificate may not have in it.
    async fn check_names(&self, node_name: &str, node_ips: &[IpAddr], role: TokenRole) -> Answer<()> {
        let options = &self.inner.options;
        let members = options.store.members().await;
        let nodes = options.reader.list("", "nodes", None);
        let names = NodeNames { members: &members, nodes: &nodes, reserved: &options.reserved, facts: &options.facts };
        match names.complaint(node_name, node_ips, role) {
            None => Ok(()),
            Some((code, text)) => Err(Box::new(Status::failure(code, if code == 400 { "BadRequest" } else { "Forbidden" }, text))),
        }
    }

    async fn server(&self, headers: &HeaderMap, body: &Bytes, from: Option<IpAddr>, now: Timestamp) -> Answer<Response<Bytes>> {
        let admitted = self.admit(headers, from, now).await?;
        if admitted.role != TokenRole::Server {
            let message = "a node token does not admit servers: use the token of server/token";
            return Err(Box::new(Status::failure(403, "Forbidden", message)));
        }
        let request: ServerJoinRequest = parse(body)?;
        check_name(&request.node_name)?;
        let (bundle, server_secret) = self.sealed(&admitted)?;
        let sealed_keys = serde_json::to_value(bundle).map_err(|error| Box::new(Status::internal(error)))?;
        let ticket = match &request.peer_spki {
            None => None,
            Some(spki) => Some(self.make_place(&request, spki).await?),
        };
        json(&ServerJoinAnswer { sealed_keys, cluster: self.inner.options.facts.clone(), server_secret, ticket })
    }

    /// The sealed keys as the store has them for this holder of a token, and the server secret in force as it is told to joiners.
    fn sealed(&self, admitted: &Admitted) -> Answer<(SealedBundle, Option<(String, String)>)> {
        let sealed = self.inner.options.tokens.sealed_for(admitted).map_err(token_status)?;
        let (key, secret) =
            sealed.ok_or_else(|| Box::new(Status::service_unavailable("this cluster has not stored its keys yet, try again")))?;
        let bundle = SealedBundle::from_stored(&key).map_err(|error| Box::new(Status::internal(error)))?;
        Ok((bundle, secret.map(|(salt, value)| (BASE64_STANDARD.encode(value), hex::encode(salt)))))
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

// === impl ExtraRoutes for JoinService ===

impl ExtraRoutes for JoinService {
    fn is_for_strangers(&self, path: &str) -> bool {
        matches!(path, CA_PATH | NODE_PATH | SERVER_PATH)
    }

    fn is_for_members(&self, path: &str) -> bool {
        matches!(path, RENEW_PATH | SERVERS_PATH)
    }

    fn throttle(&self, from: Option<IpAddr>, now: Timestamp) -> Answer<()> {
        if self.inner.limiter.lock().allow(from, 1, now) {
            return Ok(());
        }
        Err(Status::too_many_requests("too many join requests, try again later", 1).into())
    }

    fn stranger<'a>(&'a self, request: RouteCall<'a>) -> BoxFuture<'a, Answer<Response<Bytes>>> {
        async move {
            match (request.method, request.path) {
                (&Method::GET, CA_PATH) => {
                    let pem = self.inner.options.keys.server_ca.certificate_pem.clone();
                    Ok(respond("application/x-pem-file", pem.into()))
                }
                (&Method::POST, NODE_PATH) => self.node(request.headers, request.body, request.from, request.now).await,
                (&Method::POST, SERVER_PATH) => self.server(request.headers, request.body, request.from, request.now).await,
                (method, path) => Err(not_supported(method, path)),
            }
        }
        .boxed()
    }

    fn member<'a>(&'a self, user: &'a UserInfo, request: RouteCall<'a>) -> BoxFuture<'a, Answer<Response<Bytes>>> {
        async move {
            match (request.method, request.path) {
                (&Method::POST, RENEW_PATH) => self.renew(user, request.body, request.now).await,
                (&Method::GET, SERVERS_PATH) if user.in_group(GROUP_NODES) || user.in_group(GROUP_MASTERS) => {
                    json(&ServerList { servers: self.servers().await })
                }
                (&Method::GET, path) => Err(Box::new(Status::forbidden_path(&format!("User {:?} cannot get path {path:?}", user.name)))),
                (method, path) => Err(not_supported(method, path)),
            }
        }
        .boxed()
    }
}

fn not_supported(method: &Method, path: &str) -> Box<Status> {
    Box::new(Status::failure(405, "MethodNotAllowed", format!("{method} is not supported on {path}")))
}

fn token_status(error: LiveTokensError) -> Box<Status> {
    Box::new(match error {
        LiveTokensError::Store(error) => store_status(&error, &GroupResource::new("trireme", "tokens"), "get"),
        error => Status::internal(error),
    })
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

#[cfg(test)]
mod tests;
