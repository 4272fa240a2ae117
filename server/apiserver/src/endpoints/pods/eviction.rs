//! `pods/eviction`: deletes a pod if the disruption budget that covers it allows that.
//!
//! The budget is an admission plugin's: its decrement joins the transaction that deletes the pod, so that a budget is never spent
//! twice. Answers to upstream's `EvictionREST` (`pkg/registry/core/pod/storage/eviction.go`) and
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>.

use http::Response;
use trireme_api::gvk::GroupVersionKind;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::parameters::Parameters;
use crate::http::query::{DeleteOptions, WriteOptions};
use crate::http::respond::{self, Body};
use crate::registry::delete::Cause;

/// Evicts a pod.
pub async fn create(ctx: &Context) -> Answer<Response<Body>> {
    let write = WriteOptions::parse(&ctx.info.query, "CreateOptions")?;
    let eviction = ctx.decode(&[GroupVersionKind::new("policy", "v1", "Eviction")], write.field_validation)?.object;
    let name = &ctx.info.name;
    if meta::name(&eviction) != name {
        Err(Status::bad_request("name in URL does not match name in Eviction object"))?;
    }
    let mut options = DeleteOptions::parse(&Parameters::default(), eviction.get("deleteOptions"))?;
    options.dry_run |= write.dry_run;
    let mut mutation = ctx.mutation(options.dry_run, options.to_value())?;
    mutation.delete(name, &options, &Cause::Eviction(eviction)).await?;
    let mut response = respond::status_as(&Status::success_plain(201), ctx.form.encoding);
    respond::add_warnings(&mut response, &mutation.warnings);
    Ok(response)
}
