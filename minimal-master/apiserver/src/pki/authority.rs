//! Signing: the authority's key and certificate, and the leaf certificates it issues. All keys are ECDSA P-256.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::PkiError;
use super::files::Directory;

const CA_NAME: &str = "sluice-ca";
const CA_LIFE: Duration = Duration::days(3650);
const LEAF_LIFE: Duration = Duration::days(365);
/// Clocks of nodes may be behind the master's.
const CLOCK_SKEW: Duration = Duration::minutes(5);

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct CertAndKey {
    /// The certificate.
    pub cert_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
}

#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Client,
    Server,
}

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(super) fn open_or_create(directory: &Directory) -> Result<Self, PkiError> {
        let key = open_or_create_key(directory, "ca.key")?;
        let pem = match directory.read("ca.crt")? {
            Some(pem) => pem,
            None => {
                let pem = self_signed(&key)?;
                directory.write("ca.crt", &pem)?;
                pem
            }
        };
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| PkiError::Content {
            path: directory.file("ca.crt"),
            what: "CA certificate",
            reason: error.to_string(),
        })?;
        Ok(Self { issuer, pem })
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn issue(
        &self,
        name: &str,
        groups: &[&str],
        alt_names: &[String],
        purpose: Purpose,
    ) -> Result<CertAndKey, PkiError> {
        let fail = |reason: String| PkiError::Issue {
            subject: name.to_owned(),
            reason,
        };
        let mut params =
            CertificateParams::new(alt_names).map_err(|error| fail(error.to_string()))?;
        name_subject(&mut params, name, groups).map_err(fail)?;
        set_life(&mut params, LEAF_LIFE);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match purpose {
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Purpose::Server => {
                vec![
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::ClientAuth,
                ]
            }
        };
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(|error| fail(error.to_string()))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|error| fail(error.to_string()))?;
        Ok(CertAndKey {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Whether this authority's key signed the certificate.
    pub(super) fn issued(&self, leaf: &CertAndKey) -> bool {
        let ca = der(&self.pem);
        let Ok((_, ca)) = X509Certificate::from_der(&ca) else {
            return false;
        };
        leaf.parse(|cert| cert.verify_signature(Some(ca.public_key())).is_ok())
    }
}

impl CertAndKey {
    /// Whether the certificate holds at least these DNS names and addresses.
    pub(super) fn covers(&self, names: &[String]) -> bool {
        self.parse(|cert| {
            let kept = alt_names(cert);
            names.iter().all(|name| kept.contains(name))
        })
    }

    pub(super) fn is_valid_until(&self, deadline: OffsetDateTime) -> bool {
        self.parse(|cert| cert.validity().not_after.timestamp() >= deadline.unix_timestamp())
    }

    fn parse(&self, check: impl FnOnce(&X509Certificate<'_>) -> bool) -> bool {
        X509Certificate::from_der(&der(&self.cert_pem)).is_ok_and(|(_, cert)| check(&cert))
    }
}

pub(super) fn open_or_create_key(directory: &Directory, name: &str) -> Result<KeyPair, PkiError> {
    if let Some(pem) = directory.read(name)? {
        return KeyPair::from_pem(&pem).map_err(|error| PkiError::Content {
            path: directory.file(name),
            what: "private key",
            reason: error.to_string(),
        });
    }
    let key = KeyPair::generate().map_err(|error| PkiError::Issue {
        subject: name.to_owned(),
        reason: error.to_string(),
    })?;
    directory.write_secret(name, &key.serialize_pem())?;
    Ok(key)
}

fn self_signed(key: &KeyPair) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    set_life(&mut params, CA_LIFE);
    let certificate = params.self_signed(key).map_err(|error| PkiError::Issue {
        subject: CA_NAME.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(certificate.pem())
}

fn set_life(params: &mut CertificateParams, life: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + life;
}

/// The library keeps one value per attribute type; a second group goes in under the same type's number.
fn name_subject(params: &mut CertificateParams, name: &str, groups: &[&str]) -> Result<(), String> {
    const ORGANIZATION: [u64; 4] = [2, 5, 4, 10];
    params.distinguished_name = rcgen::DistinguishedName::new();
    let types = [
        DnType::OrganizationName,
        DnType::CustomDnType(ORGANIZATION.to_vec()),
    ];
    if groups.len() > types.len() {
        return Err(format!(
            "{} groups, at most {} are supported",
            groups.len(),
            types.len()
        ));
    }
    for (kind, group) in types.into_iter().zip(groups) {
        params.distinguished_name.push(kind, *group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(())
}

/// The first certificate of a PEM text; empty when there is none.
fn der(pem: &str) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes())
        .map(|der| der.to_vec())
        .unwrap_or_default()
}

fn alt_names(cert: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = cert.subject_alternative_name() else {
        return Vec::new();
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(alt_name)
        .collect()
}

fn alt_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|b| std::net::IpAddr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|b| std::net::IpAddr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    }
}
