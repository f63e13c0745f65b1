use std::sync::Arc;

use proptest::prelude::*;
use sluice_api::kinds::SERVICE;

use super::*;

fn services(cidrs: &[&str]) -> Services {
    let cidrs: Vec<IpNetwork> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    Services::new(&cidrs, 30000..=30031)
}

fn dual() -> Services {
    services(&["10.96.0.0/24", "fd00:10:96::/112"])
}

fn service(uid: &str, spec: Value) -> Value {
    json!({"metadata": {"name": uid, "uid": uid}, "spec": spec})
}

fn create(services: &Services, uid: &str, spec: Value) -> Result<Value, ApiError> {
    let mut service = service(uid, spec);
    services.reserve_create(&SERVICE, &mut service)?.commit();
    Ok(service)
}

fn update(services: &Services, old: &Value, spec: Value) -> Result<Value, ApiError> {
    let mut new = old.clone();
    new["spec"] = spec;
    services.reserve_update(&SERVICE, &mut new, old)?.commit();
    Ok(new)
}

fn message(result: Result<Value, ApiError>) -> String {
    result.unwrap_err().message
}

#[test]
fn single_stack_takes_the_primary_family() {
    let made = create(&dual(), "a", json!({"ports": [{"port": 80}]})).unwrap();
    let spec = &made["spec"];
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
    assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
    assert!(spec["clusterIP"].as_str().unwrap().starts_with("10.96.0."));
    assert!(spec["ports"][0].get("nodePort").is_none());
}

#[test]
fn dual_stack_takes_both_in_the_wished_order() {
    let spec = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]});
    let made = create(&dual(), "a", spec).unwrap();
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv6", "IPv4"]));
    assert!(
        made["spec"]["clusterIP"]
            .as_str()
            .unwrap()
            .starts_with("fd00:10:96::")
    );
    let alone = services(&["10.96.0.0/24"]);
    let made = create(&alone, "a", json!({"ipFamilyPolicy": "PreferDualStack"})).unwrap();
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4"]));
    let refused = message(create(
        &alone,
        "b",
        json!({"ipFamilyPolicy": "RequireDualStack"}),
    ));
    assert!(
        refused.contains("spec.ipFamilyPolicy") && refused.contains("dual-stack"),
        "{refused}"
    );
    let refused = message(create(&alone, "b", json!({"ipFamilies": ["IPv6"]})));
    assert!(
        refused.contains("spec.ipFamilies[0]") && refused.contains("not configured"),
        "{refused}"
    );
}

#[test]
fn a_chosen_address_is_given_once() {
    let services = dual();
    create(&services, "a", json!({"clusterIP": "10.96.0.10"})).unwrap();
    let refused = message(create(&services, "b", json!({"clusterIP": "10.96.0.10"})));
    assert!(refused.contains("already allocated"), "{refused}");
    let refused = message(create(&services, "b", json!({"clusterIP": "10.97.0.10"})));
    assert!(refused.contains("10.96.0.0/24"), "{refused}");
    for edge in ["10.96.0.0", "10.96.0.255", "fd00:10:96::"] {
        assert!(
            create(&services, "b", json!({"clusterIP": edge})).is_err(),
            "{edge}"
        );
    }
}

#[test]
fn headless_and_external_services_have_no_address() {
    let services = dual();
    let made = create(
        &services,
        "a",
        json!({"clusterIP": "None", "selector": {"a": "b"}}),
    )
    .unwrap();
    assert_eq!(made["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4"]));
    let made = create(&services, "b", json!({"clusterIP": "None"})).unwrap();
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let made = create(
        &services,
        "c",
        json!({"type": "ExternalName", "externalName": "x"}),
    )
    .unwrap();
    assert!(made["spec"].get("clusterIP").is_none());
}

#[test]
fn what_fails_gives_everything_back() {
    let services = services(&["10.96.0.0/30"]);
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}, {"port": 81, "nodePort": 1}]});
    for _ in 0..5 {
        assert!(create(&services, "a", spec.clone()).is_err());
    }
    create(
        &services,
        "b",
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}),
    )
    .unwrap();
    create(&services, "c", json!({})).unwrap();
    let full = create(&services, "d", json!({})).unwrap_err();
    assert!(
        full.code == 500 && full.message.contains("range is full"),
        "{full}"
    );
}

#[test]
fn an_update_keeps_what_it_leaves_out() {
    let services = dual();
    let old = create(
        &services,
        "a",
        json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}),
    )
    .unwrap();
    let new = update(
        &services,
        &old,
        json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}),
    )
    .unwrap();
    assert_eq!(new, old);
}

