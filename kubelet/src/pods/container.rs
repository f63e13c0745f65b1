//! What the runtime is told about a container: image, command, environment, mounts, security, resources.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile, SecurityContext, VolumeMount};

use super::{env, labels, resources, sandbox, spec};
use crate::cri::v1;
use crate::volumes::{self, PodDirs};

const HOSTS: &str = "/etc/hosts";
/// Paths of /proc and /sys that containers must not see (`procMount: Default`).
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Paths of /proc that containers must not write.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Why a container's configuration could not be made: its definition does not fit the image or the pod. The
/// container waits with `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its environment can't be made.
    #[error(transparent)]
    Environment(#[from] env::Error),
    /// It mounts a volume that the pod does not have.
    #[error("volume {volume:?} of container {container:?} is not defined in the pod")]
    Volume {
        /// The container.
        container: String,
        /// The volume.
        volume: String,
    },
    /// A mount can't be made.
    #[error(transparent)]
    Mount(#[from] volumes::Error),
    /// `runAsNonRoot` is set and the container would run as root.
    #[error("container has runAsNonRoot and image {0} will run as root")]
    Root(String),
}

/// What a container's configuration depends on beside its spec.
pub struct Context<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// The image, as it is on the node.
    pub image: &'a v1::Image,
    /// How often the container was restarted before.
    pub restart_count: u32,
    /// Its environment.
    pub environment: env::Variables,
    /// Paths of the pod's volumes on the node.
    pub volumes: &'a HashMap<String, PathBuf>,
    /// Directories of pods.
    pub dirs: &'a PodDirs,
    /// The node's memory in bytes.
    pub memory_capacity: u64,
}

/// The container's configuration.
///
/// # Errors
/// When the spec can't be carried out.
pub fn config(context: Context<'_>) -> Result<v1::ContainerConfig, Error> {
    let Context {
        pod,
        container,
        image,
        restart_count,
        ..
    } = context;
    check_user(pod, container, image)?;
    let value = |name: &str| {
        context
            .environment
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    let expand = |words: &Option<Vec<String>>| {
        words
            .iter()
            .flatten()
            .map(|word| env::expand(word, &value))
            .collect::<Vec<_>>()
    };
    let mounts = mounts(&context, &value)?;
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: container.name.clone(),
            attempt: restart_count,
        }),
        image: Some(v1::ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        labels: labels::container_labels(pod, container),
        annotations: labels::container_annotations(pod, container, restart_count),
        log_path: format!("{}/{restart_count}.log", container.name),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources::for_container(
                pod,
                container,
                context.memory_capacity,
            )),
            security_context: Some(security_context(pod, container, image)),
        }),
        devices: Vec::new(),
        envs: context
            .environment
            .into_iter()
            .map(|(key, value)| v1::KeyValue { key, value })
            .collect(),
    })
}

/// Whether the container runs privileged.
pub fn privileged(container: &Container) -> bool {
    container
        .security_context
        .as_ref()
        .and_then(|context| context.privileged)
        .unwrap_or(false)
}

/// Groups that the pod's processes get beside their own.
pub fn supplemental_groups(pod: &Pod) -> Vec<i64> {
    let context = spec::spec(pod).security_context.as_ref();
    let groups = context
        .iter()
        .flat_map(|context| context.supplemental_groups.iter().flatten())
        .copied();
    groups
        .chain(context.and_then(|context| context.fs_group))
        .collect()
}

/// The container's own setting, else the pod's.
fn run_as(pod: &Pod, container: &Container) -> (Option<i64>, Option<i64>, bool) {
    let (own, pods) = (
        container.security_context.as_ref(),
        spec::spec(pod).security_context.as_ref(),
    );
    let user = own
        .and_then(|own| own.run_as_user)
        .or(pods.and_then(|pods| pods.run_as_user));
    let group = own
        .and_then(|own| own.run_as_group)
        .or(pods.and_then(|pods| pods.run_as_group));
    let non_root = own
        .and_then(|own| own.run_as_non_root)
        .or(pods.and_then(|pods| pods.run_as_non_root));
    (user, group, non_root.unwrap_or(false))
}

