//! Applying manifests: created when new, merged into what exists otherwise.

use anyhow::{Context, Result, bail};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde::Deserialize;

/// The example application.
pub const ECHO: &str = include_str!("../../examples/echo.yaml");

/// Applies every document of a YAML stream, in order.
pub async fn apply(client: &Client, yaml: &str) -> Result<()> {
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let object = DynamicObject::deserialize(document)?;
        let name = object.name_any();
        let kind = object
            .types
            .as_ref()
            .map_or("", |types| &types.kind)
            .to_string();
        apply_one(client, object)
            .await
            .with_context(|| format!("cannot apply {kind} {name}"))?;
    }
    Ok(())
}

async fn apply_one(client: &Client, object: DynamicObject) -> Result<()> {
    let Some(types) = object.types.clone() else {
        bail!("apiVersion and kind are missing");
    };
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
    let namespace = object.namespace().unwrap_or_else(|| "default".into());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let name = object.name_any();
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&object))
                .await?;
            Ok(())
        }
        other => Ok(other.map(drop)?),
    }
}
