//! The paths of a document: for each kind its collections, its objects and their subresources.

use serde_json::{Map, Value, json};

use super::operations::{self, Operation};
use crate::Kind;
use crate::kinds::Subresource;

pub(super) fn of_kinds(kinds: &[&Kind]) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        let base = base(kind);
        if kind.namespaced {
            let everywhere = Operation::on(kind, "").everywhere();
            let item = item(&[("get", everywhere.list())], &[]);
            paths.insert(format!("{base}/{}", kind.plural), item);
        }
        let collection = match kind.namespaced {
            true => format!("{base}/namespaces/{{namespace}}/{}", kind.plural),
            false => format!("{base}/{}", kind.plural),
        };
        let object = format!("{collection}/{{name}}");
        paths.insert(collection, collection_item(kind));
        paths.insert(object.clone(), object_item(kind));
        for part in kind.subresources {
            paths.insert(format!("{object}/{}", part.name), part_item(kind, part));
        }
    }
    paths
}

fn base(kind: &Kind) -> String {
    match kind.group {
        "" => format!("/api/{}", kind.version),
        group => format!("/apis/{group}/{}", kind.version),
    }
}

fn item(operations: &[(&str, Value)], parameters: &[Value]) -> Value {
    let mut item: Map<String, Value> = operations
        .iter()
        .map(|(method, value)| ((*method).to_owned(), value.clone()))
        .collect();
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), json!(parameters));
    }
    Value::Object(item)
}

/// Parameters in the path of an object or collection.
fn path_parameters(kind: &Kind, named: bool) -> Vec<Value> {
    let mut parameters = Vec::new();
    if named {
        parameters.push(operations::in_path(
            "name",
            &format!("name of the {}", kind.kind),
        ));
    }
    if kind.namespaced {
        parameters.push(operations::in_path(
            "namespace",
            "the namespace of the object",
        ));
    }
    parameters
}

fn collection_item(kind: &Kind) -> Value {
    let operation = Operation::on(kind, "");
    let all = [
        ("list", "get", operation.list()),
        ("create", "post", operation.create()),
        ("deletecollection", "delete", operation.delete_collection()),
    ];
    let allowed: Vec<(&str, Value)> = all
        .into_iter()
        .filter(|(verb, ..)| kind.allows(verb))
        .map(|(_, method, value)| (method, value))
        .collect();
    item(&allowed, &path_parameters(kind, false))
}

fn object_item(kind: &Kind) -> Value {
    let operation = Operation::on(kind, "");
    let operations = [
        ("get", operation.read()),
        ("put", operation.replace()),
        ("patch", operation.patch()),
        ("delete", operation.delete()),
    ];
    item(&operations, &path_parameters(kind, true))
}

fn part_item(kind: &Kind, part: &Subresource) -> Value {
    let operation = Operation::on(kind, part.name).with_object(part);
    let streams = matches!(part.name, "attach" | "exec" | "portforward");
    let operations: Vec<(&str, Value)> = part
        .verbs
        .iter()
        .map(|verb| match *verb {
            "get" if streams => ("get", operation.connect("get")),
            "create" if streams => ("post", operation.connect("post")),
            "get" if part.name == "log" => ("get", operation.log()),
            "get" => ("get", operation.read()),
            "update" => ("put", operation.replace()),
            "patch" => ("patch", operation.patch()),
            _ => ("post", operation.create()),
        })
        .collect();
    item(&operations, &path_parameters(kind, true))
}
