//! The files of volumes that carry data: configMap, secret, downwardAPI and projected.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};

use super::{Error, Result};
use crate::objects::{self, Objects, TokenFor};
use crate::pods::fields::{self, Placement};
use crate::pods::spec;

const DEFAULT_MODE: u32 = 0o644;
/// Lifetime of a token when the projection does not say.
const TOKEN_SECONDS: i64 = 3600;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Contents.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Files by their path in the volume.
pub type Payload = BTreeMap<PathBuf, File>;

/// Directory name of the volume's plugin, and whether its files are kept in memory; `None` for other kinds.
pub fn plugin(volume: &Volume) -> Option<(&'static str, bool)> {
    if volume.config_map.is_some() {
        Some(("kubernetes.io~configmap", false))
    } else if volume.secret.is_some() {
        Some(("kubernetes.io~secret", true))
    } else if volume.downward_api.is_some() {
        Some(("kubernetes.io~downward-api", false))
    } else if let Some(projected) = &volume.projected {
        let sources = projected.sources.as_deref().unwrap_or_default();
        let secret = sources
            .iter()
            .any(|source| source.secret.is_some() || source.service_account_token.is_some());
        Some(("kubernetes.io~projected", secret))
    } else {
        None
    }
}

/// Reads the data of a volume.
pub async fn of(
    objects: &dyn Objects,
    pod: &Pod,
    placement: &Placement,
    volume: &Volume,
) -> Result<Payload> {
    let source = Source {
        objects,
        pod,
        placement,
    };
    if let Some(map) = &volume.config_map {
        return source
            .config_map(
                &map.name,
                map.items.as_deref(),
                map.optional,
                mode(map.default_mode),
            )
            .await;
    }
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        return source
            .secret(
                name,
                secret.items.as_deref(),
                secret.optional,
                mode(secret.default_mode),
            )
            .await;
    }
    if let Some(downward) = &volume.downward_api {
        return source.downward(downward.items.as_deref(), mode(downward.default_mode));
    }
    let mut payload = Payload::new();
    if let Some(projected) = &volume.projected {
        for part in projected.sources.as_deref().unwrap_or_default() {
            payload.extend(
                source
                    .projection(part, mode(projected.default_mode))
                    .await?,
            );
        }
    }
    Ok(payload)
}

fn mode(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok())
        .map_or(DEFAULT_MODE, |mode| mode & 0o7777)
}

struct Source<'a> {
    objects: &'a dyn Objects,
    pod: &'a Pod,
    placement: &'a Placement,
}

impl Source<'_> {
    async fn projection(&self, part: &VolumeProjection, mode: u32) -> Result<Payload> {
        if let Some(map) = &part.config_map {
            return self
                .config_map(&map.name, map.items.as_deref(), map.optional, mode)
                .await;
        }
        if let Some(secret) = &part.secret {
            return self
                .secret(&secret.name, secret.items.as_deref(), secret.optional, mode)
                .await;
        }
        if let Some(downward) = &part.downward_api {
            return self.downward(downward.items.as_deref(), mode);
        }
        if let Some(token) = &part.service_account_token {
            return self.token(token, mode).await;
        }
        Err(Error::Invalid(
            "projected source is not supported: expected configMap, secret, downwardAPI or serviceAccountToken".into(),
        ))
    }

    async fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: u32,
    ) -> Result<Payload> {
        let found = self
            .objects
            .config_map(spec::uid(self.pod), spec::namespace(self.pod), name)
            .await;
        let data = tolerate(found, optional)?
            .map(|map| data_of(&map))
            .unwrap_or_default();
        select(&data, items, optional, mode, "config")
    }

    async fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: u32,
    ) -> Result<Payload> {
        let found = self
            .objects
            .secret(spec::uid(self.pod), spec::namespace(self.pod), name)
            .await;
        let data = tolerate(found, optional)?
            .and_then(|secret| secret.data.clone())
            .unwrap_or_default();
        let data = data
            .into_iter()
            .map(|(key, value)| (key, value.0))
            .collect();
        select(&data, items, optional, mode, "secret")
    }

    fn downward(&self, items: Option<&[DownwardAPIVolumeFile]>, default: u32) -> Result<Payload> {
        let mut payload = Payload::new();
        for item in items.unwrap_or_default() {
            let text = if let Some(field) = &item.field_ref {
                fields::pod_field(self.pod, self.placement, &field.field_path)
            } else if let Some(resource) = &item.resource_field_ref {
                fields::resource_field(self.pod, "", resource, self.placement)
            } else {
                Err(format!(
                    "item {:?} names neither fieldRef nor resourceFieldRef",
                    item.path
                ))
            };
            let data = text.map_err(Error::Invalid)?.into_bytes();
            payload.insert(
                checked(&item.path)?,
                File {
                    data,
                    mode: item.mode.map_or(default, |m| mode(Some(m))),
                },
            );
        }
        Ok(payload)
    }

    async fn token(
        &self,
        projection: &ServiceAccountTokenProjection,
        mode: u32,
    ) -> Result<Payload> {
        let account = spec::spec(self.pod)
            .service_account_name
            .as_deref()
            .filter(|name| !name.is_empty());
        let request = TokenFor {
            namespace: spec::namespace(self.pod),
            account: account.unwrap_or("default"),
            pod: (spec::name(self.pod), spec::uid(self.pod)),
            audience: projection.audience.as_deref(),
            seconds: projection.expiration_seconds.unwrap_or(TOKEN_SECONDS),
        };
        let token = self.objects.token(request).await?;
        Ok(Payload::from([(
            checked(&projection.path)?,
            File {
                data: token.into_bytes(),
                mode,
            },
        )]))
    }
}

fn tolerate<T>(found: objects::Result<T>, optional: Option<bool>) -> Result<Option<T>> {
    match found {
        Err(objects::Error::NotFound { .. }) if optional == Some(true) => Ok(None),
        other => other.map(Some).map_err(Error::from),
    }
}

fn data_of(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map
        .binary_data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()));
    text.chain(binary).collect()
}

/// All keys as files, or the items that are asked for.
fn select(
    data: &BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    default: u32,
    what: &str,
) -> Result<Payload> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let files = data.iter().map(|(key, data)| {
            Ok((
                checked(key)?,
                File {
                    data: data.clone(),
                    mode: default,
                },
            ))
        });
        return files.collect();
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(data) => {
                let mode = item.mode.map_or(default, |m| mode(Some(m)));
                payload.insert(
                    checked(&item.path)?,
                    File {
                        data: data.clone(),
                        mode,
                    },
                );
            }
            None if optional == Some(true) => {}
            None => {
                return Err(Error::Invalid(format!(
                    "references non-existent {what} key: {}",
                    item.key
                )));
            }
        }
    }
    Ok(payload)
}

/// A path that can't leave the volume nor touch the names that the writer uses itself.
fn checked(path: &str) -> Result<PathBuf> {
    let relative = Path::new(path);
    let normal = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !normal || path.starts_with("..") {
        return Err(Error::Invalid(format!(
            "path {path:?} must be relative and stay in the volume"
        )));
    }
    Ok(relative.to_owned())
}
