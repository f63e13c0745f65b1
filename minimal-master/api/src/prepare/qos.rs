//! The quality-of-service class of a pod, from its containers' requests and limits.

use serde_json::Value;

use crate::json::{list, map};
use crate::quantity::Quantity;

const COUNTED: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed` when every container limits CPU and memory and requests just that, `BestEffort` when none requests or
/// limits anything, `Burstable` otherwise.
pub fn qos_class(spec: &Value) -> &'static str {
    let containers = || {
        list(spec, "containers")
            .iter()
            .chain(list(spec, "initContainers"))
    };
    let mut any = false;
    let mut guaranteed = containers().next().is_some();
    for container in containers() {
        for name in COUNTED {
            let (request, limit) = (
                amount(container, "requests", name),
                amount(container, "limits", name),
            );
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn amount(container: &Value, side: &str, name: &str) -> Option<Quantity> {
    let text = map(container.get("resources")?, side).get(name)?.as_str()?;
    text.parse().ok().filter(|q: &Quantity| q.nanos() > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_follow_requests_and_limits() {
        let class =
            |resources: Value| qos_class(&json!({"containers": [{"resources": resources}]}));
        let full = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(
            class(json!({"limits": full, "requests": full})),
            "Guaranteed"
        );
        assert_eq!(
            class(json!({"limits": full, "requests": {"cpu": "500m"}})),
            "Burstable"
        );
        assert_eq!(
            class(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})),
            "Burstable"
        );
    }
}
