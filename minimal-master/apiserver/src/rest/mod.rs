//! What the verbs do: from a decoded request to the store and back.

mod bind;
mod create;
mod delete;
mod evict;
mod finalize;
mod list;
mod options;
mod patch;
mod read;
mod registry;
mod scale;
mod selection;
mod token;
mod update;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use sluice_api::ApiError;
use sluice_api::schema::FieldValidation;
use sluice_api::table::IncludeObject;

pub(crate) use options::DeleteOptions;
pub(crate) use registry::{At, Part};

use crate::accept;
use crate::app::App;
use crate::query::Query;
use crate::respond::{Answer, View};
use crate::target::Target;

/// An authenticated request on a resource.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
}

impl Call {
    pub(crate) fn view(&self) -> Result<View, ApiError> {
        Ok(View {
            kind: self.target.kind,
            form: accept::form(&self.headers)?,
            include: IncludeObject::parse(self.query.get("includeObject"))?,
        })
    }

    pub(crate) fn content_type(&self) -> Option<&str> {
        self.headers.get(CONTENT_TYPE)?.to_str().ok()
    }

    fn at(&self) -> At<'_> {
        At {
            kind: self.target.kind,
            namespace: &self.target.namespace,
            name: &self.target.name,
        }
    }

    fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        FieldValidation::parse(self.query.get("fieldValidation"))
    }
}

/// Answers a request on a resource. Streams of pods (log, exec, ...) are not among them.
pub(crate) async fn serve(
    call: Call,
    verb: &'static str,
    method: &Method,
    body: Bytes,
) -> Result<Answer, ApiError> {
    let target = &call.target;
    if target.subresource.is_empty() && !target.kind.allows(verb) {
        return Err(ApiError::method_not_supported(target.kind, verb));
    }
    match (verb, target.subresource.as_str()) {
        ("watch", "") => watch::watch(call).await,
        ("list", "") => list::list(&call).await,
        ("get", "" | "status") => read::get(&call).await,
        ("create", "") => create::create(&call, body).await,
        ("update", "") => update::update(&call, body, Part::Object).await,
        ("update", "status") => update::update(&call, body, Part::Status).await,
        ("patch", "") => patch::patch(&call, body, Part::Object).await,
        ("patch", "status") => patch::patch(&call, body, Part::Status).await,
        ("delete", "") => delete::delete(&call, body).await,
        ("deletecollection", "") => delete::delete_collection(&call, body).await,
        ("update", "finalize") => finalize::finalize(&call, body).await,
        ("get", "scale") => scale::get(&call).await,
        ("update", "scale") => scale::update(&call, body).await,
        ("patch", "scale") => scale::patch(&call, body).await,
        ("create", "binding") => bind::bind(&call, body).await,
        ("create", "eviction") => evict::evict(&call, body).await,
        ("create", "token") => token::create(&call, body).await,
        _ => {
            tracing::debug!(%method, verb, subresource = target.subresource, "not served");
            Err(ApiError::method_not_allowed())
        }
    }
}
