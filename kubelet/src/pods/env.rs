//! Environment of a container: `envFrom`, `env` with all its sources, `$(VAR)` expansion, and the variables of
//! Services (upstream's `makeEnvironmentVariables`).

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, Pod, Service};

use super::fields::{self, Placement};
use super::spec;
use crate::objects::{self, Objects};

/// Why an environment could not be made. The container waits with `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A ConfigMap or Secret could not be had.
    #[error(transparent)]
    Object(#[from] objects::Error),
    /// The object is there, the key is not.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Namespace of the object.
        namespace: String,
        /// Name of the object.
        name: String,
        /// The key.
        key: String,
    },
    /// A field reference that means nothing.
    #[error("{0}")]
    Field(String),
}

/// Makes environments of one pod's containers.
pub struct Environment<'a> {
    /// Where references are looked up.
    pub objects: &'a dyn Objects,
    /// The pod.
    pub pod: &'a Pod,
    /// Where it runs.
    pub placement: &'a Placement,
}

/// Variables in the order in which they are set.
pub type Variables = Vec<(String, String)>;

impl Environment<'_> {
    /// All variables of `container`.
    ///
    /// # Errors
    /// When a reference that is not optional can't be resolved.
    pub async fn of(&self, container: &Container) -> Result<Variables, Error> {
        let services = self.service_variables().await?;
        let mut set = Ordered::default();
        for source in container.env_from.iter().flatten() {
            for (key, value) in self.env_from(source).await? {
                set.insert(key, value);
            }
        }
        for variable in container.env.iter().flatten() {
            let value = match &variable.value_from {
                None => Some(expand(
                    variable.value.as_deref().unwrap_or_default(),
                    &|name| set.get(name).or_else(|| services.get(name)).cloned(),
                )),
                Some(source) => self.value_from(container, source).await?,
            };
            if let Some(value) = value {
                set.insert(variable.name.clone(), value);
            }
        }
        let rest = services
            .into_iter()
            .filter(|(name, _)| set.get(name).is_none())
            .collect::<Vec<_>>();
        Ok(set.entries.into_iter().chain(rest).collect())
    }

    async fn service_variables(&self) -> Result<BTreeMap<String, String>, Error> {
        let namespace = spec::namespace(self.pod);
        let links = spec::spec(self.pod).enable_service_links.unwrap_or(true);
        let services = self.objects.services(namespace).await?;
        let own = |service: &Service| service.metadata.namespace.as_deref() == Some(namespace);
        let kubernetes = |service: &Service| service.metadata.name.as_deref() == Some("kubernetes");
        // A Service of the pod's namespace named like the master's wins over it.
        let (own, master): (Vec<_>, Vec<_>) = services
            .iter()
            .partition(|service| own(service) && (links || kubernetes(service)));
        let master = master.into_iter().filter(|service| kubernetes(service));
        Ok(master
            .chain(own)
            .flat_map(|service| variables_of(service))
            .collect())
    }

    async fn env_from(&self, source: &EnvFromSource) -> Result<Variables, Error> {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut found = Variables::new();
        if let Some(reference) = &source.config_map_ref {
            let map = self.config_map(&reference.name, reference.optional).await?;
            found.extend(
                map.into_iter()
                    .flat_map(|map| map.data.clone().unwrap_or_default()),
            );
        }
        if let Some(reference) = &source.secret_ref {
            let secret = self.secret(&reference.name, reference.optional).await?;
            let data = secret
                .into_iter()
                .flat_map(|secret| secret.data.clone().unwrap_or_default());
            found.extend(data.map(|(key, value)| (key, text(&value))));
        }
        Ok(found
            .into_iter()
            .map(|(key, value)| (format!("{prefix}{key}"), value))
            .collect())
    }

    async fn config_map(
        &self,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<std::sync::Arc<k8s_openapi::api::core::v1::ConfigMap>>, Error> {
        let found = self
            .objects
            .config_map(spec::uid(self.pod), spec::namespace(self.pod), name)
            .await;
        tolerate(found, optional)
    }

    async fn secret(
        &self,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<std::sync::Arc<k8s_openapi::api::core::v1::Secret>>, Error> {
        let found = self
            .objects
            .secret(spec::uid(self.pod), spec::namespace(self.pod), name)
            .await;
        tolerate(found, optional)
    }

    /// The value of a source; `None` when it is optional and absent.
    async fn value_from(
        &self,
        container: &Container,
        source: &EnvVarSource,
    ) -> Result<Option<String>, Error> {
        if let Some(field) = &source.field_ref {
            return fields::pod_field(self.pod, self.placement, &field.field_path)
                .map(Some)
                .map_err(Error::Field);
        }
        if let Some(resource) = &source.resource_field_ref {
            let value = fields::resource_field(self.pod, &container.name, resource, self.placement);
            return value.map(Some).map_err(Error::Field);
        }
        if let Some(key) = &source.config_map_key_ref {
            let map = self.config_map(&key.name, key.optional).await?;
            let value = map.and_then(|map| map.data.as_ref()?.get(&key.key).cloned());
            return self.required(value, key.optional, ("ConfigMap", &key.name, &key.key));
        }
        if let Some(key) = &source.secret_key_ref {
            let secret = self.secret(&key.name, key.optional).await?;
            let value = secret.and_then(|secret| secret.data.as_ref()?.get(&key.key).map(text));
            return self.required(value, key.optional, ("Secret", &key.name, &key.key));
        }
        Err(Error::Field(
            "valueFrom names no source that this kubelet knows".into(),
        ))
    }

    fn required(
        &self,
        value: Option<String>,
        optional: Option<bool>,
        (kind, name, key): (&'static str, &str, &str),
    ) -> Result<Option<String>, Error> {
        if value.is_some() || optional == Some(true) {
            return Ok(value);
        }
        let namespace = spec::namespace(self.pod).to_owned();
        Err(Error::Key {
            kind,
            namespace,
            name: name.into(),
            key: key.into(),
        })
    }
}

fn tolerate<T>(found: objects::Result<T>, optional: Option<bool>) -> Result<Option<T>, Error> {
    match found {
        Err(objects::Error::NotFound { .. }) if optional == Some(true) => Ok(None),
        other => other.map(Some).map_err(Error::from),
    }
}

fn text(bytes: &ByteString) -> String {
    String::from_utf8_lossy(&bytes.0).into_owned()
}

/// Variables in order of first insertion; a later value of the same name replaces the earlier in place.
#[derive(Default)]
struct Ordered {
    entries: Variables,
}

impl Ordered {
    fn get(&self, name: &str) -> Option<&String> {
        self.entries
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    fn insert(&mut self, name: String, value: String) {
        match self.entries.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((name, value)),
        }
    }
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar sign; what has no value stays as it is.
pub fn expand(text: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'))
        {
            out.push_str(&value(name).unwrap_or_else(|| format!("$({name})")));
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The Docker-links variables of a Service; none for one without a cluster IP.
fn variables_of(service: &Service) -> Variables {
    let Some(spec) = &service.spec else {
        return Variables::new();
    };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first().filter(|_| !ip.is_empty() && ip != "None") else {
        return Variables::new();
    };
    let host = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    };
    let name = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let mut found = vec![
        (format!("{name}_SERVICE_HOST"), ip.to_owned()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports
        .iter()
        .filter(|port| port.name.as_deref().is_some_and(|name| !name.is_empty()))
    {
        let suffix = variable_name(port.name.as_deref().unwrap_or_default());
        found.push((
            format!("{name}_SERVICE_PORT_{suffix}"),
            port.port.to_string(),
        ));
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
        if index == 0 {
            found.push((format!("{name}_PORT"), url.clone()));
        }
        found.push((prefix.clone(), url));
        found.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        found.push((format!("{prefix}_PORT"), port.port.to_string()));
        found.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
    found
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::FakeObjects;

    fn abc(name: &str) -> Option<String> {
        match name {
            "A" => Some("1".into()),
            "B" => Some("$(A)".into()),
            _ => None,
        }
    }

    #[test]
    fn references_are_expanded_as_the_api_says() {
        let cases = [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(NONE)", "$(NONE)"),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("100$", "100$"),
            ("$()", "$()"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &abc), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn expansion_survives_any_text_and_leaves_text_without_dollar_alone(text in ".{0,60}") {
            let expanded = expand(&text, &abc);
            prop_assert!(text.contains('$') || expanded == text);
        }
    }

    async fn environment(
        container: serde_json::Value,
        objects: &FakeObjects,
    ) -> Result<Variables, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
            "spec": { "containers": [container] }
        }))
        .unwrap();
        let placement = Placement {
            pod_ips: vec!["10.0.0.9".into()],
            ..Default::default()
        };
        let environment = Environment {
            objects,
            pod: &pod,
            placement: &placement,
        };
        environment
            .of(&spec::main_containers(&pod)[0])
            .await
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn every_source_is_read_and_later_variables_win() {
        let objects = FakeObjects::default();
        objects.put_config_map("ns", "cm", [("K", "from-map"), ("L", "l")]);
        objects.put_secret("ns", "s", [("PASS", "secret")]);
        let found = environment(
            json!({ "name": "c", "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "cm" } }], "env": [
                { "name": "P_K", "value": "own" },
                { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                { "name": "S", "valueFrom": { "secretKeyRef": { "name": "s", "key": "PASS" } } },
                { "name": "M", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "L" } } },
                { "name": "O", "valueFrom": { "configMapKeyRef": { "name": "no", "key": "L", "optional": true } } },
                { "name": "X", "value": "$(P_L)-$(IP)-$(WEB_SERVICE_HOST)-$(NO)" },
            ] }),
            objects.with_service("ns", "web", "10.96.0.7", 80),
        )
        .await
        .unwrap();
        let of = |name: &str| {
            found
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(of("P_K"), Some("own"));
        assert_eq!(of("S"), Some("secret"));
        assert_eq!(of("M"), Some("l"));
        assert_eq!(of("O"), None);
        assert_eq!(of("X"), Some("l-10.0.0.9-10.96.0.7-$(NO)"));
        assert_eq!(of("WEB_PORT_80_TCP"), Some("tcp://10.96.0.7:80"));
        assert_eq!(of("WEB_SERVICE_PORT"), Some("80"));
    }

    #[tokio::test]
    async fn missing_references_name_what_is_missing() {
        let objects = FakeObjects::default();
        objects.put_config_map("ns", "cm", [("K", "v")]);
        let reference = |name: &str, key: &str| json!({ "name": "c", "env": [{ "name": "E", "valueFrom": { "configMapKeyRef": { "name": name, "key": key } } }] });
        let error = environment(reference("none", "K"), &objects)
            .await
            .unwrap_err();
        assert_eq!(error, "configmap \"none\" not found");
        let error = environment(reference("cm", "NO"), &objects)
            .await
            .unwrap_err();
        assert_eq!(error, "couldn't find key NO in ConfigMap ns/cm");
    }
}
