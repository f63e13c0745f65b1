//! Volumes and their mounts.

use serde_json::{Map, Value, json};

use super::check::{Check, NOT_NEGATIVE};
use super::environment;
use crate::field::Path;
use crate::json::{flag, int, list, text};
use crate::quantity::Quantity;
use crate::{FieldError, names};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

pub(super) fn volumes(check: &mut Check, volumes: &[Value], path: &Path<'_>) {
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let name = text(volume, "name");
        source(check, volume, &path);
        check.required_syntax(&path.child("name"), name, names::dns_label);
        if !name.is_empty()
            && volumes[..index]
                .iter()
                .any(|other| text(other, "name") == name)
        {
            check.duplicate(&path.child("name"), &json!(name));
        }
    }
}

/// Exactly one source must be given.
fn source(check: &mut Check, volume: &Value, path: &Path<'_>) {
    let empty = Map::new();
    let fields = volume.as_object().unwrap_or(&empty).iter();
    let mut sources = fields.filter(|(key, value)| key.as_str() != "name" && value.is_object());
    match sources.next() {
        None => check.required(path, "must specify a volume type"),
        Some((kind, value)) => content(check, kind, value, &path.child(kind)),
    }
    for (kind, _) in sources {
        check.forbidden(&path.child(kind), "may not specify more than 1 volume type");
    }
}

fn content(check: &mut Check, kind: &str, source: &Value, path: &Path<'_>) {
    match kind {
        "emptyDir" => size_limit(check, source, path),
        "hostPath" => host_path(check, source, path),
        "configMap" => {
            check.required_text(path, source, "name");
            files(check, source, path);
        }
        "secret" => {
            check.required_text(path, source, "secretName");
            files(check, source, path);
        }
        "downwardAPI" => {
            mode(check, source, "defaultMode", path);
            downward(check, source, path);
        }
        "projected" => projected(check, source, path),
        "persistentVolumeClaim" => check.required_text(path, source, "claimName"),
        "nfs" => nfs(check, source, path),
        _ => {}
    }
}

fn size_limit(check: &mut Check, source: &Value, path: &Path<'_>) {
    let limit = text(source, "sizeLimit");
    if limit.parse::<Quantity>().is_ok_and(|q| q.nanos() < 0) {
        check.forbidden(&path.child("sizeLimit"), NOT_NEGATIVE);
    }
}

