//! The types of all kinds as one graph, read from `k8s-openapi`'s schemas.
//!
//! Decoding, strategic merge patches and OpenAPI need the same facts: which fields a type has, of which type they
//! are, and how lists merge. They are read once, at first use.

use std::collections::HashMap;
use std::sync::LazyLock;

use k8s_openapi::api::{
    apps, authentication, autoscaling, coordination, core, discovery, events, policy,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::extensions::{self, FieldExtension};

/// Definitions by their upstream names, as JSON schemas with references below `#/components/schemas/`.
pub static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(definitions);

static TYPES: LazyLock<Types> = LazyLock::new(|| Types::read(&DEFINITIONS));

const REFERENCE: &str = "#/components/schemas/";

/// What a value may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Anything that is JSON.
    Any,
    /// A text.
    Text,
    /// A text that holds bytes in base64.
    Bytes,
    /// A text that is an RFC 3339 time.
    Time,
    /// An integer of 32 bits.
    Int32,
    /// An integer of 64 bits.
    Int64,
    /// A number.
    Number,
    /// A boolean.
    Bool,
    /// A resource quantity, a text or a number.
    Quantity,
    /// A 32-bit integer or a text.
    IntOrString,
    /// A list.
    List(Box<Type>),
    /// A map with free keys.
    Map(Box<Type>),
    /// A type with named fields.
    Struct(StructId),
}

/// Which struct; valid for [`get`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StructId(usize);

/// A type with named fields.
#[derive(Debug, Default)]
pub struct Struct {
    /// Upstream's name, such as `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    /// Fields by name.
    pub fields: HashMap<String, Field>,
}

/// One field of a struct.
#[derive(Debug)]
pub struct Field {
    /// What the field holds.
    pub ty: Type,
    /// Whether upstream always writes the field, also when it is empty.
    pub required: bool,
    /// How it merges.
    pub extension: &'static FieldExtension,
}

impl Struct {
    /// The name without its package: `PodSpec`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// The name as Go prints it: `v1.PodSpec`.
    pub fn go_name(&self) -> &str {
        let short = self.short_name();
        let package_end = self.name.len().saturating_sub(short.len() + 1);
        let start = self.name[..package_end].rfind('.').map_or(0, |dot| dot + 1);
        &self.name[start..]
    }
}

/// The struct behind an id.
pub fn get(id: StructId) -> &'static Struct {
    &TYPES.structs[id.0]
}

/// The type with upstream's name `name`.
pub fn find(name: &str) -> Option<&'static Type> {
    TYPES.by_name.get(name)
}

struct Types {
    by_name: HashMap<String, Type>,
    structs: Vec<Struct>,
}

impl Types {
    fn read(definitions: &Map<String, Value>) -> Self {
        let mut by_name = HashMap::new();
        let mut structs = Vec::new();
        for (name, schema) in definitions {
            let ty = match schema.get("properties") {
                Some(_) => {
                    structs.push(Struct {
                        name: name.clone(),
                        ..Struct::default()
                    });
                    Type::Struct(StructId(structs.len() - 1))
                }
                None => leaf(name, schema),
            };
            by_name.insert(name.clone(), ty);
        }
        for item in &mut structs {
            item.fields = fields(&item.name, &definitions[&item.name], &by_name);
        }
        Types { by_name, structs }
    }
}

fn fields(owner: &str, schema: &Value, by_name: &HashMap<String, Type>) -> HashMap<String, Field> {
    let required: Vec<&str> = crate::json::list(schema, "required")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let properties = crate::json::map(schema, "properties");
    let field = |(name, schema): (&String, &Value)| {
        let field = Field {
            ty: resolve(schema, by_name),
            required: required.contains(&name.as_str()),
            extension: extensions::of_field(owner, name),
        };
        (name.clone(), field)
    };
    properties.iter().map(field).collect()
}

/// Types without properties that have a name.
fn leaf(name: &str, schema: &Value) -> Type {
    match name.rsplit('.').next() {
        Some("Quantity") => Type::Quantity,
        Some("IntOrString") => Type::IntOrString,
        Some("FieldsV1" | "RawExtension") => Type::Any,
        _ => resolve(schema, &HashMap::new()),
    }
}

fn resolve(schema: &Value, by_name: &HashMap<String, Type>) -> Type {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.trim_start_matches(REFERENCE);
        return by_name.get(name).cloned().unwrap_or(Type::Any);
    }
    let inner = |key: &str| Box::new(schema.get(key).map_or(Type::Any, |s| resolve(s, by_name)));
    match (
        crate::json::text(schema, "type"),
        crate::json::text(schema, "format"),
    ) {
        ("string", "byte") => Type::Bytes,
        ("string", "date-time") => Type::Time,
        ("string", _) => Type::Text,
        ("integer", "int64") => Type::Int64,
        ("integer", _) => Type::Int32,
        ("number", _) => Type::Number,
        ("boolean", _) => Type::Bool,
        ("array", _) => Type::List(inner("items")),
        ("object", _) if schema.get("additionalProperties").is_some() => {
            Type::Map(inner("additionalProperties"))
        }
        _ => Type::Any,
    }
}

fn definitions() -> Map<String, Value> {
    let mut settings = SchemaSettings::openapi3();
    settings.definitions_path = "/components/schemas".into();
    settings.transforms.clear();
    let mut generator = settings.into_generator();
    add_core(&mut generator);
    add_groups(&mut generator);
    generator.take_definitions(false)
}

fn add_core(generator: &mut SchemaGenerator) {
    generator.subschema_for::<core::v1::Binding>();
    generator.subschema_for::<core::v1::ConfigMap>();
    generator.subschema_for::<core::v1::Endpoints>();
    generator.subschema_for::<core::v1::Event>();
    generator.subschema_for::<core::v1::Namespace>();
    generator.subschema_for::<core::v1::Node>();
    generator.subschema_for::<core::v1::Pod>();
    generator.subschema_for::<core::v1::Secret>();
    generator.subschema_for::<core::v1::Service>();
    generator.subschema_for::<core::v1::ServiceAccount>();
}

fn add_groups(generator: &mut SchemaGenerator) {
    generator.subschema_for::<apps::v1::Deployment>();
    generator.subschema_for::<apps::v1::ReplicaSet>();
    generator.subschema_for::<authentication::v1::TokenRequest>();
    generator.subschema_for::<autoscaling::v1::Scale>();
    generator.subschema_for::<coordination::v1::Lease>();
    generator.subschema_for::<discovery::v1::EndpointSlice>();
    generator.subschema_for::<events::v1::Event>();
    generator.subschema_for::<policy::v1::Eviction>();
    generator.subschema_for::<meta::DeleteOptions>();
    generator.subschema_for::<meta::ListMeta>();
    generator.subschema_for::<meta::Status>();
}
