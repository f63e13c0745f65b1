//! Parsing of JSON and YAML bodies that notices duplicate fields, which a plain parse would lose.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A body that was parsed and not yet decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The body; of duplicate fields the last one counts.
    pub value: Value,
    /// One text for each duplicate field, such as `duplicate field "spec.replicas"`.
    pub duplicates: Vec<String>,
}

/// Why a body can't be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A media type that is not read.
    #[error("unsupported media type")]
    MediaType,
    /// Not JSON.
    #[error("json parse error: {0}")]
    Json(String),
    /// Not YAML.
    #[error("error converting YAML to JSON: {0}")]
    Yaml(String),
}

/// Parses by media type; parameters such as `charset` are ignored.
pub(super) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document, ParseError> {
    let media_type = content_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    let media_type = media_type.trim();
    if media_type.is_empty()
        || media_type.ends_with("json") && media_type.starts_with("application/")
    {
        json(bytes)
    } else if matches!(
        media_type,
        "application/yaml" | "application/apply-patch+yaml"
    ) {
        yaml(bytes)
    } else {
        Err(ParseError::MediaType)
    }
}

fn json(bytes: &[u8]) -> Result<Document, ParseError> {
    let mut reader = Reader::default();
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let value = Node(&mut reader)
        .deserialize(&mut input)
        .and_then(|value| input.end().map(|()| value))
        .map_err(|error| ParseError::Json(error.to_string()))?;
    Ok(reader.finish(value))
}

fn yaml(bytes: &[u8]) -> Result<Document, ParseError> {
    let mut reader = Reader::default();
    let input = serde_yaml_ng::Deserializer::from_slice(bytes);
    let value = Node(&mut reader)
        .deserialize(input)
        .map_err(|error| ParseError::Yaml(error.to_string()))?;
    Ok(reader.finish(value))
}

/// Where the parser is, and which fields it saw twice.
#[derive(Default)]
struct Reader {
    path: Vec<Step>,
    duplicates: Vec<String>,
}

enum Step {
    Field(String),
    Index(usize),
}

impl Reader {
    fn finish(self, value: Value) -> Document {
        Document {
            value,
            duplicates: self.duplicates,
        }
    }

    fn report_duplicate(&mut self) {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if path.is_empty() => path.push_str(name),
                Step::Field(name) => path.extend([".", name]),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        self.duplicates.push(format!("duplicate field {path:?}"));
    }
}

/// Builds one value.
struct Node<'r>(&'r mut Reader);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format!("{value} is not a number that JSON can express")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        self.deserialize(input)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            self.0.path.push(Step::Index(list.len()));
            let item = items.next_element_seed(Node(self.0))?;
            self.0.path.pop();
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(Key(key)) = entries.next_key()? {
            self.0.path.push(Step::Field(key.clone()));
            let value = entries.next_value_seed(Node(self.0))?;
            if map.insert(key, value).is_some() {
                self.0.report_duplicate();
            }
            self.0.path.pop();
        }
        Ok(Value::Object(map))
    }
}

/// A key; YAML's numbers and booleans become their texts, as upstream's conversion to JSON does.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(Key(key.to_owned()))
            }
            fn visit_string<E>(self, key: String) -> Result<Key, E> {
                Ok(Key(key))
            }
            fn visit_bool<E>(self, key: bool) -> Result<Key, E> {
                Ok(Key(key.to_string()))
            }
            fn visit_i64<E>(self, key: i64) -> Result<Key, E> {
                Ok(Key(key.to_string()))
            }
            fn visit_u64<E>(self, key: u64) -> Result<Key, E> {
                Ok(Key(key.to_string()))
            }
            fn visit_f64<E>(self, key: f64) -> Result<Key, E> {
                Ok(Key(key.to_string()))
            }
        }
        input.deserialize_any(KeyVisitor)
    }
}
