//! Service account tokens: JSON web tokens (RFC 7519) with ES256, made and checked with the cluster's own key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

use super::User;

/// Who issues the tokens, as upstream's default names it.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const HEADER: &str = r#"{"alg":"ES256","typ":"JWT"}"#;
const USER_PREFIX: &str = "system:serviceaccount:";

/// Why a token is refused or can't be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The signing key is not usable.
    #[error("the service account key is not usable: {0}")]
    Key(String),
    /// The text is not a token of ours.
    #[error("not a token of this cluster")]
    Malformed,
    /// The signature is not ours.
    #[error("the token's signature does not verify")]
    Signature,
    /// The token is not valid any more, or not yet.
    #[error("the token has expired or is not valid yet")]
    Expired,
}

/// What a token says. Times are seconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// For whom the token is.
    pub aud: Vec<String>,
    /// Its end.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// Its beginning.
    pub nbf: i64,
    /// The user name.
    pub sub: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
}

/// The objects that a token is bound to; when one is gone, the token is void.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kubernetes {
    /// The account's namespace.
    pub namespace: String,
    /// The account.
    pub serviceaccount: Reference,
    /// The pod, if the token is bound to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
}

/// An object's name and uid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Claims {
    /// Claims for an account, from now on for `seconds`.
    pub fn new(
        namespace: &str,
        account: Reference,
        pod: Option<Reference>,
        audiences: Vec<String>,
        seconds: i64,
    ) -> Self {
        let now = now();
        Self {
            aud: audiences,
            exp: now + seconds,
            iat: now,
            iss: ISSUER.to_owned(),
            nbf: now,
            sub: format!("{USER_PREFIX}{namespace}:{}", account.name),
            kubernetes: Kubernetes {
                namespace: namespace.to_owned(),
                serviceaccount: account,
                pod,
            },
        }
    }

    /// The user that the token stands for.
    pub fn user(&self) -> User {
        let namespace = &self.kubernetes.namespace;
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
        User::new(&self.sub, &self.kubernetes.serviceaccount.uid, groups)
    }
}

/// Makes and checks tokens.
pub struct ServiceAccountTokens {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl ServiceAccountTokens {
    /// From a P-256 key in PKCS #8.
    pub fn new(pkcs8: &[u8]) -> Result<Self, TokenError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|error| TokenError::Key(error.to_string()))?;
        Ok(Self { pair, random })
    }

    /// Signs the claims.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let claims = serde_json::to_vec(claims).map_err(|_| TokenError::Malformed)?;
        let message = format!("{}.{}", BASE64.encode(HEADER), BASE64.encode(claims));
        let signature = self
            .pair
            .sign(&self.random, message.as_bytes())
            .map_err(|error| TokenError::Key(error.to_string()))?;
        Ok(format!("{message}.{}", BASE64.encode(signature)))
    }

    /// The claims of a token that is ours and valid now.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let signature = BASE64
            .decode(signature)
            .map_err(|_| TokenError::Malformed)?;
        if BASE64.decode(header).ok().as_deref() != Some(HEADER.as_bytes()) {
            return Err(TokenError::Malformed);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(message.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        let claims = BASE64.decode(claims).map_err(|_| TokenError::Malformed)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
        match claims.nbf <= now() && now() < claims.exp {
            true => Ok(claims),
            false => Err(TokenError::Expired),
        }
    }
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> ServiceAccountTokens {
        ServiceAccountTokens::new(&rcgen::KeyPair::generate().unwrap().serialize_der()).unwrap()
    }

    fn claims(seconds: i64) -> Claims {
        let account = Reference {
            name: "app".to_owned(),
            uid: "1-2".to_owned(),
        };
        Claims::new("shop", account, None, vec![ISSUER.to_owned()], seconds)
    }

    #[test]
    fn a_token_comes_back_as_its_user() {
        let tokens = tokens();
        let token = tokens.sign(&claims(60)).unwrap();
        let user = tokens.verify(&token).unwrap().user();
        assert_eq!(user.name, "system:serviceaccount:shop:app");
        assert!(
            user.groups
                .contains(&"system:serviceaccounts:shop".to_owned())
        );
    }

    #[test]
    fn refuses_what_is_expired_changed_or_foreign() {
        let tokens = tokens();
        let expired = tokens.sign(&claims(-1)).unwrap();
        assert!(matches!(tokens.verify(&expired), Err(TokenError::Expired)));
        let foreign = self::tokens().sign(&claims(60)).unwrap();
        assert!(matches!(
            tokens.verify(&foreign),
            Err(TokenError::Signature)
        ));
        let good = tokens.sign(&claims(60)).unwrap();
        let unsigned = good.rsplit_once('.').unwrap().0.to_owned() + ".";
        assert!(tokens.verify(&unsigned).is_err());
        assert!(tokens.verify("a.b").is_err());
        assert!(tokens.verify("").is_err());
    }
}
