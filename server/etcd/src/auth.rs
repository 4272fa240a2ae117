//! etcd's Auth service, as a server without users answers it: access is decided by the client certificate.

use tonic::{Request, Response, Status};
use trireme_proto::etcd::auth_server::Auth;
use trireme_proto::etcd::{AuthHeaderResponse, AuthStatusRequest, AuthStatusResponse, AuthUnsupportedRequest};

use crate::backend::Backend;
use crate::error;

type Answer = Result<Response<AuthHeaderResponse>, Status>;

/// The service.
pub(crate) struct AuthService {
    backend: Backend,
}

// === impl AuthService ===

impl AuthService {
    pub(crate) fn new(backend: Backend) -> AuthService {
        AuthService { backend }
    }
}

fn unsupported() -> Answer {
    Err(Status::unimplemented("etcdserver: there are no users and roles: a client certificate of the etcd-client authority opens this API"))
}

macro_rules! without_users {
    ($($method:ident)*) => {
        #[tonic::async_trait]
        impl Auth for AuthService {
            async fn authenticate(&self, _request: Request<AuthUnsupportedRequest>) -> Answer {
                Err(error::AUTH_NOT_ENABLED.into())
            }

            async fn auth_disable(&self, _request: Request<AuthUnsupportedRequest>) -> Answer {
                Ok(Response::new(AuthHeaderResponse { header: self.backend.header_now() }))
            }

            async fn auth_status(&self, _request: Request<AuthStatusRequest>) -> Result<Response<AuthStatusResponse>, Status> {
                Ok(Response::new(AuthStatusResponse { header: self.backend.header_now(), enabled: false, auth_revision: 1 }))
            }

            $(async fn $method(&self, _request: Request<AuthUnsupportedRequest>) -> Answer {
                unsupported()
            })*
        }
    };
}

without_users! {
    auth_enable user_add user_get user_list user_delete user_change_password user_grant_role user_revoke_role
    role_add role_get role_list role_delete role_grant_permission role_revoke_permission
}
