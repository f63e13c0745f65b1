//! The API server over real TLS, as the `kube` crate and kubectl see it.

mod support;

mod authentication;
mod bad_requests;
mod concurrency;
mod deletion;
mod kubectl;
mod kubelets;
mod lists;
mod objects;
mod restart;
mod services;
mod watches;
