//! Label selectors, as text (`app=web,tier in (a,b),!canary`) and as `spec.selector` objects.

use std::fmt;

use serde_json::{Map, Value};

use crate::json::{list, map, map_at, text};
use crate::{ApiError, names};

/// Requirements that must all hold; none selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// The requirements.
    pub requirements: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold.
    pub operator: Operator,
    /// Values to compare with, sorted; empty for `Exists` and `NotExists`.
    pub values: Vec<String>,
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// One of the values (`=`, `==` and `in`).
    In,
    /// None of the values, or no such label (`!=` and `notin`).
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    NotExists,
    /// An integer above the value.
    GreaterThan,
    /// An integer below the value.
    LessThan,
}

impl LabelSelector {
    /// Reads the `labelSelector` parameter; an empty text selects everything. 400 for a broken one.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        Parser::new(text)
            .selector()
            .map_err(|why| ApiError::bad_request(format!("unable to parse requirement: {why}")))
    }

    /// Reads a meta/v1 LabelSelector (`matchLabels`, `matchExpressions`). An empty one selects everything; the
    /// caller decides what a missing one means.
    pub fn from_object(selector: &Value) -> Result<Self, ApiError> {
        let mut requirements = Vec::new();
        for (key, value) in map(selector, "matchLabels") {
            let values = vec![value.as_str().unwrap_or_default().to_owned()];
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::In,
                values,
            });
        }
        for expression in list(selector, "matchExpressions") {
            requirements.push(Requirement::from_object(expression)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements })
    }

    /// Whether the object's `metadata.labels` fulfil every requirement.
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements.is_empty() || self.matches_labels(map_at(object, "/metadata/labels"))
    }

    /// Whether `labels` fulfil every requirement.
    pub fn matches_labels(&self, labels: &Map<String, Value>) -> bool {
        self.requirements
            .iter()
            .all(|r| r.matches(labels.get(&r.key).and_then(Value::as_str)))
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}

impl Requirement {
    fn from_object(expression: &Value) -> Result<Self, ApiError> {
        let operator = match text(expression, "operator") {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::NotExists,
            other => {
                let message = format!("{other:?} is not a valid label selector operator");
                return Err(ApiError::bad_request(message));
            }
        };
        let values = list(expression, "values")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned);
        Ok(Self::new(
            text(expression, "key"),
            operator,
            values.collect(),
        ))
    }

    fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Self {
        values.sort_unstable();
        values.dedup();
        Requirement {
            key: key.to_owned(),
            operator,
            values,
        }
    }

    fn matches(&self, label: Option<&str>) -> bool {
        let listed = |label: &str| self.values.iter().any(|v| v == label);
        match self.operator {
            Operator::In => label.is_some_and(listed),
            Operator::NotIn => !label.is_some_and(listed),
            Operator::Exists => label.is_some(),
            Operator::NotExists => label.is_none(),
            Operator::GreaterThan => self.compares(label, |label, bound| label > bound),
            Operator::LessThan => self.compares(label, |label, bound| label < bound),
        }
    }

    fn compares(&self, label: Option<&str>, holds: impl Fn(i64, i64) -> bool) -> bool {
        let bound = self.values.first().and_then(|v| v.parse().ok());
        match (label.and_then(|l| l.parse().ok()), bound) {
            (Some(label), Some(bound)) => holds(label, bound),
            _ => false,
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In if self.values.len() == 1 => write!(f, "{key}={values}"),
            Operator::NotIn if self.values.len() == 1 => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::NotExists => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// Symbols and words of a selector, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Symbol(&'a str),
    Word(&'a str),
    End,
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Parser { rest: text }
    }

    fn split(&self) -> (Token<'a>, &'a str) {
        let rest = self.rest.trim_start();
        if rest.is_empty() {
            return (Token::End, rest);
        }
        for symbol in ["==", "!=", "=", "!", ",", "(", ")", "<", ">"] {
            if let Some(after) = rest.strip_prefix(symbol) {
                return (Token::Symbol(symbol), after);
            }
        }
        let is_special = |c: char| c.is_whitespace() || "=!,()<>".contains(c);
        let end = rest.find(is_special).unwrap_or(rest.len());
        (Token::Word(&rest[..end]), &rest[end..])
    }

    fn peek(&self) -> Token<'a> {
        self.split().0
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.split();
        self.rest = rest;
        token
    }

    fn selector(mut self) -> Result<LabelSelector, String> {
        let mut requirements = Vec::new();
        if self.peek() == Token::End {
            return Ok(LabelSelector { requirements });
        }
        loop {
            requirements.push(self.requirement()?);
            match self.next() {
                Token::End => break,
                Token::Symbol(",") => {}
                other => return Err(found(other, "',' or 'end of string'")),
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements })
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        if self.peek() == Token::Symbol("!") {
            self.next();
            let key = self.key()?;
            return Ok(Requirement::new(key, Operator::NotExists, Vec::new()));
        }
        let key = self.key()?;
        let (operator, values) = match self.peek() {
            Token::End | Token::Symbol(",") => (Operator::Exists, Vec::new()),
            _ => self.comparison()?,
        };
        check_values(operator, &values)?;
        Ok(Requirement::new(key, operator, values))
    }

    fn key(&mut self) -> Result<&'a str, String> {
        match self.next() {
            Token::Word(key) => match names::qualified_name(key).first() {
                None => Ok(key),
                Some(why) => Err(format!("<nil>: Invalid value: {key:?}: {why}")),
            },
            other => Err(found(other, "identifier")),
        }
    }

    fn comparison(&mut self) -> Result<(Operator, Vec<String>), String> {
        match self.next() {
            Token::Symbol("=" | "==") => Ok((Operator::In, vec![self.value()?])),
            Token::Symbol("!=") => Ok((Operator::NotIn, vec![self.value()?])),
            Token::Symbol(">") => Ok((Operator::GreaterThan, vec![self.value()?])),
            Token::Symbol("<") => Ok((Operator::LessThan, vec![self.value()?])),
            Token::Word("in") => Ok((Operator::In, self.values()?)),
            Token::Word("notin") => Ok((Operator::NotIn, self.values()?)),
            other => Err(found(other, "in, notin, =, ==, !=, gt, lt")),
        }
    }

    /// A value; none before a comma or the end means an empty one.
    fn value(&mut self) -> Result<String, String> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Word(word) => {
                self.next();
                Ok(word.to_owned())
            }
            other => Err(found(other, "identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(found(other, "'('")),
        }
        let mut values = Vec::new();
        loop {
            match self.peek() {
                Token::Word(word) => {
                    self.next();
                    values.push(word.to_owned());
                }
                Token::Symbol("," | ")") => values.push(String::new()),
                other => return Err(found(other, "',', ')' or identifier")),
            }
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values),
                other => return Err(found(other, "',' or ')'")),
            }
        }
    }
}

