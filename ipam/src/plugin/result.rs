//! Results in the shape of each version of the specification.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::SUPPORTED_VERSIONS;
use super::error::{CniError, Code};
use crate::links::gateway;
use crate::links::names::format_mac;
use crate::links::pod::PodLink;

/// The answer to VERSION.
pub(super) fn versions(version: &str) -> String {
    let answer = json!({ "cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS });
    format!("{answer}\n")
}

/// From 1.0.0 on, an address says its family by itself only.
fn names_family(version: &str) -> bool {
    matches!(version, "0.3.1" | "0.4.0")
}

/// The result of ADD: what earlier plugins of the chain did, and our link.
pub(super) fn added(
    version: &str,
    link: &PodLink,
    sandbox: &Path,
    dns: &Value,
    previous: Option<&Value>,
) -> Result<String, CniError> {
    let mut result = previous_object(previous)?;
    let interfaces = list(&mut result, "interfaces")?;
    let pod_index = interfaces.len() + 1;
    interfaces.extend(interfaces_of(version, link, sandbox));
    list(&mut result, "ips")?.extend(ips_of(version, link, pod_index));
    list(&mut result, "routes")?.extend(routes_of(link));
    if dns.is_object() || !result.contains_key("dns") {
        let dns = if dns.is_object() {
            dns.clone()
        } else {
            json!({})
        };
        result.insert("dns".into(), dns);
    }
    result.insert("cniVersion".into(), version.into());
    Ok(format!("{}\n", Value::Object(result)))
}

fn previous_object(previous: Option<&Value>) -> Result<Map<String, Value>, CniError> {
    match previous {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object.clone()),
        Some(_) => Err(CniError::new(
            Code::InvalidConfig,
            "prevResult: expected an object",
        )),
    }
}

fn list<'a>(
    result: &'a mut Map<String, Value>,
    field: &str,
) -> Result<&'a mut Vec<Value>, CniError> {
    let value = result.entry(field).or_insert_with(|| json!([]));
    let wrong = || {
        CniError::new(
            Code::InvalidConfig,
            format!("prevResult.{field}: expected a list"),
        )
    };
    value.as_array_mut().ok_or_else(wrong)
}

fn interfaces_of(version: &str, link: &PodLink, sandbox: &Path) -> [Value; 2] {
    let mut host = json!({ "name": link.host, "mac": format_mac(&link.host_mac) });
    let mut pod = json!({
        "name": link.interface,
        "mac": format_mac(&link.pod_mac),
        "sandbox": sandbox.to_string_lossy(),
    });
    if version == "1.1.0" {
        host["mtu"] = link.mtu.into();
        pod["mtu"] = link.mtu.into();
    }
    [host, pod]
}

fn ips_of(version: &str, link: &PodLink, interface: usize) -> impl Iterator<Item = Value> {
    link.addresses.iter().map(move |address| {
        let (length, family) = if address.is_ipv4() {
            (32, "4")
        } else {
            (128, "6")
        };
        let mut ip = json!({
            "address": format!("{address}/{length}"),
            "gateway": gateway(address),
            "interface": interface,
        });
        if names_family(version) {
            ip["version"] = family.into();
        }
        ip
    })
}

fn routes_of(link: &PodLink) -> impl Iterator<Item = Value> {
    link.addresses.iter().map(|address| {
        let destination = if address.is_ipv4() {
            "0.0.0.0/0"
        } else {
            "::/0"
        };
        json!({ "dst": destination, "gw": gateway(address) })
    })
}

/// The loopback's result, where no plugin was before it.
pub(super) fn loopback(version: &str, sandbox: &Path) -> String {
    let mut ips = [
        json!({ "address": "127.0.0.1/8", "interface": 0 }),
        json!({ "address": "::1/128", "interface": 0 }),
    ];
    if names_family(version) {
        ips[0]["version"] = "4".into();
        ips[1]["version"] = "6".into();
    }
    let result = json!({
        "cniVersion": version,
        "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": sandbox.to_string_lossy() }],
        "ips": ips,
        "dns": {},
    });
    format!("{result}\n")
}

/// The addresses in a previous result, for CHECK.
pub(super) fn previous_addresses(previous: &Value) -> Vec<IpAddr> {
    let ips = previous["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::Owner;

    fn link() -> PodLink {
        let addresses = vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        PodLink::new(&Owner::new("abc", "eth0"), addresses, 1500, "")
    }

    fn add(version: &str, previous: Option<Value>) -> Value {
        let text = added(
            version,
            &link(),
            Path::new("/run/netns/x"),
            &Value::Null,
            previous.as_ref(),
        );
        serde_json::from_str(&text.unwrap()).unwrap()
    }

    #[test]
    fn old_versions_name_the_family_and_new_ones_the_mtu() {
        for version in SUPPORTED_VERSIONS {
            let result = add(version, None);
            assert_eq!(result["cniVersion"], version);
            assert_eq!(
                result["ips"][0]["version"] == "4",
                version.starts_with("0.")
            );
            assert_eq!(result["interfaces"][1]["mtu"] == 1500, version == "1.1.0");
            assert_eq!(result["ips"][1]["address"], "fd00::5/128");
            assert_eq!(result["ips"][1]["interface"], 1);
            assert_eq!(
                result["routes"][0],
                json!({ "dst": "0.0.0.0/0", "gw": "169.254.1.1" })
            );
        }
    }

    #[test]
    fn a_chain_keeps_what_was_there() {
        let previous = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "net1" }],
            "ips": [{ "address": "192.0.2.1/24", "interface": 0 }],
            "dns": { "nameservers": ["192.0.2.53"] },
        });
        let result = add("1.0.0", Some(previous));
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
        assert_eq!(result["ips"][1]["interface"], 2);
        assert_eq!(result["dns"]["nameservers"][0], "192.0.2.53");
        let wrong = Value::String("x".into());
        assert!(
            added(
                "1.0.0",
                &link(),
                Path::new("/x"),
                &Value::Null,
                Some(&wrong)
            )
            .is_err()
        );
    }
}
