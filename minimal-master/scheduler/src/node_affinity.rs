//! Node selector terms: which nodes a pod's `nodeAffinity` means.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use sluice_client::labels::Labels;

/// Whether any of the terms matches; terms are alternatives.
pub fn matches_any(terms: &[NodeSelectorTerm], labels: &Labels, node: &str) -> bool {
    terms.iter().any(|term| matches(term, labels, node))
}

/// Whether all requirements of a term match. A term without requirements matches no node.
pub fn matches(term: &NodeSelectorTerm, labels: &Labels, node: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions
        .iter()
        .all(|r| requirement(r, labels.get(&r.key).map(String::as_str)))
        && fields
            .iter()
            .all(|r| requirement(r, (r.key == "metadata.name").then_some(node)))
}

fn requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|v| v == value);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(value, values).is_some_and(|(have, bound)| have > bound),
        "Lt" => compare(value, values).is_some_and(|(have, bound)| have < bound),
        _ => false,
    }
}

fn compare(value: Option<&str>, values: &[String]) -> Option<(i64, i64)> {
    let [bound] = values else { return None };
    Some((value?.parse().ok()?, bound.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches_json(term: serde_json::Value) -> bool {
        let labels = Labels::from([("zone".into(), "a".into()), ("cores".into(), "8".into())]);
        matches(&serde_json::from_value(term).unwrap(), &labels, "n1")
    }

    #[test]
    fn requirements_follow_the_api() {
        let by = |key: &str, operator: &str, values: &[&str]| {
            matches_json(
                json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}),
            )
        };
        assert!(by("zone", "In", &["a", "b"]));
        assert!(!by("zone", "NotIn", &["a"]));
        assert!(by("missing", "NotIn", &["a"]));
        assert!(by("cores", "Gt", &["4"]));
        assert!(!by("cores", "Lt", &["8"]));
        assert!(!by("zone", "Gt", &["4"]));
        assert!(by("missing", "DoesNotExist", &[]));
    }

    #[test]
    fn an_empty_term_matches_no_node_and_fields_name_one() {
        assert!(!matches_json(json!({})));
        assert!(matches_json(
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]})
        ));
    }
}
