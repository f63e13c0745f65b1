//! Security contexts of pods and containers.

use serde_json::{Value, json};

use super::check::Check;
use super::volume::descending_path;
use crate::field::Path;
use crate::json::{flag, int, list, list_at, text};
use crate::names;

const MAX_ID: i64 = u32::MAX as i64;

pub(super) fn pod(check: &mut Check, spec: &Value, path: &Path<'_>) {
    let context = &spec["securityContext"];
    ids(
        check,
        context,
        &["fsGroup", "runAsUser", "runAsGroup"],
        path,
    );
    let groups = path.child("supplementalGroups");
    for (index, group) in list(context, "supplementalGroups").iter().enumerate() {
        let group = group.as_i64().unwrap_or_default();
        check.number(
            &groups.index(index),
            group,
            names::in_range(group, 0, MAX_ID),
        );
    }
    if flag(spec, "hostPID") && flag(spec, "shareProcessNamespace") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        check.invalid(&path.child("shareProcessNamespace"), &json!(true), detail);
    }
    check.optional_one_of(
        &path.child("fsGroupChangePolicy"),
        text(context, "fsGroupChangePolicy"),
        &["Always", "OnRootMismatch"],
    );
    sysctls(check, context, &path.child("sysctls"));
    seccomp(
        check,
        &context["seccompProfile"],
        &path.child("seccompProfile"),
    );
}

fn ids(check: &mut Check, context: &Value, fields: &[&str], path: &Path<'_>) {
    for field in fields {
        if let Some(id) = int(context, field) {
            check.number(&path.child(field), id, names::in_range(id, 0, MAX_ID));
        }
    }
}

fn sysctls(check: &mut Check, context: &Value, path: &Path<'_>) {
    let sysctls = list(context, "sysctls");
    for (index, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(index);
        check.required_text(&path, sysctl, "name");
        if sysctls[..index]
            .iter()
            .any(|other| other["name"] == sysctl["name"])
        {
            check.duplicate(&path.child("name"), &sysctl["name"]);
        }
    }
}

fn seccomp(check: &mut Check, profile: &Value, path: &Path<'_>) {
    if !profile.is_object() {
        return;
    }
    let ty = text(profile, "type");
    match ty {
        "" => check.required(
            &path.child("type"),
            "type is required when seccompProfile is set",
        ),
        ty => check.one_of(
            &path.child("type"),
            ty,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        ),
    }
    let local = profile.get("localhostProfile").and_then(Value::as_str);
    let path = path.child("localhostProfile");
    match (ty, local) {
        ("Localhost", None) => {
            check.required(&path, "must be set when seccomp type is Localhost");
        }
        ("Localhost", Some(local)) => descending_path(check, local, &path),
        (_, Some(_)) => {
            check.invalid(
                &path,
                profile,
                "can only be set when seccomp type is Localhost",
            );
        }
        (_, None) => {}
    }
}

pub(super) fn container(check: &mut Check, context: &Value, path: &Path<'_>) {
    if !context.is_object() {
        return;
    }
    ids(check, context, &["runAsUser", "runAsGroup"], path);
    check.optional_one_of(
        &path.child("procMount"),
        text(context, "procMount"),
        &["Default", "Unmasked"],
    );
    seccomp(
        check,
        &context["seccompProfile"],
        &path.child("seccompProfile"),
    );
    if context["allowPrivilegeEscalation"] != false {
        return;
    }
    if flag(context, "privileged") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        check.invalid(path, context, detail);
    }
    if list_at(context, "/capabilities/add")
        .iter()
        .any(|c| c == "CAP_SYS_ADMIN")
    {
        let detail =
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        check.invalid(path, context, detail);
    }
}
