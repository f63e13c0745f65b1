//! Container images without a registry: a docker-archive of one layer with a static binary in it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use crate::layout::Layout;

/// Image of the pods' sandboxes.
pub const PAUSE: &str = "sluice.local/pause:1";
/// Image of the example application.
pub const ECHO: &str = "sluice.local/echo:1";
/// Image with a shell and the usual tools.
pub const BUSYBOX: &str = "sluice.local/busybox:1";

const BUSYBOX_PATHS: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];
const APPLETS: [&str; 24] = [
    "cat", "cp", "date", "echo", "env", "false", "grep", "head", "hostname", "id", "ip", "ls",
    "mkdir", "nc", "ping", "ps", "rm", "sh", "sleep", "tail", "test", "true", "wget", "wc",
];

/// Static binaries that images are made of.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// Directory with `pause` and `echo`.
    directory: PathBuf,
}

impl Binaries {
    /// Takes the given directory, or looks where the build puts them: beside this executable and in the
    /// target directory that it lies in.
    pub fn find(given: Option<&Path>) -> Option<Self> {
        let executable = std::env::current_exe().unwrap_or_default();
        let beside = executable.parent().unwrap_or(Path::new("."));
        let candidates = [beside.join("static"), beside.join("../static/release")];
        let all = given.map(Path::to_path_buf).into_iter();
        let searched = all.chain(candidates.into_iter().filter(|_| given.is_none()));
        searched
            .filter_map(|directory| {
                Some(Self {
                    directory: directory.canonicalize().ok()?,
                })
            })
            .find(|found| found.path("pause").is_file() && found.path("echo").is_file())
    }

    /// The example application and load generator.
    pub fn echo(&self) -> PathBuf {
        self.path("echo")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Writes one archive per image that can be made, and names them.
pub fn build(layout: &Layout, binaries: &Binaries) -> Result<Vec<PathBuf>> {
    let directory = layout.state().join("images");
    fs::create_dir_all(&directory)?;
    let (pause, echo) = (binaries.path("pause"), binaries.echo());
    let mut images = vec![
        Image::new(PAUSE, &pause, "pause"),
        Image::new(ECHO, &echo, "echo"),
    ];
    if let Some(busybox) = BUSYBOX_PATHS
        .map(Path::new)
        .into_iter()
        .find(|path| is_static(path))
    {
        images.push(Image {
            links: &APPLETS,
            ..Image::new(BUSYBOX, busybox, "bin/busybox")
        });
    }
    let write = |image: Image| {
        let path = directory.join(format!("{}.tar", image.short_name()));
        image
            .write(&path)
            .with_context(|| format!("cannot make image {}", image.name))?;
        Ok(path)
    };
    images.into_iter().map(write).collect()
}

struct Image<'a> {
    name: &'a str,
    binary: &'a Path,
    /// Where the binary lies in the image, without the leading slash.
    target: &'a str,
    /// Further names of the binary in its directory.
    links: &'a [&'a str],
}

impl<'a> Image<'a> {
    fn new(name: &'a str, binary: &'a Path, target: &'a str) -> Self {
        Self {
            name,
            binary,
            target,
            links: &[],
        }
    }

    fn short_name(&self) -> &str {
        let base = self.name.rsplit('/').next().unwrap_or(self.name);
        base.split(':').next().unwrap_or(base)
    }

