//! The volumes of a pod on the node: directories under `ROOT/pods/UID/volumes`, filled from the API where they
//! carry data, and taken down again with the pod.

mod atomic;
mod mounts;
mod payload;

use std::collections::HashMap;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};

pub use payload::{File, Payload};

use crate::objects::{self, Objects};
use crate::pods::fields::Placement;
use crate::pods::spec;
use crate::quantity;

/// Why a volume could not be set up. The pod waits in `ContainerCreating` with a `FailedMount` event.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Data of the volume could not be had.
    #[error(transparent)]
    Object(#[from] objects::Error),
    /// The volume's own definition is at fault, or what it points to.
    #[error("{0}")]
    Invalid(String),
    /// A system call failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// What `?` returns in this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds what was tried, and on which path, to an I/O error.
fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

/// A volume that failed, by name.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
pub struct SetUpError {
    /// Name in the pod's spec.
    pub volume: String,
    /// Why.
    pub source: Error,
}

/// Directories of pods on this node.
#[derive(Clone, Debug)]
pub struct PodDirs {
    root: PathBuf,
}

impl PodDirs {
    /// Pods' directories are made below `root` (the kubelet's `--root-dir`).
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.join("pods"),
        }
    }

    /// The directory of all pods.
    pub fn all(&self) -> &Path {
        &self.root
    }

    /// Directory of one pod.
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.root.join(uid)
    }

    /// The file that a pod sees as /etc/hosts.
    pub fn hosts_file(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }

    /// Directory of a container's own files, such as termination messages.
    pub fn container(&self, uid: &str, name: &str) -> PathBuf {
        self.pod(uid).join("containers").join(name)
    }

    fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(plugin).join(name)
    }

    /// Uids that have a directory.
    pub fn uids(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Unmounts the pod's volumes and removes its directory. Idempotent.
    ///
    /// # Errors
    /// When something can't be unmounted or removed; nothing behind a mount is ever deleted.
    pub fn remove(&self, uid: &str) -> Result<()> {
        let directory = self.pod(uid);
        mounts::unmount_below(&directory)?;
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io("cannot remove", &directory)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Sets up volumes of pods.
pub struct Volumes<'a> {
    /// Where pods' directories are.
    pub dirs: &'a PodDirs,
    /// Where ConfigMaps, Secrets and tokens come from.
    pub objects: &'a dyn Objects,
}

impl Volumes<'_> {
    /// Sets up all volumes of the pod, or refreshes their contents; returns their paths on the node by name.
    ///
    /// # Errors
    /// The first volume that can't be set up.
    pub async fn set_up(
        &self,
        pod: &Pod,
        placement: &Placement,
    ) -> Result<HashMap<String, PathBuf>, SetUpError> {
        let volumes = spec::spec(pod).volumes.as_deref().unwrap_or_default();
        let set_up = volumes.iter().map(async |volume| {
            let path = self.one(pod, placement, volume).await;
            let path = path.map_err(|source| SetUpError {
                volume: volume.name.clone(),
                source,
            })?;
            Ok((volume.name.clone(), path))
        });
        futures::future::try_join_all(set_up)
            .await
            .map(|all| all.into_iter().collect())
    }

    async fn one(&self, pod: &Pod, placement: &Placement, volume: &Volume) -> Result<PathBuf> {
        let directory = |plugin: &str| self.dirs.volume(spec::uid(pod), plugin, &volume.name);
        let group = fs_group(pod);
        if let Some(source) = &volume.empty_dir {
            return empty_dir(directory("kubernetes.io~empty-dir"), source, group);
        }
        if let Some(source) = &volume.host_path {
            return host_path(source);
        }
        let (plugin, in_memory) = payload::plugin(volume).ok_or_else(|| unsupported(volume))?;
        let directory = directory(plugin);
        let payload = payload::of(self.objects, pod, placement, volume).await?;
        make_dir(&directory, 0o755)?;
        if in_memory {
            mounts::tmpfs(&directory, None)?;
        }
        let target = directory.clone();
        let written =
            tokio::task::spawn_blocking(move || atomic::write(&target, &payload, group)).await;
        written.map_err(|error| Error::Invalid(error.to_string()))??;
        Ok(directory)
    }
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = spec::spec(pod).security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

fn unsupported(volume: &Volume) -> Error {
    let wire = serde_json::to_value(volume).unwrap_or_default();
    let kinds = wire
        .as_object()
        .into_iter()
        .flat_map(|map| map.keys())
        .filter(|key| *key != "name");
    let kind = kinds.cloned().collect::<Vec<_>>().join(", ");
    let kind = if kind.is_empty() {
        "none".to_owned()
    } else {
        kind
    };
    Error::Invalid(format!(
        "volume source {kind} is not supported: expected emptyDir, hostPath, configMap, secret, downwardAPI or projected"
    ))
}

/// Creates a directory with exactly this mode, whatever the umask.
fn make_dir(path: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
        .map_err(io("cannot create", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(io("cannot set mode of", path))
}

fn empty_dir(
    directory: PathBuf,
    source: &EmptyDirVolumeSource,
    group: Option<u32>,
) -> Result<PathBuf> {
    if directory.exists() && source.medium.as_deref() != Some("Memory") {
        return Ok(directory);
    }
    match source.medium.as_deref().unwrap_or_default() {
        "" => make_dir(&directory, 0o777)?,
        "Memory" => {
            make_dir(&directory, 0o777)?;
            mounts::tmpfs(
                &directory,
                source.size_limit.as_ref().and_then(quantity::value),
            )?;
            make_dir(&directory, 0o777)?;
        }
        medium => {
            return Err(Error::Invalid(format!(
                "medium {medium:?} of emptyDir is not supported: expected Memory"
            )));
        }
    }
    if let Some(group) = group {
        chown(&directory, None, Some(group)).map_err(io("cannot set group of", &directory))?;
        make_dir(&directory, 0o2777)?;
    }
    Ok(directory)
}

/// Checks the path as its type asks for; creates it only for the `OrCreate` types.
fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    let path = PathBuf::from(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" if !path.exists() => make_dir(&path, 0o755)?,
        "FileOrCreate" if !path.exists() => {
            std::fs::write(&path, "").map_err(io("cannot create", &path))?;
        }
        _ => {}
    }
    let found = std::fs::metadata(&path);
    let is = |test: fn(&std::fs::FileType) -> bool| {
        found.as_ref().is_ok_and(|meta| test(&meta.file_type()))
    };
    let fits = match kind {
        "" => true,
        "Directory" | "DirectoryOrCreate" => is(std::fs::FileType::is_dir),
        "File" | "FileOrCreate" => is(std::fs::FileType::is_file),
        "Socket" => is(FileTypeExt::is_socket),
        "CharDevice" => is(FileTypeExt::is_char_device),
        "BlockDevice" => is(FileTypeExt::is_block_device),
        _ => return Err(Error::Invalid(format!("hostPath type {kind:?} is unknown"))),
    };
    if fits {
        Ok(path)
    } else {
        Err(Error::Invalid(format!(
            "hostPath type check failed: {} is not a {kind}",
            source.path
        )))
    }
}

/// The path of `sub_path` in a volume, created as a directory when it is missing.
///
/// # Errors
/// When it leaves the volume, also through a symbolic link that a container has put there.
pub fn sub_path(volume: &Path, sub_path: &str) -> Result<PathBuf> {
    let outside = || Error::Invalid(format!("subPath {sub_path:?} leads out of its volume"));
    let relative = Path::new(sub_path);
    if relative
        .components()
        .any(|part| !matches!(part, std::path::Component::Normal(_)))
    {
        return Err(outside());
    }
    let base = volume
        .canonicalize()
        .map_err(io("cannot resolve", volume))?;
    let mut path = base.clone();
    for part in relative.components() {
        let next = path.join(part);
        if std::fs::symlink_metadata(&next).is_err() {
            std::fs::create_dir(&next).map_err(io("cannot create", &next))?;
        }
        path = next.canonicalize().map_err(io("cannot resolve", &next))?;
        if !path.starts_with(&base) {
            return Err(outside());
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::FakeObjects;

    fn pod(volumes: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u", "labels": { "a": "b" } },
            "spec": { "containers": [{ "name": "c" }], "volumes": volumes }
        }))
        .unwrap()
    }

    async fn set_up(
        root: &Path,
        objects: &FakeObjects,
        volumes: serde_json::Value,
    ) -> Result<PathBuf, String> {
        let dirs = PodDirs::new(root);
        let volumes_of = Volumes {
            dirs: &dirs,
            objects,
        };
        let paths = volumes_of
            .set_up(&pod(volumes), &Placement::default())
            .await;
        paths
            .map(|paths| paths["v"].clone())
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn config_maps_become_files_and_changes_replace_them_at_once() {
        let root = tempfile::tempdir().unwrap();
        let objects = FakeObjects::default();
        objects.put_config_map("ns", "cm", [("a", "1"), ("b", "2")]);
        let volume = json!([{ "name": "v", "configMap": { "name": "cm", "defaultMode": 0o600 } }]);
        let path = set_up(root.path(), &objects, volume.clone()).await.unwrap();
        assert_eq!(std::fs::read_to_string(path.join("a")).unwrap(), "1");
        assert_eq!(
            std::fs::metadata(path.join("a"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        let first = std::fs::read_link(path.join("..data")).unwrap();
        set_up(root.path(), &objects, volume.clone()).await.unwrap();
        assert_eq!(
            std::fs::read_link(path.join("..data")).unwrap(),
            first,
            "unchanged data is not rewritten"
        );
        objects.put_config_map("ns", "cm", [("a", "new")]);
        set_up(root.path(), &objects, volume).await.unwrap();
        assert_eq!(std::fs::read_to_string(path.join("a")).unwrap(), "new");
        assert!(!path.join("b").exists());
        assert!(!path.join(first).exists());
    }

    #[tokio::test]
    async fn projected_volumes_join_their_sources() {
        let root = tempfile::tempdir().unwrap();
        let objects = FakeObjects::default();
        objects.put_config_map("ns", "cm", [("a", "1")]);
        let path = set_up(root.path(), &objects, json!([{ "name": "v", "projected": { "sources": [
            { "configMap": { "name": "cm", "items": [{ "key": "a", "path": "deep/er/a" }] } },
            { "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
            { "configMap": { "name": "none", "optional": true } },
        ] } }]))
        .await
        .unwrap();
        assert_eq!(
            std::fs::read_to_string(path.join("deep/er/a")).unwrap(),
            "1"
        );
        assert_eq!(
            std::fs::read_to_string(path.join("labels")).unwrap(),
            "a=\"b\""
        );
    }

    #[tokio::test]
    async fn errors_name_the_volume_and_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let objects = FakeObjects::default();
        objects.put_config_map("ns", "cm", [("a", "1")]);
        let cases = [
            (
                json!({ "name": "v", "configMap": { "name": "none" } }),
                "configmap \"none\" not found",
            ),
            (
                json!({ "name": "v", "configMap": { "name": "cm", "items": [{ "key": "z", "path": "z" }] } }),
                "references non-existent config key: z",
            ),
            (
                json!({ "name": "v", "configMap": { "name": "cm", "items": [{ "key": "a", "path": "../a" }] } }),
                "must be relative and stay in the volume",
            ),
            (
                json!({ "name": "v", "persistentVolumeClaim": { "claimName": "x" } }),
                "persistentVolumeClaim is not supported",
            ),
            (
                json!({ "name": "v", "hostPath": { "path": "/dev/null", "type": "Directory" } }),
                "is not a Directory",
            ),
        ];
        for (volume, expected) in cases {
            let error = set_up(root.path(), &objects, json!([volume]))
                .await
                .unwrap_err();
            assert!(
                error.starts_with("MountVolume.SetUp failed for volume \"v\" : "),
                "{error}"
            );
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn sub_paths_stay_in_their_volume() {
        let volume = tempfile::tempdir().unwrap();
        let path = sub_path(volume.path(), "a/b").unwrap();
        assert!(path.is_dir() && path.ends_with("a/b"));
        std::os::unix::fs::symlink("/etc", volume.path().join("evil")).unwrap();
        for outside in ["../x", "/etc", "a/../../x", "evil", "evil/passwd"] {
            assert!(sub_path(volume.path(), outside).is_err(), "{outside}");
        }
    }

    #[tokio::test]
    async fn an_empty_dir_survives_a_refresh_and_goes_with_the_pod() {
        let root = tempfile::tempdir().unwrap();
        let objects = FakeObjects::default();
        let volume = json!([{ "name": "v", "emptyDir": {} }]);
        let path = set_up(root.path(), &objects, volume.clone()).await.unwrap();
        std::fs::write(path.join("kept"), "x").unwrap();
        set_up(root.path(), &objects, volume).await.unwrap();
        assert!(path.join("kept").exists());
        let dirs = PodDirs::new(root.path());
        assert_eq!(dirs.uids(), ["u"]);
        dirs.remove("u").unwrap();
        dirs.remove("u").unwrap();
        assert!(dirs.uids().is_empty());
    }
}
