//! The operations of a path, with the parameters that clients look for.

use serde_json::{Map, Value, json};

use super::schemas::{list_name, reference};
use crate::Kind;
use crate::kinds::{self, Subresource};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const PATCH_TYPES: [&str; 3] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// Parameters of requests by name: type and what they are for.
const PARAMETERS: [(&str, &str, &str); 17] = [
    (
        "allowWatchBookmarks",
        "boolean",
        "Requests watch events of type BOOKMARK, which carry only the resource version.",
    ),
    (
        "continue",
        "string",
        "The token of the previous page of a list.",
    ),
    (
        "dryRun",
        "string",
        "When present, nothing is stored. The only valid value is All.",
    ),
    (
        "fieldManager",
        "string",
        "The name of who makes the change.",
    ),
    (
        "fieldSelector",
        "string",
        "Restricts the list to objects with these fields.",
    ),
    (
        "fieldValidation",
        "string",
        "What to do about unknown and duplicate fields: Ignore, Warn (the default) or Strict.",
    ),
    (
        "gracePeriodSeconds",
        "integer",
        "Seconds until the object is deleted; zero deletes immediately.",
    ),
    (
        "labelSelector",
        "string",
        "Restricts the list to objects with these labels.",
    ),
    (
        "limit",
        "integer",
        "The most objects that a page of a list may have.",
    ),
    (
        "orphanDependents",
        "boolean",
        "Deprecated: use propagationPolicy.",
    ),
    (
        "propagationPolicy",
        "string",
        "What becomes of dependents: Orphan, Background or Foreground.",
    ),
    (
        "resourceVersion",
        "string",
        "The version that is served, or from which a watch starts.",
    ),
    (
        "resourceVersionMatch",
        "string",
        "How resourceVersion applies to a list: Exact or NotOlderThan.",
    ),
    (
        "sendInitialEvents",
        "boolean",
        "Whether a watch begins with the objects that exist.",
    ),
    (
        "timeoutSeconds",
        "integer",
        "Ends the call after this time.",
    ),
    ("watch", "boolean", "Streams changes instead of a list."),
    (
        "pretty",
        "string",
        "Prints the answer for people when true.",
    ),
];

const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "pretty",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "pretty"];
const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
];
const DELETE_COLLECTION: &[&str] = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "timeoutSeconds",
];

/// A parameter in the path.
pub(super) fn in_path(name: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "path",
        "description": description,
        "required": true,
        "schema": {"type": "string", "uniqueItems": true},
    })
}

fn in_query(names: &[&str]) -> Vec<Value> {
    let named = PARAMETERS.iter().filter(|(name, ..)| names.contains(name));
    named
        .map(|(name, ty, description)| {
            json!({
                "name": name,
                "in": "query",
                "description": description,
                "schema": {"type": ty, "uniqueItems": true},
            })
        })
        .collect()
}

/// Makes the operations of one resource or subresource.
pub(super) struct Operation<'a> {
    kind: &'a Kind,
    /// The subresource's name; empty for the resource itself.
    part: &'a str,
    /// Name of the schema of the object that is read and written.
    schema: &'a str,
    /// Group, version and kind of that object.
    object: (&'a str, &'a str, &'a str),
    /// Whether the path has no namespace although the kind has.
    everywhere: bool,
}

impl<'a> Operation<'a> {
    pub fn on(kind: &'a Kind, part: &'a str) -> Self {
        let object = (kind.group, kind.version, kind.kind);
        Operation {
            kind,
            part,
            schema: kind.schema,
            object,
            everywhere: false,
        }
    }

    pub fn everywhere(self) -> Self {
        Operation {
            everywhere: true,
            ..self
        }
    }

    /// Subresources may have objects of their own.
    pub fn with_object(self, part: &'a Subresource) -> Self {
        let own = kinds::of_part(part);
        Operation {
            schema: own.map_or(self.kind.schema, |kind| kind.schema),
            object: (part.group, part.version, part.kind),
            ..self
        }
    }

    pub fn list(&self) -> Value {
        let description = format!("list or watch objects of kind {}", self.kind.kind);
        let answer = reference(&list_name(self.kind));
        self.operation("list", "list", description, LIST, None, &answer)
    }

    pub fn create(&self) -> Value {
        let description = match self.part {
            "" => format!("create {}", self.one()),
            part => format!("create {part} of {}", self.one()),
        };
        self.operation(
            "create",
            "post",
            description,
            WRITE,
            Some(&["*/*"]),
            &self.answer(),
        )
    }

    pub fn read(&self) -> Value {
        let description = format!("read {}the specified {}", self.of_part(), self.kind.kind);
        self.operation(
            "read",
            "get",
            description,
            &["pretty"],
            None,
            &self.answer(),
        )
    }

    pub fn replace(&self) -> Value {
        let description = format!("replace {}the specified {}", self.of_part(), self.kind.kind);
        self.operation(
            "replace",
            "put",
            description,
            WRITE,
            Some(&["*/*"]),
            &self.answer(),
        )
    }

    pub fn patch(&self) -> Value {
        let description = format!(
            "partially update {}the specified {}",
            self.of_part(),
            self.kind.kind
        );
        self.operation(
            "patch",
            "patch",
            description,
            WRITE,
            Some(&PATCH_TYPES),
            &self.answer(),
        )
    }