fn found(token: Token<'_>, expected: &str) -> String {
    let text = match token {
        Token::Symbol(text) | Token::Word(text) => text,
        Token::End => "",
    };
    format!("found '{text}', expected: {expected}")
}

fn check_values(operator: Operator, values: &[String]) -> Result<(), String> {
    let numeric = matches!(operator, Operator::GreaterThan | Operator::LessThan);
    for value in values {
        if let Some(why) = names::label_value(value).first() {
            return Err(format!(
                "values[0][{value}]: Invalid value: {value:?}: {why}"
            ));
        }
        if numeric && value.parse::<i64>().is_err() {
            return Err(format!(
                "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector)
            .expect(selector)
            .matches(&json!({"metadata": {"labels": labels}}))
    }

    #[test]
    fn each_operator_selects() {
        let labels = json!({"app": "web", "tier": "b", "n": "5", "empty": ""});
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app=db", false),
            ("app!=db", true),
            ("missing!=x", true),
            ("app", true),
            ("missing", false),
            ("!missing", true),
            ("! app", false),
            ("tier in (a,b)", true),
            ("tier in (a, c)", false),
            ("tier notin (a,c), app = web", true),
            ("missing notin (a)", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("empty=", true),
            ("empty in ()", true),
            ("example.com/x", false),
        ] {
            assert_eq!(matches(selector, labels.clone()), expected, "{selector}");
        }
    }

    #[test]
    fn broken_selectors_are_refused() {
        for text in [
            "=", "a=b=c", "a in", "a in (b", "a b", "a,,b", "a,", "-a", "a=b/c", "n>x", "a in b",
        ] {
            let error = LabelSelector::parse(text).expect_err(text);
            assert_eq!(error.code, 400);
            assert!(
                error.message.starts_with("unable to parse requirement: "),
                "{error}"
            );
        }
    }

    #[test]
    fn prints_what_it_parses() {
        for text in ["", "a=b", "a,b!=c,!d", "a in (b,c),d notin (e,f)", "n>1"] {
            assert_eq!(LabelSelector::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn reads_selector_objects() {
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["b", "a"]},
                {"key": "canary", "operator": "DoesNotExist"},
            ],
        });
        let selector = LabelSelector::from_object(&selector).expect("valid");
        assert_eq!(selector.to_string(), "app=web,!canary,tier in (a,b)");
        assert!(
            LabelSelector::from_object(
                &json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})
            )
            .is_err()
        );
        assert!(
            LabelSelector::from_object(&Value::Null)
                .expect("valid")
                .is_empty()
        );
    }
}
