//! Who asks: by client certificate (CN is the user, O the groups), by bearer token, or nobody (401).

mod service_account;
mod token_file;

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

pub use service_account::TokenError;
pub(crate) use service_account::{Claims, ISSUER, Reference, ServiceAccountTokens};
pub(crate) use token_file::TokenFile;
pub use token_file::TokenFileError;

/// The group of everybody who is known.
const AUTHENTICATED: &str = "system:authenticated";

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User name, such as `system:node:node1`.
    pub name: String,
    /// The user's uid; empty when the way of authentication has none.
    pub uid: String,
    /// Groups, `system:authenticated` last.
    pub groups: Vec<String>,
}

impl User {
    fn new(name: impl Into<String>, uid: impl Into<String>, mut groups: Vec<String>) -> Self {
        groups.push(AUTHENTICATED.to_owned());
        Self {
            name: name.into(),
            uid: uid.into(),
            groups,
        }
    }
}

/// The user of a client certificate that TLS has verified already; `None` when it names nobody.
pub(crate) fn certificate_user(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok().map(str::to_owned))
        .collect();
    Some(User::new(name, "", groups)).filter(|user| !user.name.is_empty())
}

/// Bearer tokens of both kinds.
pub(crate) struct Authenticator {
    pub(crate) file: TokenFile,
    pub(crate) service_accounts: Arc<ServiceAccountTokens>,
}

impl Authenticator {
    /// The user of a connection's certificate, else of the request's bearer token.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        certificate: Option<&User>,
    ) -> Option<Identity> {
        if let Some(user) = certificate {
            return Some(Identity {
                user: user.clone(),
                service_account: None,
            });
        }
        let token = bearer(headers)?;
        if let Some(user) = self.file.user(token) {
            return Some(Identity {
                user: user.clone(),
                service_account: None,
            });
        }
        let claims = self.service_accounts.verify(token).ok()?;
        Some(Identity {
            user: claims.user(),
            service_account: Some(claims),
        })
    }
}

/// A user, and the claims of the token that says so; the account behind them must still exist.
pub(crate) struct Identity {
    pub(crate) user: User,
    pub(crate) service_account: Option<Claims>,
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