fn check_user(pod: &Pod, container: &Container, image: &v1::Image) -> Result<(), Error> {
    let (user, _, non_root) = run_as(pod, container);
    let image_user = image.uid.as_ref().map(|uid| uid.value);
    let root = match (user, image_user) {
        (Some(user), _) => user == 0,
        (None, Some(user)) => user == 0,
        (None, None) => image.username.is_empty() || image.username == "root",
    };
    if non_root && root {
        Err(Error::Root(container.image.clone().unwrap_or_default()))
    } else {
        Ok(())
    }
}

fn security_context(
    pod: &Pod,
    container: &Container,
    image: &v1::Image,
) -> v1::LinuxContainerSecurityContext {
    let default = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&default);
    let (user, group, _) = run_as(pod, container);
    // A group needs a user: the image's own when the spec names none.
    let user = user.or(group.and(Some(image.uid.as_ref().map_or(0, |uid| uid.value))));
    let id = |value: Option<i64>| value.map(|value| v1::Int64Value { value });
    let capabilities = own
        .capabilities
        .as_ref()
        .map(|capabilities| v1::Capability {
            add_capabilities: capabilities.add.clone().unwrap_or_default(),
            drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        });
    let unmasked = privileged(container) || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| {
        if unmasked {
            Vec::new()
        } else {
            paths.iter().map(ToString::to_string).collect()
        }
    };
    v1::LinuxContainerSecurityContext {
        capabilities,
        privileged: privileged(container),
        namespace_options: Some(sandbox::namespaces(pod)),
        run_as_user: id(user),
        run_as_group: id(group),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: supplemental_groups(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(pod, own)),
        ..Default::default()
    }
}

fn seccomp(pod: &Pod, own: &SecurityContext) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let pods = spec::spec(pod)
        .security_context
        .as_ref()
        .and_then(|context| context.seccomp_profile.as_ref());
    let profile: Option<&SeccompProfile> = own.seccomp_profile.as_ref().or(pods);
    let (kind, file) = match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, ""),
        Some("Localhost") => (
            ProfileType::Localhost,
            profile
                .and_then(|profile| profile.localhost_profile.as_deref())
                .unwrap_or_default(),
        ),
        _ => (ProfileType::Unconfined, ""),
    };
    v1::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: file.into(),
    }
}

fn mounts(
    context: &Context<'_>,
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<v1::Mount>, Error> {
    let (uid, container) = (spec::uid(context.pod), context.container);
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        mounts.push(volume_mount(context, mount, value)?);
    }
    if !mounts.iter().any(|mount| mount.container_path == HOSTS) {
        mounts.push(file_mount(HOSTS, &context.dirs.hosts_file(uid)));
    }
    let message_path = container
        .termination_message_path
        .as_deref()
        .unwrap_or(spec::DEFAULT_TERMINATION_MESSAGE_PATH);
    if !message_path.is_empty() {
        let file = termination_message_file(context)?;
        mounts.push(file_mount(message_path, &file));
    }
    Ok(mounts)
}

fn file_mount(container_path: &str, host_path: &Path) -> v1::Mount {
    let host_path = host_path.to_string_lossy().into_owned();
    v1::Mount {
        container_path: container_path.into(),
        host_path,
        ..Default::default()
    }
}

/// Makes the file that an instance writes its termination message to; each has its own.
fn termination_message_file(context: &Context<'_>) -> Result<PathBuf, Error> {
    use std::os::unix::fs::PermissionsExt;
    let directory = context
        .dirs
        .container(spec::uid(context.pod), &context.container.name);
    let file = directory.join(context.restart_count.to_string());
    let failed = |what| {
        let path = file.clone();
        move |source| volumes::Error::Io { what, path, source }
    };
    std::fs::create_dir_all(&directory).map_err(failed("cannot create the directory of"))?;
    std::fs::write(&file, "").map_err(failed("cannot create"))?;
    forget_older(&directory, context.restart_count);
    // The container may run as any user.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666))
        .map_err(failed("cannot set mode of"))?;
    Ok(file)
}