    /// The archive as `docker save` writes it: manifest, configuration, layers.
    fn write(&self, path: &Path) -> Result<()> {
        let layer = self.layer()?;
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint(), "Env": ["PATH=/bin:/"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
        }))?;
        let config_name = format!("{}.json", sha256(&config));
        let manifest = serde_json::to_vec(&json!([{
            "Config": config_name, "RepoTags": [self.name], "Layers": ["layer.tar"],
        }]))?;
        let temporary = path.with_extension("new");
        let mut archive = tar::Builder::new(File::create(&temporary)?);
        append(&mut archive, "manifest.json", 0o644, &manifest)?;
        append(&mut archive, &config_name, 0o644, &config)?;
        append(&mut archive, "layer.tar", 0o644, &layer)?;
        archive.into_inner()?.flush()?;
        Ok(fs::rename(temporary, path)?)
    }

    /// A shell image is run by whatever command a pod names; the others run their only binary.
    fn entrypoint(&self) -> Vec<String> {
        if self.links.is_empty() {
            vec![format!("/{}", self.target)]
        } else {
            Vec::new()
        }
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let binary = fs::read(self.binary)
            .with_context(|| format!("cannot read {}", self.binary.display()))?;
        let mut layer = tar::Builder::new(Vec::new());
        for directory in ["tmp/", "etc/", "bin/"] {
            append_directory(&mut layer, directory)?;
        }
        append(&mut layer, self.target, 0o755, &binary)?;
        for link in self.links {
            append_link(
                &mut layer,
                &format!("bin/{link}"),
                &format!("/{}", self.target),
            )?;
        }
        Ok(layer.into_inner()?)
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    // No times, no owners: the same binary gives the same image.
    header.set_mtime(0);
    header
}

fn append<W: Write>(
    to: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    data: &[u8],
) -> io::Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, data.len() as u64);
    to.append_data(&mut header, path, data)
}

fn append_directory<W: Write>(to: &mut tar::Builder<W>, path: &str) -> io::Result<()> {
    let mode = if path == "tmp/" { 0o1777 } else { 0o755 };
    let mut header = header(tar::EntryType::Directory, mode, 0);
    to.append_data(&mut header, path, io::empty())
}

fn append_link<W: Write>(to: &mut tar::Builder<W>, path: &str, target: &str) -> io::Result<()> {
    let mut header = header(tar::EntryType::Symlink, 0o777, 0);
    to.append_link(&mut header, path, target)
}

fn sha256(data: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, data);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The architecture in the words of the OCI image specification.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Whether the file is an ELF executable that asks for no interpreter (program header PT_INTERP).
fn is_static(path: &Path) -> bool {
    let Ok(bytes) = fs::read(path) else {
        return false;
    };
    has_interpreter(&bytes) == Some(false)
}

/// `None` when the bytes are not a 64-bit little-endian ELF file.
fn has_interpreter(bytes: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> Option<u64> {
        let mut buffer = [0; 8];
        buffer[..size].copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
        Some(u64::from_le_bytes(buffer))
    };
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (offset, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut found = false;
    for index in 0..count {
        let at = offset.checked_add(index * size)?;
        found |= number(usize::try_from(at).ok()?, 4)? == u64::from(PT_INTERP);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_a_manifest_that_names_its_parts() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("b");
        fs::write(&binary, b"program").unwrap();
        let path = directory.path().join("b.tar");
        Image::new(ECHO, &binary, "echo").write(&path).unwrap();

        let mut archive = tar::Archive::new(File::open(&path).unwrap());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names[0], "manifest.json");
        assert_eq!(names[2], "layer.tar");
    }

    #[test]
    fn the_same_binary_gives_the_same_image() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("b");
        fs::write(&binary, b"program").unwrap();
        let image = Image {
            links: &["sh"],
            ..Image::new(BUSYBOX, &binary, "bin/busybox")
        };
        assert_eq!(image.layer().unwrap(), image.layer().unwrap());
        assert_eq!(image.short_name(), "busybox");
    }

    #[test]
    fn dynamic_executables_and_garbage_are_told_apart_from_static_ones() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(has_interpreter(&own), Some(true));
        assert_eq!(has_interpreter(b"#!/bin/sh\n"), None);
        assert_eq!(has_interpreter(&own[..60]), None);
    }

    #[test]
    fn sha256_of_nothing() {
        assert!(sha256(b"").starts_with("e3b0c44298fc1c14"));
    }
}
