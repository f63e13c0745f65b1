//! The only door to the desired state: authentication, admission, REST, watch, and streaming to kubelets.
//!
//! A request comes through [`listen`] (TLS) and [`front`] (who is it, and is it about a resource) to [`rest`] (the
//! verbs) or to [`streaming`] (logs, exec and the like, passed on to a kubelet). Objects live in the store; lists
//! and watches are served from the [`cache`], which follows it. What objects mean is `sluice-api`'s business.

#![forbid(unsafe_code)]

mod accept;
mod admission;
mod app;
mod authn;
mod body;
mod bootstrap;
mod cache;
mod codec;
mod discovery;
mod expiry;
mod front;
mod health;
mod keys;
mod listen;
mod metrics;
mod object;
pub mod pki;
mod protobuf;
mod query;
mod respond;
mod rest;
mod reviews;
mod server;
mod services;
mod streaming;
mod target;
mod tls;

pub use authn::TokenError;
pub use authn::TokenFileError;
pub use pki::Pki;
pub use server::{Config, Loopback, Server, ServerError};
pub use tls::TlsError;