/// Messages of instances that the runtime has forgotten too.
fn forget_older(directory: &Path, restart_count: u32) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let count = |name: &std::ffi::OsStr| name.to_str().and_then(|name| name.parse::<u32>().ok());
    for entry in entries {
        if count(&entry.file_name()).is_some_and(|count| count + 1 < restart_count) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn volume_mount(
    context: &Context<'_>,
    mount: &VolumeMount,
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<v1::Mount, Error> {
    let volume = context
        .volumes
        .get(&mount.name)
        .ok_or_else(|| Error::Volume {
            container: context.container.name.clone(),
            volume: mount.name.clone(),
        })?;
    let expanded = mount
        .sub_path_expr
        .as_deref()
        .map(|text| env::expand(text, value));
    let sub_path = expanded
        .as_deref()
        .or(mount.sub_path.as_deref())
        .filter(|path| !path.is_empty());
    let host_path = match sub_path {
        Some(path) => volumes::sub_path(volume, path)?,
        None => volume.clone(),
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        _ => v1::MountPropagation::PropagationPrivate,
    };
    Ok(v1::Mount {
        container_path: absolute(&mount.mount_path),
        host_path: host_path.to_string_lossy().into_owned(),
        readonly: mount.read_only.unwrap_or(false),
        propagation: propagation.into(),
        ..Default::default()
    })
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn configured(
        container: serde_json::Value,
        image: v1::Image,
    ) -> Result<v1::ContainerConfig, String> {
        let root = tempfile::tempdir().unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u" },
            "spec": { "containers": [container], "securityContext": { "runAsGroup": 7 } }
        }))
        .unwrap();
        let volumes = HashMap::from([("v".to_owned(), root.path().to_owned())]);
        config(Context {
            pod: &pod,
            container: &spec::main_containers(&pod)[0],
            image: &image,
            restart_count: 2,
            environment: vec![("A".into(), "1".into())],
            volumes: &volumes,
            dirs: &PodDirs::new(root.path()),
            memory_capacity: 1 << 30,
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn commands_mounts_and_logs() {
        let container = json!({ "name": "c", "image": "i", "command": ["sh", "$(A)"], "args": ["$(B)"],
            "volumeMounts": [{ "name": "v", "mountPath": "data", "subPathExpr": "x$(A)", "readOnly": true }] });
        let made = configured(
            container,
            v1::Image {
                id: "sha256:1".into(),
                ..Default::default()
            },
        )
        .unwrap();
        assert_eq!(
            (made.command, made.args),
            (vec!["sh".to_owned(), "1".into()], vec!["$(B)".to_owned()])
        );
        assert_eq!(made.log_path, "c/2.log");
        let at = |path: &str| {
            made.mounts
                .iter()
                .find(|mount| mount.container_path == path)
                .unwrap()
        };
        assert!(at("/data").readonly && at("/data").host_path.ends_with("/x1"));
        assert!(at("/etc/hosts").host_path.ends_with("pods/u/etc-hosts"));
        assert!(
            at("/dev/termination-log")
                .host_path
                .ends_with("pods/u/containers/c/2")
        );
        let context = made.linux.unwrap().security_context.unwrap();
        assert_eq!(context.run_as_group.unwrap().value, 7);
        assert_eq!(context.run_as_user.unwrap().value, 0);
        assert!(context.masked_paths.contains(&"/proc/kcore".to_owned()));
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        let unknown = json!({ "name": "c", "image": "i", "volumeMounts": [{ "name": "w", "mountPath": "/w" }] });
        assert!(
            configured(unknown, v1::Image::default())
                .unwrap_err()
                .contains("volume \"w\" of container \"c\"")
        );
        let non_root =
            json!({ "name": "c", "image": "i", "securityContext": { "runAsNonRoot": true } });
        let error = configured(non_root.clone(), v1::Image::default()).unwrap_err();
        assert_eq!(
            error,
            "container has runAsNonRoot and image i will run as root"
        );
        let user = v1::Image {
            uid: Some(v1::Int64Value { value: 5 }),
            ..Default::default()
        };
        assert!(configured(non_root, user).is_ok());
    }
}