fn host_path(check: &mut Check, source: &Value, path: &Path<'_>) {
    match text(source, "path") {
        "" => check.required(&path.child("path"), ""),
        host => no_backsteps(check, host, &path.child("path")),
    }
    let kinds = [
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    check.optional_one_of(&path.child("type"), text(source, "type"), &kinds);
}

fn nfs(check: &mut Check, source: &Value, path: &Path<'_>) {
    check.required_text(path, source, "server");
    check.required_text(path, source, "path");
    let export = text(source, "path");
    if !export.is_empty() && !export.starts_with('/') {
        check.invalid(
            &path.child("path"),
            &json!(export),
            "must be an absolute path",
        );
    }
}

fn mode(check: &mut Check, source: &Value, field: &str, path: &Path<'_>) {
    if let Some(mode) = int(source, field).filter(|mode| !(0..=0o777).contains(mode)) {
        check.invalid(&path.child(field), &json!(mode), FILE_MODE);
    }
}

/// Which entries become files, and with which mode.
fn files(check: &mut Check, source: &Value, path: &Path<'_>) {
    mode(check, source, "defaultMode", path);
    let items = path.child("items");
    for (index, item) in list(source, "items").iter().enumerate() {
        let path = items.index(index);
        check.required_text(&path, item, "key");
        match text(item, "path") {
            "" => check.required(&path.child("path"), ""),
            file => own_path(check, file, &path.child("path")),
        }
        mode(check, item, "mode", &path);
    }
}

fn downward(check: &mut Check, source: &Value, path: &Path<'_>) {
    let items = path.child("items");
    for (index, item) in list(source, "items").iter().enumerate() {
        let path = items.index(index);
        match text(item, "path") {
            "" => check.required(&path.child("path"), ""),
            file => own_path(check, file, &path.child("path")),
        }
        environment::volume_source(check, item, &path);
        mode(check, item, "mode", &path);
    }
}

fn projected(check: &mut Check, source: &Value, path: &Path<'_>) {
    mode(check, source, "defaultMode", path);
    let sources = path.child("sources");
    for (index, source) in list(source, "sources").iter().enumerate() {
        projection(check, source, &sources.index(index));
    }
}

fn projection(check: &mut Check, source: &Value, path: &Path<'_>) {
    let kinds = [
        "secret",
        "configMap",
        "downwardAPI",
        "serviceAccountToken",
        "clusterTrustBundle",
        "podCertificate",
    ];
    let given: Vec<&str> = kinds
        .into_iter()
        .filter(|kind| source[kind].is_object())
        .collect();
    for kind in given.iter().skip(1) {
        check.forbidden(&path.child(kind), "may not specify more than 1 volume type");
    }
    let Some(kind) = given.first() else {
        check.required(path, "must specify a volume type");
        return;
    };
    let (source, path) = (&source[kind], path.child(kind));
    match *kind {
        "secret" | "configMap" => {
            check.required_text(&path, source, "name");
            files(check, source, &path);
        }
        "downwardAPI" => downward(check, source, &path),
        "serviceAccountToken" => token(check, source, &path),
        _ => {}
    }
}

fn token(check: &mut Check, source: &Value, path: &Path<'_>) {
    match int(source, "expirationSeconds") {
        Some(seconds) if seconds < 600 => {
            let detail = "may not specify a duration less than 10 minutes";
            check.invalid(&path.child("expirationSeconds"), &json!(seconds), detail);
        }
        Some(seconds) if seconds > 1 << 32 => {
            let detail = "may not specify a duration larger than 2^32 seconds";
            check.invalid(&path.child("expirationSeconds"), &json!(seconds), detail);
        }
        _ => {}
    }
    match text(source, "path") {
        "" => check.required(&path.child("path"), ""),
        file => own_path(check, file, &path.child("path")),
    }
}

/// A path below the volume.
pub(super) fn descending_path(check: &mut Check, target: &str, path: &Path<'_>) {
    if target.starts_with('/') {
        check.invalid(path, &json!(target), "must be a relative path");
    }
    no_backsteps(check, target, path);
}

/// A path below the volume that does not collide with the names that the kubelet uses there.
fn own_path(check: &mut Check, target: &str, path: &Path<'_>) {
    descending_path(check, target, path);
    if target.starts_with("..") && !target.starts_with("../") {
        check.invalid(path, &json!(target), "must not start with '..'");
    }
}

fn no_backsteps(check: &mut Check, target: &str, path: &Path<'_>) {
    if target.split('/').any(|part| part == "..") {
        check.invalid(path, &json!(target), "must not contain '..'");
    }
}

/// The mounts of a container, which must name volumes of the pod.
pub(super) fn mounts(check: &mut Check, container: &Value, volumes: &[Value], path: &Path<'_>) {
    let path = path.child("volumeMounts");
    let mounts = list(container, "volumeMounts");
    let privileged = container
        .get("securityContext")
        .is_some_and(|c| flag(c, "privileged"));
    for (index, mount) in mounts.iter().enumerate() {
        let path = path.index(index);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            check.required(&path.child("name"), "");
        } else if !volumes.iter().any(|volume| text(volume, "name") == name) {
            check.add(FieldError::not_found(&path.child("name"), &json!(name)));
        }
        check.required_text(&path, mount, "mountPath");
        if mounts[..index]
            .iter()
            .any(|other| text(other, "mountPath") == target)
        {
            check.invalid(&path.child("mountPath"), &json!(target), "must be unique");
        }
        sub_path(check, mount, &path);
        propagation(check, mount, privileged, &path);
    }
}

fn sub_path(check: &mut Check, mount: &Value, path: &Path<'_>) {
    let (plain, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    for (field, value) in [("subPath", plain), ("subPathExpr", expression)] {
        if !value.is_empty() {
            descending_path(check, value, &path.child(field));
        }
    }
    if !plain.is_empty() && !expression.is_empty() {
        let detail = "subPathExpr and subPath are mutually exclusive";
        check.invalid(&path.child("subPathExpr"), &json!(expression), detail);
    }
}

fn propagation(check: &mut Check, mount: &Value, privileged: bool, path: &Path<'_>) {
    let path = path.child("mountPropagation");
    let mode = text(mount, "mountPropagation");
    check.optional_one_of(&path, mode, &["Bidirectional", "HostToContainer", "None"]);
    if mode == "Bidirectional" && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        check.forbidden(&path, detail);
    }
}
