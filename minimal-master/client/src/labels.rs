//! Label selectors as the API defines them (`metav1.LabelSelector`, and plain maps).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Labels of an object; an absent map equals an empty one.
pub type Labels = BTreeMap<String, String>;

/// Whether every pair of `selector` is in `labels`. An empty selector selects everything.
pub fn matches_map(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether a label selector selects these labels. An empty selector selects everything.
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let pairs = selector.match_labels.as_ref();
    let expressions = selector.match_expressions.iter().flatten();
    pairs.is_none_or(|pairs| matches_map(pairs, labels))
        && expressions
            .into_iter()
            .all(|e| matches_expression(e, labels))
}

fn matches_expression(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = |value: &String| requirement.values.iter().flatten().any(|v| v == value);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        // Validation rejects other operators; selecting nothing is the safe answer.
        _ => false,
    }
}

/// Whether the selector has no requirement at all.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector
        .match_labels
        .as_ref()
        .is_none_or(BTreeMap::is_empty)
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.iter().map(|v| (*v).into()).collect()),
            }]),
            match_labels: None,
        }
    }

    #[test]
    fn operators_follow_the_api() {
        let blue = labels(&[("colour", "blue")]);
        let none = Labels::new();
        for (operator, values, on_blue, on_none) in [
            ("In", &["blue", "red"][..], true, false),
            ("In", &["red"], false, false),
            ("NotIn", &["red"], true, true),
            ("NotIn", &["blue"], false, true),
            ("Exists", &[], true, false),
            ("DoesNotExist", &[], false, true),
            ("Sideways", &[], false, false),
        ] {
            let selector = expression("colour", operator, values);
            assert_eq!(matches(&selector, &blue), on_blue, "{operator} {values:?}");
            assert_eq!(matches(&selector, &none), on_none, "{operator} {values:?}");
        }
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        assert!(matches(&LabelSelector::default(), &labels(&[("a", "b")])));
        assert!(is_empty(&LabelSelector::default()));
    }
}