    pub fn delete(&self) -> Value {
        let description = format!("delete {}", self.one());
        let status = reference(&format!("{META}.Status"));
        self.operation(
            "delete",
            "delete",
            description,
            DELETE,
            Some(&["*/*"]),
            &status,
        )
    }

    pub fn delete_collection(&self) -> Value {
        let description = format!("delete collection of {}", self.kind.kind);
        let status = reference(&format!("{META}.Status"));
        let (verb, action) = ("deleteCollection", "deletecollection");
        self.operation(
            verb,
            action,
            description,
            DELETE_COLLECTION,
            Some(&["*/*"]),
            &status,
        )
    }

    pub fn log(&self) -> Value {
        let description = format!("read log of the specified {}", self.kind.kind);
        let mut operation = self.operation("read", "get", description, &[], None, &Value::Null);
        operation["responses"] = responses(&["text/plain"], &json!({"type": "string"}));
        operation["parameters"] = log_parameters();
        operation
    }

    /// A request that becomes a stream.
    pub fn connect(&self, method: &str) -> Value {
        let upper = method.to_uppercase();
        let description = format!(
            "connect {upper} requests to {} of {}",
            self.part, self.kind.kind
        );
        let verb = format!("connect{}", capitalized(method));
        let mut operation = self.operation(&verb, "connect", description, &[], None, &Value::Null);
        operation["responses"] = responses(&["*/*"], &json!({"type": "string"}));
        operation
    }

    /// The kind with its article.
    fn one(&self) -> String {
        let kind = self.kind.kind;
        match kind.chars().next() {
            _ if self.kind.plural == self.kind.singular => kind.to_owned(),
            Some('A' | 'E' | 'I' | 'O' | 'U') => format!("an {kind}"),
            _ => format!("a {kind}"),
        }
    }

    fn of_part(&self) -> String {
        if self.part.is_empty() {
            String::new()
        } else {
            format!("{} of ", self.part)
        }
    }

    fn answer(&self) -> Value {
        reference(self.schema)
    }

    fn operation(
        &self,
        verb: &str,
        action: &str,
        description: String,
        parameters: &[&str],
        body: Option<&[&str]>,
        answer: &Value,
    ) -> Value {
        let (group, version, kind) = self.object;
        let mut operation = json!({
            "description": description,
            "operationId": self.id(verb),
            "responses": responses(&["application/json", "application/yaml"], answer),
            "tags": [self.tag()],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        if !parameters.is_empty() {
            operation["parameters"] = json!(in_query(parameters));
        }
        if let Some(types) = body {
            operation["requestBody"] = self.body(action, types);
        }
        operation
    }

    fn body(&self, action: &str, types: &[&str]) -> Value {
        let schema = match action {
            "patch" => reference(&format!("{META}.Patch")),
            "delete" | "deletecollection" => reference(&format!("{META}.DeleteOptions")),
            _ => reference(self.schema),
        };
        let required = !action.starts_with("delete");
        let mut body = json!({"content": content(types, &schema)});
        if required {
            body["required"] = json!(true);
        }
        body
    }

    /// `createCoreV1NamespacedPod`, `listCoreV1PodForAllNamespaces`, `readAppsV1NamespacedDeploymentStatus`.
    fn id(&self, verb: &str) -> String {
        let group = match self.kind.group.split('.').next() {
            None | Some("") => "core",
            Some(first) => first,
        };
        let (verb, collection) = match verb {
            "deleteCollection" => ("delete", "Collection"),
            verb => (verb, ""),
        };
        let namespaced = if self.kind.namespaced && !self.everywhere {
            "Namespaced"
        } else {
            ""
        };
        let suffix = if self.everywhere {
            "ForAllNamespaces"
        } else {
            ""
        };
        let (group, version) = (capitalized(group), capitalized(self.kind.version));
        let (kind, part) = (self.kind.kind, capitalized(self.part));
        let (before, after) = match verb.strip_prefix("connect") {
            Some(method) => ("connect", method),
            None => (verb, collection),
        };
        format!("{before}{group}{version}{after}{namespaced}{kind}{part}{suffix}")
    }

    fn tag(&self) -> String {
        match self.kind.group.split('.').next() {
            None | Some("") => format!("core_{}", self.kind.version),
            Some(group) => format!("{group}_{}", self.kind.version),
        }
    }
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

fn content(types: &[&str], schema: &Value) -> Map<String, Value> {
    types
        .iter()
        .map(|ty| ((*ty).to_owned(), json!({"schema": schema})))
        .collect()
}

fn responses(types: &[&str], schema: &Value) -> Value {
    json!({
        "200": {"description": "OK", "content": content(types, schema)},
        "401": {"description": "Unauthorized"},
    })
}

fn log_parameters() -> Value {
    let parameters = [
        (
            "container",
            "string",
            "The container; may be left out where there is only one.",
        ),
        ("follow", "boolean", "Goes on as the container writes."),
        ("limitBytes", "integer", "The most bytes to read."),
        (
            "previous",
            "boolean",
            "Reads the log of the container's previous run.",
        ),
        ("sinceSeconds", "integer", "Leaves out what is older."),
        ("tailLines", "integer", "Reads only the last lines."),
        ("timestamps", "boolean", "Puts the time before each line."),
    ];
    let parameter = |(name, ty, description): (&str, &str, &str)| {
        json!({
            "name": name,
            "in": "query",
            "description": description,
            "schema": {"type": ty, "uniqueItems": true},
        })
    };
    parameters.into_iter().map(parameter).collect()
}
