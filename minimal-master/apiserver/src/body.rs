//! Bodies of requests, whichever media type they have.

use serde_json::Value;
use sluice_api::schema::{self, FieldValidation};
use sluice_api::{ApiError, Kind};

use crate::protobuf;

/// An object of a kind, decoded and checked, with warnings for the client.
pub(crate) fn read(
    kind: &Kind,
    body: &[u8],
    content_type: Option<&str>,
    mode: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    match protobuf::is_protobuf(content_type) {
        true => schema::read(kind, &json(body)?, None, mode),
        false => schema::read(kind, body, content_type, mode).map_err(with_media_types),
    }
}

/// A body as it is, without a look at its fields.
pub(crate) fn parse(body: &[u8], content_type: Option<&str>) -> Result<Value, ApiError> {
    match protobuf::is_protobuf(content_type) {
        true => protobuf::decode(body).map_err(refuse),
        false => Ok(schema::parse(body, content_type)
            .map_err(with_media_types)?
            .value),
    }
}

fn json(body: &[u8]) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(&protobuf::decode(body).map_err(refuse)?).map_err(ApiError::internal)
}

fn refuse(error: protobuf::ProtobufError) -> ApiError {
    ApiError::bad_request(format!("error decoding protobuf: {error}"))
}

/// Names all types that are read here.
fn with_media_types(error: ApiError) -> ApiError {
    if error.code != 415 {
        return error;
    }
    let types: Vec<&str> = schema::MEDIA_TYPES
        .iter()
        .copied()
        .chain([protobuf::MEDIA_TYPE])
        .collect();
    ApiError::unsupported_media_type(&types)
}
