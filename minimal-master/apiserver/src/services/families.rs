//! Which address families a Service has, and its cluster IPs (KEP-563).

use std::net::IpAddr;

use serde_json::{Value, json};
use sluice_api::FieldError;

use super::pool::Problem;
use super::{Draft, Refusal, Resource, SPEC, is_headless, is_missing, remove, service_type};
use crate::object;

const FIELDS: [&str; 4] = ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"];

/// Takes the address fields out of a spec; where there is an old spec only those that the client left as they were.
pub(super) fn clear(spec: &mut Value, old: Option<&Value>) {
    for field in FIELDS {
        if old.is_none_or(|old| spec[field] == old[field]) {
            remove(spec, field);
        }
    }
}

pub(super) fn fill(draft: &mut Draft<'_>, spec: &mut Value) -> Result<(), Refusal> {
    if service_type(spec) == "ExternalName" {
        return Ok(());
    }
    synchronise(spec)?;
    let families = families(draft, spec)?;
    spec["ipFamilies"] = families.iter().map(|v6| Value::from(name(*v6))).collect();
    if is_headless(spec) {
        spec["clusterIP"] = json!("None");
        spec["clusterIPs"] = json!(["None"]);
        return Ok(());
    }
    addresses(draft, spec, &families)
}

/// `clusterIP` is the first of `clusterIPs`; clients give either or both.
fn synchronise(spec: &mut Value) -> Result<(), Refusal> {
    match (
        is_missing(&spec["clusterIP"]),
        is_missing(&spec["clusterIPs"]),
    ) {
        (false, true) => spec["clusterIPs"] = json!([spec["clusterIP"]]),
        (true, false) => spec["clusterIP"] = spec["clusterIPs"][0].clone(),
        (false, false) if spec["clusterIP"] != spec["clusterIPs"][0] => {
            let path = SPEC.child("clusterIPs");
            let detail = "first value must match `clusterIP`";
            return Err(FieldError::invalid(&path, &spec["clusterIPs"], detail).into());
        }
        _ => {}
    }
    Ok(())
}

fn name(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

/// The Service's families, the primary one first, by its policy, its addresses and its wishes.
fn families(draft: &Draft<'_>, spec: &mut Value) -> Result<Vec<bool>, Refusal> {
    let cluster = draft.pools.families();
    let given = given(&cluster, spec)?;
    let policy = policy(spec, &cluster, &given)?;
    spec["ipFamilyPolicy"] = json!(policy);
    let mut families = given;
    if families.is_empty() {
        families.extend(cluster.first());
    }
    match policy.as_str() {
        "SingleStack" => families.truncate(1),
        _ => {
            let missing: Vec<bool> = cluster
                .iter()
                .copied()
                .filter(|v6| !families.contains(v6))
                .collect();
            families.extend(missing);
        }
    }
    Ok(families)
}

/// Families that follow from the addresses and `ipFamilies` of the client.
fn given(cluster: &[bool], spec: &Value) -> Result<Vec<bool>, Refusal> {
    let mut families: Vec<bool> = Vec::new();
    for text in object::strings(&spec["clusterIPs"]) {
        families.extend(text.parse::<IpAddr>().ok().map(|address| address.is_ipv6()));
    }
    let path = SPEC.child("ipFamilies");
    for (index, family) in object::strings(&spec["ipFamilies"]).iter().enumerate() {
        let at = path.index(index);
        let v6 = match family.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            other => {
                let error = FieldError::not_supported(&at, &json!(other), &["IPv4", "IPv6"]);
                return Err(error.into());
            }
        };
        if !cluster.contains(&v6) {
            let error = FieldError::invalid_str(&at, family, "not configured on this cluster");
            return Err(error.into());
        }
        match families.get(index) {
            Some(known) if *known != v6 => {
                let detail = format!("expected {} to match `clusterIPs`", name(*known));
                return Err(FieldError::invalid_str(&at, family, detail).into());
            }
            Some(_) => {}
            None => families.push(v6),
        }
    }
    Ok(families)
}

fn policy(spec: &Value, cluster: &[bool], given: &[bool]) -> Result<String, Refusal> {
    let selector = spec["selector"]
        .as_object()
        .is_some_and(|selector| !selector.is_empty());
    let policy = match spec["ipFamilyPolicy"]
        .as_str()
        .filter(|policy| !policy.is_empty())
    {
        Some(policy) => policy,
        // Endpoints of such a Service are somebody else's, of whatever family.
        None if is_headless(spec) && !selector && given.is_empty() => match cluster.len() {
            2 => "RequireDualStack",
            _ => "SingleStack",
        },
        None => "SingleStack",
    };
    let path = SPEC.child("ipFamilyPolicy");
    let needs_addresses = selector || !is_headless(spec);
    if policy == "RequireDualStack" && cluster.len() < 2 && needs_addresses {
        let detail = "this cluster is not configured for dual-stack services";
        return Err(FieldError::invalid_str(&path, policy, detail).into());
    }
    let wants_two = given.len() > 1 && is_missing(&spec["ipFamilyPolicy"]);
    if wants_two && policy == "SingleStack" {
        let detail =
            "must be RequireDualStack or PreferDualStack when multiple ipFamilies are specified";
        return Err(FieldError::invalid_str(&path, policy, detail).into());
    }
    Ok(policy.to_owned())
}

fn addresses(draft: &mut Draft<'_>, spec: &mut Value, families: &[bool]) -> Result<(), Refusal> {
    let given = object::strings(&spec["clusterIPs"]);
    let mut addresses = Vec::with_capacity(families.len());
    for (index, v6) in families.iter().enumerate() {
        let address = match given.get(index).filter(|text| !text.is_empty()) {
            Some(text) => {
                chosen(draft, index, text)?;
                text.clone()
            }
            None => draft.draw_address(*v6).map_err(Refusal::Full)?.to_string(),
        };
        addresses.push(address);
    }
    spec["clusterIP"] = json!(addresses.first());
    spec["clusterIPs"] = json!(addresses);
    Ok(())
}

fn chosen(draft: &mut Draft<'_>, index: usize, text: &str) -> Result<(), Refusal> {
    let path = SPEC.child("clusterIPs");
    let at = path.index(index);
    let refuse = |detail: String| Refusal::from(FieldError::invalid_str(&at, text, detail));
    let address: IpAddr = text
        .parse()
        .map_err(|_| refuse("must be a valid IP address, or None".to_owned()))?;
    draft.take(Resource::Address(address)).map_err(|problem| {
        refuse(match problem {
            Problem::Taken => {
                format!("failed to allocate IP {text}: provided IP is already allocated")
            }
            Problem::OutOfRange(range) => format!(
                "failed to allocate IP {text}: the provided IP ({text}) is not in the valid range. The range of valid IPs is {range}"
            ),
            other => other.to_string(),
        })
    })
}
