//! What the container runtime needs: the plugin in its directory of plugins, and a network configuration.
//! Everything appears whole or not at all, by rename.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;

const PLUGIN: &str = "sluice-cni";
const LOOPBACK: &str = "loopback";
const CONFLIST: &str = "10-sluice.conflist";

/// Installs the plugin, and `loopback` as a link to it unless somebody else's is there.
pub(super) fn plugin(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    copy(&plugin_source()?, &directory.join(PLUGIN))?;
    let loopback = directory.join(LOOPBACK);
    match fs::symlink_metadata(&loopback) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => link(&loopback),
        Err(error) => Err(error),
    }
}

/// The small plugin beside this program, else this program, which is the plugin when called by that name.
fn plugin_source() -> io::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(PLUGIN);
    match beside.is_file() {
        true => Ok(beside),
        // Not its path: the file may have been replaced since it was started.
        false => Ok("/proc/self/exe".into()),
    }
}

fn copy(source: &Path, target: &Path) -> io::Result<()> {
    let from = fs::metadata(source)?;
    let same =
        |to: &fs::Metadata| to.len() == from.len() && to.modified().ok() == from.modified().ok();
    if fs::symlink_metadata(target).is_ok_and(|to| to.is_file() && same(&to)) {
        return Ok(());
    }
    let draft = draft(target);
    fs::copy(source, &draft)?;
    let file = File::options().write(true).open(&draft)?;
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    file.set_modified(from.modified()?)?;
    file.sync_all()?;
    fs::rename(&draft, target)
}

fn link(target: &Path) -> io::Result<()> {
    let draft = draft(target);
    let _ = fs::remove_file(&draft);
    symlink(PLUGIN, &draft)?;
    fs::rename(&draft, target)
}

/// In the same directory, hidden, and such that runtimes do not take it for a configuration.
fn draft(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{}", std::process::id()))
}

/// The network configuration that makes the runtime use the plugin.
#[derive(Debug)]
pub(super) struct Conflist {
    directory: PathBuf,
    socket: PathBuf,
}

impl Conflist {
    pub(super) fn new(directory: &Path, socket: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            socket: socket.to_owned(),
        }
    }

    /// Writes it where it is missing or differs. From now on the runtime calls the node's network ready.
    pub(super) fn write(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let target = self.directory.join(CONFLIST);
        let text = self.text();
        if fs::read_to_string(&target).is_ok_and(|present| present == text) {
            return Ok(());
        }
        let draft = draft(&target);
        fs::write(&draft, text)?;
        fs::rename(&draft, &target)
    }

    /// Version 1.0.0, the newest that containerd 1.6's library reads.
    fn text(&self) -> String {
        let list = json!({
            "cniVersion": "1.0.0",
            "name": "sluice",
            "plugins": [{
                "type": PLUGIN,
                "socket": self.socket,
                "capabilities": { "ips": true },
            }],
        });
        format!("{list:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_and_loopback_are_installed_and_a_foreign_loopback_stays() {
        let directory = tempfile::tempdir().unwrap();
        plugin(directory.path()).unwrap();
        let mode = fs::metadata(directory.path().join(PLUGIN))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(
            fs::read_link(directory.path().join(LOOPBACK)).unwrap(),
            Path::new(PLUGIN)
        );
        fs::remove_file(directory.path().join(LOOPBACK)).unwrap();
        fs::write(directory.path().join(LOOPBACK), "theirs").unwrap();
        plugin(directory.path()).unwrap();
        assert_eq!(
            fs::read_to_string(directory.path().join(LOOPBACK)).unwrap(),
            "theirs"
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_configuration_is_what_the_plugin_reads() {
        let directory = tempfile::tempdir().unwrap();
        let conflist = Conflist::new(directory.path(), Path::new("/run/x/ipam.sock"));
        conflist.write().unwrap();
        conflist.write().unwrap();
        let text = fs::read_to_string(directory.path().join(CONFLIST)).unwrap();
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(list["plugins"][0]["type"], PLUGIN);
        assert_eq!(list["plugins"][0]["socket"], "/run/x/ipam.sock");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
