//! The table of messages, read once from `messages.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

static MESSAGES: LazyLock<HashMap<&'static str, Message>> =
    LazyLock::new(|| parse(include_str!("messages.txt")));

/// Kinds by the package that their group has. Groups end in `.k8s.io` or have one word.
const META: [&str; 1] = ["DeleteOptions"];

/// A message's fields, by number.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<(u64, Known)>);

impl Message {
    pub(super) fn field(&self, number: u64) -> Option<&Known> {
        self.0
            .iter()
            .find(|(known, _)| *known == number)
            .map(|(_, known)| known)
    }
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Known {
    /// Its name in JSON.
    pub(super) name: String,
    pub(super) keep_zero: bool,
    pub(super) kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    One(Type),
    List(Type),
    Map(Type),
    /// The fields of a message in place of the message.
    Inline(&'static str),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Type {
    Scalar(Scalar),
    Message(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Text,
    Bytes,
    Int,
    Bool,
    Double,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    Texts,
    Skip,
}

pub(super) fn find(name: &str) -> Option<&'static Message> {
    MESSAGES.get(name)
}

/// The message of a kind, such as `core.v1.Pod` for `v1` and `Pod`.
pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<&'static Message> {
    if META.contains(&kind) {
        return find(&format!("meta.v1.{kind}"));
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let package = group.split('.').next().unwrap_or(group);
    find(&format!("{package}.{version}.{kind}"))
}

fn parse(text: &'static str) -> HashMap<&'static str, Message> {
    let mut messages = HashMap::<_, Message>::new();
    let mut current = "";
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        if !line.starts_with(' ') {
            current = words.next().unwrap_or_default();
            messages.entry(current).or_default();
        } else if let (Some(number), Some(name), Some(ty)) =
            (words.next(), words.next(), words.next())
            && let Ok(number) = number.parse()
        {
            messages
                .entry(current)
                .or_default()
                .0
                .push((number, known(name, ty)));
        }
    }
    messages
}

fn known(name: &'static str, ty: &'static str) -> Known {
    let kind = match (name, ty.split_at_checked(2)) {
        ("+", _) => Kind::Inline(ty),
        (_, Some(("[]", element))) => Kind::List(of_type(element)),
        (_, Some(("{}", element))) => Kind::Map(of_type(element)),
        _ => Kind::One(of_type(ty)),
    };
    let keep_zero = name.ends_with('!');
    Known {
        name: name.trim_end_matches('!').to_owned(),
        keep_zero,
        kind,
    }
}

fn of_type(name: &'static str) -> Type {
    Type::Scalar(match name {
        "string" => Scalar::Text,
        "bytes" => Scalar::Bytes,
        "int" => Scalar::Int,
        "bool" => Scalar::Bool,
        "double" => Scalar::Double,
        "time" => Scalar::Time,
        "microtime" => Scalar::MicroTime,
        "quantity" => Scalar::Quantity,
        "intorstring" => Scalar::IntOrString,
        "items" => Scalar::Texts,
        "skip" => Scalar::Skip,
        message => return Type::Message(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_is_named_is_there() {
        for (name, message) in MESSAGES.iter() {
            for (_, field) in &message.0 {
                let inner = match &field.kind {
                    Kind::Inline(inner) => inner,
                    Kind::One(Type::Message(inner))
                    | Kind::List(Type::Message(inner))
                    | Kind::Map(Type::Message(inner)) => inner,
                    _ => continue,
                };
                assert!(find(inner).is_some(), "{inner} in {name}");
            }
        }
    }

    #[test]
    fn every_kind_that_is_served_has_a_message() {
        for kind in sluice_api::kinds::all() {
            assert!(
                of_kind(&kind.api_version(), kind.kind).is_some(),
                "{}",
                kind.kind
            );
        }
        for (api_version, kind) in [
            ("v1", "Binding"),
            ("v1", "DeleteOptions"),
            ("policy/v1", "Eviction"),
            ("autoscaling/v1", "Scale"),
            ("authentication.k8s.io/v1", "TokenRequest"),
            ("authorization.k8s.io/v1", "SelfSubjectAccessReview"),
        ] {
            assert!(of_kind(api_version, kind).is_some(), "{kind}");
        }
    }
}
