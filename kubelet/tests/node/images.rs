//! Images without a registry: docker archives with one layer, made from a static busybox.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

/// The sandbox image.
pub const PAUSE: &str = "test.local/pause:1";
/// The image of the tests' containers: busybox.
pub const BUSYBOX: &str = "test.local/busybox:1";

/// Writes the archive of both images below `directory`.
pub fn archive(directory: &Path) -> PathBuf {
    let root = directory.join("rootfs");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    for path in ["tmp", "etc", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(path)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))
        .expect("a static busybox (package busybox-static)");
    for applet in [
        "sh", "sleep", "cat", "echo", "httpd", "nc", "true", "false", "kill", "id", "hostname",
        "env", "touch",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let images = directory.join("images");
    std::fs::create_dir_all(&images).unwrap();
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(images.join("layer.tar"))
        .arg("."));
    let digest = run(Command::new("sha256sum").arg(images.join("layer.tar")));
    let digest = digest.split(' ').next().unwrap();
    let config = |command: &[&str]| {
        json!({ "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
            "config": { "Env": ["PATH=/bin"], "Cmd": command },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] } })
    };
    let write = |name: &str, value: serde_json::Value| {
        std::fs::write(images.join(name), value.to_string()).unwrap()
    };
    write("pause.json", config(&["sleep", "1000000"]));
    write("busybox.json", config(&["sh"]));
    write(
        "manifest.json",
        json!([
            { "Config": "pause.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"] },
            { "Config": "busybox.json", "RepoTags": [BUSYBOX], "Layers": ["layer.tar"] },
        ]),
    );
    let archive = directory.join("images.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&images)
        .arg("-cf")
        .arg(&archive)
        .arg("."));
    archive
}

/// Runs a command to its end and returns what it says.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