#[test]
fn a_change_of_type_frees_what_is_left() {
    let services = dual();
    let old = create(
        &services,
        "a",
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30005}]}),
    )
    .unwrap();
    let mut spec = old["spec"].clone();
    spec["type"] = json!("ClusterIP");
    let new = update(&services, &old, spec).unwrap();
    assert!(new["spec"]["ports"][0].get("nodePort").is_none());
    create(
        &services,
        "b",
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30005}]}),
    )
    .unwrap();

    let address = new["spec"]["clusterIP"].clone();
    let mut spec = new["spec"].clone();
    spec["type"] = json!("ExternalName");
    let external = update(&services, &new, spec).unwrap();
    assert!(external["spec"].get("clusterIP").is_none());
    create(&services, "c", json!({"clusterIP": address})).unwrap();
}

#[test]
fn a_service_grows_to_dual_stack_and_back() {
    let services = dual();
    let old = create(&services, "a", json!({})).unwrap();
    let mut spec = old["spec"].clone();
    spec["ipFamilyPolicy"] = json!("PreferDualStack");
    let grown = update(&services, &old, spec).unwrap();
    assert_eq!(grown["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
    assert_eq!(grown["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    let mut spec = grown["spec"].clone();
    spec["ipFamilyPolicy"] = json!("SingleStack");
    let shrunk = update(&services, &grown, spec).unwrap();
    assert_eq!(shrunk["spec"]["clusterIPs"], old["spec"]["clusterIPs"]);
    let freed = grown["spec"]["clusterIPs"][1].clone();
    create(&services, "b", json!({"clusterIP": freed})).unwrap();
}

#[test]
fn both_protocols_of_a_port_share_a_node_port() {
    let ports = json!([{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]);
    let made = create(&dual(), "a", json!({"type": "NodePort", "ports": ports})).unwrap();
    assert_eq!(
        made["spec"]["ports"][0]["nodePort"],
        made["spec"]["ports"][1]["nodePort"]
    );
}

#[test]
fn local_load_balancers_get_a_health_port() {
    let spec =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let made = create(&dual(), "a", spec).unwrap();
    let health = made["spec"]["healthCheckNodePort"].as_u64().unwrap();
    assert!((30000..=30031).contains(&health));
    assert_ne!(made["spec"]["ports"][0]["nodePort"], health);
}

#[test]
fn adopted_services_hold_what_they_have() {
    let services = dual();
    let old = service(
        "a",
        json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{"nodePort": 30001}]}),
    );
    assert!(services.adopt(&old).is_empty());
    assert_eq!(
        services
            .adopt(&service("b", json!({"clusterIP": "10.96.0.9"})))
            .len(),
        1
    );
    assert!(create(&services, "c", json!({"clusterIP": "10.96.0.9"})).is_err());
    services.release(&SERVICE, &old);
    create(&services, "c", json!({"clusterIP": "10.96.0.9"})).unwrap();
}

#[test]
fn many_at_once_never_share_an_address() {
    let services = Arc::new(services(&["10.96.0.0/23"]));
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let services = services.clone();
            std::thread::spawn(move || {
                (0..50)
                    .map(|n| create(&services, &format!("{thread}-{n}"), json!({})).unwrap())
                    .map(|made| made["spec"]["clusterIP"].as_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let all: Vec<String> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    let unique: HashSet<&String> = all.iter().collect();
    assert_eq!((unique.len(), all.len()), (400, 400));
}

proptest! {
    /// Whatever is created, changed and deleted, what is held is exactly what the living Services say.
    #[test]
    fn the_pools_hold_what_services_hold(steps in proptest::collection::vec((0usize..6, 0usize..5, any::<bool>()), 1..60)) {
        let services = services(&["10.96.0.0/28", "fd00::/124"]);
        let mut living: Vec<Option<Value>> = vec![None; 6];
        for (index, what, dual) in steps {
            let policy = if dual { "PreferDualStack" } else { "SingleStack" };
            let kind = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"][what % 4];
            let spec = json!({"type": kind, "ipFamilyPolicy": policy, "externalName": "x", "ports": [{"port": 80, "protocol": "TCP"}]});
            let result = match living[index].take() {
                None => create(&services, &index.to_string(), spec).ok(),
                Some(old) if what == 4 => { services.release(&SERVICE, &old); None }
                Some(old) => Some(update(&services, &old, spec).unwrap_or(old)),
            };
            living[index] = result;
            let mut held: Vec<_> = living.iter().flatten().flat_map(|s| resources(s).into_iter().map(|r| (format!("{r:?}"), owner(s)))).collect();
            let mut known: Vec<_> = services.pools().held().map(|(r, o)| (format!("{r:?}"), o.clone())).collect();
            held.sort();
            known.sort();
            prop_assert_eq!(held, known);
        }
    }
}
