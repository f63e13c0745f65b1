//! What the API's kinds are: discovery, schemas, defaulting, validation, patches, selectors and tables, all pure.
//!
//! Objects are [`serde_json::Value`]s in their versioned wire form, so that nothing a client sent is lost on the way
//! through typed structs. One description of the types, read once from `k8s-openapi`'s schemas, serves decoding,
//! strategic merge patches and the OpenAPI documents alike ([`schema::types`]).
//!
//! A write goes through the modules in this order: [`schema::read`] (bytes to a decoded object), [`defaults::apply`],
//! the API server's own admission, [`prepare`] (what the client may not set), [`validate`]. Reads end in
//! [`table::render`] where the client asks for a table.

pub mod binding;
pub mod convert;
pub mod defaults;
pub mod discovery;
pub mod duration;
pub mod field;
pub mod kinds;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod prepare;
pub mod quantity;
pub mod scale;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod validate;

mod equality;
mod json;

pub use field::FieldError;
pub use kinds::Kind;
pub use status::ApiError;
