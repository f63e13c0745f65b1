//! `get`: one object, straight from the store, so that a client always reads its own writes.

use http::StatusCode;
use sluice_api::ApiError;

use super::Call;
use super::registry::store_error;
use crate::codec;
use crate::respond::Answer;

pub(super) async fn get(call: &Call) -> Result<Answer, ApiError> {
    let view = call.view()?;
    let at = call.at();
    let found = call.app.store.get(&at.key()).await.map_err(store_error)?;
    let kv = found.ok_or_else(|| at.not_found())?;
    view.object(StatusCode::OK, codec::body(&kv))
}
