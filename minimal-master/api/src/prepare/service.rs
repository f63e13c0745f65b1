//! Updates of Services: what was allocated stays when the client leaves it out, and goes with the type that needed it.

use serde_json::{Value, json};

use crate::json::{int, list, list_mut, object_mut, set, text};

/// Prepares an update of a Service's spec.
pub(super) fn for_update(new: &mut Value, old: &Value) {
    if object_mut(new, "spec").is_none() {
        return;
    }
    keep_allocated(&mut new["spec"], &old["spec"]);
    normalize_cluster_ips(new, Some(old));
    trim_for_single_stack(&mut new["spec"], &old["spec"]);
    drop_what_the_type_lacks(&mut new["spec"], &old["spec"]);
}

fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(
        text(spec, "type"),
        "ClusterIP" | "NodePort" | "LoadBalancer"
    )
}

fn needs_node_port(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != json!(false),
        _ => false,
    }
}

fn needs_health_check_port(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

/// Clients replace Services from files that know nothing of what the server allocated.
fn keep_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        if text(new, "clusterIP").is_empty() {
            set(new, "clusterIP", old.get("clusterIP").cloned());
        }
        if list(new, "clusterIPs").is_empty() && new["clusterIP"] == old["clusterIP"] {
            set(new, "clusterIPs", old.get("clusterIPs").cloned());
        }
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if needs_cluster_ip(new) && needs_cluster_ip(old) && new[field].is_null() {
            set(new, field, old.get(field).cloned());
        }
    }
    if needs_node_port(new) && needs_node_port(old) {
        keep_node_ports(new, list(old, "ports"));
    }
    if needs_health_check_port(new)
        && needs_health_check_port(old)
        && int(new, "healthCheckNodePort").unwrap_or_default() == 0
    {
        set(
            new,
            "healthCheckNodePort",
            old.get("healthCheckNodePort").cloned(),
        );
    }
}

fn node_port(port: &Value) -> i64 {
    int(port, "nodePort").unwrap_or_default()
}

fn keep_node_ports(new: &mut Value, old: &[Value]) {
    let mut used: Vec<i64> = list(new, "ports")
        .iter()
        .map(node_port)
        .filter(|port| *port != 0)
        .collect();
    for port in list_mut(new, "ports") {
        if node_port(port) != 0 {
            continue;
        }
        let same = old
            .iter()
            .find(|o| o["protocol"] == port["protocol"] && o["port"] == port["port"]);
        if let Some(number) = same.map(node_port).filter(|n| *n != 0 && !used.contains(n)) {
            used.push(number);
            port["nodePort"] = json!(number);
        }
    }
}

/// Old clients know only `clusterIP`; `clusterIPs` follows it when only that one was changed.
pub(super) fn normalize_cluster_ips(new: &mut Value, old: Option<&Value>) {
    let Some(spec) = new.get_mut("spec") else {
        return;
    };
    let ip = text(spec, "clusterIP").to_owned();
    let Some(old) = old.map(|o| &o["spec"]) else {
        if !ip.is_empty() && list(spec, "clusterIPs").is_empty() {
            set(spec, "clusterIPs", Some(json!([ip])));
        }
        return;
    };
    let ips_unchanged = list(spec, "clusterIPs") == list(old, "clusterIPs");
    if ip == text(old, "clusterIP") || !ips_unchanged {
        return;
    }
    let ips = (!ip.is_empty()).then(|| json!([ip]));
    set(spec, "clusterIPs", ips);
}

/// Who asks for a single stack gives up the second address and family, unless the lists were changed as well.
fn trim_for_single_stack(new: &mut Value, old: &Value) {
    let single = |spec: &Value| matches!(text(spec, "ipFamilyPolicy"), "" | "SingleStack");
    if text(new, "ipFamilyPolicy") != "SingleStack" || single(old) {
        return;
    }
    for field in ["clusterIPs", "ipFamilies"] {
        if list(new, field).len() > 1 && list(new, field) == list(old, field) {
            let first = list(new, field)[..1].to_vec();
            set(new, field, Some(json!(first)));
        }
    }
}

/// A change of type leaves fields behind that the new type has no use for; unless the client set them anew, they go.
fn drop_what_the_type_lacks(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        let same = new["clusterIP"] == old["clusterIP"];
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if same || new[field] == old[field] {
                set(new, field, None);
            }
        }
    }
    if needs_node_port(old) && !needs_node_port(new) {
        drop_node_ports(new, old);
    }
    if needs_health_check_port(old)
        && !needs_health_check_port(new)
        && new["healthCheckNodePort"] == old["healthCheckNodePort"]
    {
        set(new, "healthCheckNodePort", None);
    }
    if text(old, "type") == "LoadBalancer" && text(new, "type") != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if new[field] == old[field] {
                set(new, field, None);
            }
        }
    }
    let external = |spec: &Value| {
        matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
            || !list(spec, "externalIPs").is_empty()
    };
    if external(old)
        && !external(new)
        && new["externalTrafficPolicy"] == old["externalTrafficPolicy"]
    {
        set(new, "externalTrafficPolicy", None);
    }
}

fn drop_node_ports(new: &mut Value, old: &Value) {
    let ports = |spec: &Value| -> Vec<i64> { list(spec, "ports").iter().map(node_port).collect() };
    let known = ports(old);
    if ports(new)
        .iter()
        .all(|port| *port == 0 || known.contains(port))
    {
        for port in list_mut(new, "ports") {
            set(port, "nodePort", None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old() -> Value {
        json!({"spec": {
            "type": "NodePort",
            "clusterIP": "10.96.0.5",
            "clusterIPs": ["10.96.0.5"],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}],
        }})
    }

    #[test]
    fn an_update_from_a_file_keeps_what_was_allocated() {
        let mut new = json!({"spec": {
            "type": "NodePort",
            "ports": [
                {"port": 80, "protocol": "TCP"},
                {"port": 81, "protocol": "TCP"},
            ],
        }});
        for_update(&mut new, &old());
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.5"]));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
        assert!(new["spec"]["ports"][1].get("nodePort").is_none());
        assert_eq!(new["spec"]["ipFamilies"], json!(["IPv4"]));
    }

    #[test]
    fn a_change_of_type_gives_node_ports_back() {
        let mut new = old();
        new["spec"]["type"] = json!("ClusterIP");
        for_update(&mut new, &old());
        assert!(new["spec"]["ports"][0].get("nodePort").is_none());
        assert!(new["spec"].get("externalTrafficPolicy").is_none());
        assert_eq!(new["spec"]["clusterIP"], "10.96.0.5");
    }

    #[test]
    fn a_single_stack_gives_up_the_second_address() {
        let mut old = old();
        old["spec"]["clusterIPs"] = json!(["10.96.0.5", "fd00::5"]);
        old["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
        old["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
        let mut new = old.clone();
        new["spec"]["ipFamilyPolicy"] = json!("SingleStack");
        for_update(&mut new, &old);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.5"]));
        assert_eq!(new["spec"]["ipFamilies"], json!(["IPv4"]));
    }

    #[test]
    fn an_external_name_has_no_cluster_ip() {
        let mut new = old();
        new["spec"]["type"] = json!("ExternalName");
        for_update(&mut new, &old());
        assert!(new["spec"].get("clusterIP").is_none());
        assert!(new["spec"].get("clusterIPs").is_none());
    }
}
