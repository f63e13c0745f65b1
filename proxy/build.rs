//! Provides the eBPF object as `$OUT_DIR/sluice.bpf.o`.
//!
//! Built from `ebpf/programs` where the toolchain is, else taken from `prebuilt/`. `EBPF_BUILD` decides:
//! `source` makes a missing toolchain an error, `prebuilt` never builds. docs/dataplane.md says what the
//! toolchain is.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

type Error = Box<dyn std::error::Error>;

/// The object's name, and of the binary target that it is.
const OBJECT: &str = "sluice";
const TARGET: &str = "bpfel-unknown-none";

fn main() -> Result<(), Error> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?)
        .join("..")
        .canonicalize()?;
    for path in [
        "ebpf/common",
        "ebpf/datapath",
        "ebpf/programs/src",
        "ebpf/programs/Cargo.toml",
        "ebpf/programs/Cargo.lock",
        "proxy/prebuilt",
        "proxy/build.rs",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo:rerun-if-env-changed=EBPF_BUILD");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let object = match env::var("EBPF_BUILD").as_deref() {
        Ok("prebuilt") => prebuilt(&root),
        Ok("source") => build(&root, &out, &toolchain()?)?,
        Ok(other) if !other.is_empty() => {
            return Err(format!("EBPF_BUILD={other}: expected source, prebuilt or nothing").into());
        }
        _ => match toolchain() {
            Ok(toolchain) => build(&root, &out, &toolchain)?,
            Err(_) => prebuilt(&root),
        },
    };
    std::fs::copy(&object, out.join("sluice.bpf.o"))
        .map_err(|e| format!("cannot copy {}: {e}", object.display()))?;
    Ok(())
}

fn prebuilt(root: &Path) -> PathBuf {
    root.join("proxy/prebuilt/sluice.bpf.o")
}

/// A way to compile Rust for the BPF target.
enum Toolchain {
    /// The distribution's compiler, with a core library for the target already built.
    System,
    /// rustup's nightly, which builds the core library itself.
    Nightly,
}

/// Finds a toolchain, or says what is missing.
fn toolchain() -> Result<Toolchain, Error> {
    if !runs(linker().arg("--version")) {
        return Err("no bpf-linker: see docs/dataplane.md for how to install it".into());
    }
    let system = Path::new("/usr/lib/rustlib").join(TARGET);
    if system.is_dir()
        && Path::new("/usr/bin/cargo").exists()
        && Path::new("/usr/bin/rustc").exists()
    {
        return Ok(Toolchain::System);
    }
    let mut sysroot = Command::new("rustup");
    sysroot.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    let nightly = sysroot.output().ok().filter(|o| o.status.success());
    let sources = nightly
        .and_then(|o| String::from_utf8(o.stdout).ok())
        .is_some_and(|root| {
            Path::new(root.trim())
                .join("lib/rustlib/src/rust/library/core")
                .is_dir()
        });
    if sources {
        return Ok(Toolchain::Nightly);
    }
    Err("no Rust compiler for the BPF target: see docs/dataplane.md for how to install one".into())
}

fn linker() -> Command {
    let mut command = Command::new("bpf-linker");
    command.env("PATH", search_path());
    command
}

fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// PATH, with cargo's directory of installed programs, where bpf-linker is, in front.
fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let Some(bin) = cargo_home.or(home).map(|dir| dir.join("bin")) else {
        return path;
    };
    env::join_paths(std::iter::once(bin).chain(env::split_paths(&path))).unwrap_or(path)
}

fn build(root: &Path, out: &Path, toolchain: &Toolchain) -> Result<PathBuf, Error> {
    let target_dir = out.join("ebpf");
    let mut cargo = match toolchain {
        Toolchain::System => {
            let mut cargo = Command::new("/usr/bin/cargo");
            // Unstable flags for one crate only: with `1`, cargo would want to build core itself.
            cargo
                .env("RUSTC", "/usr/bin/rustc")
                .env("RUSTC_BOOTSTRAP", "aya_ebpf");
            cargo
        }
        Toolchain::Nightly => {
            let mut cargo = Command::new("rustup");
            cargo.args(["run", "nightly", "cargo"]).env_remove("RUSTC");
            cargo
        }
    };
    cargo.args(["build", "--release", "--locked", "--target", TARGET]);
    if matches!(toolchain, Toolchain::Nightly) {
        cargo.args(["-Z", "build-std=core"]);
    }
    cargo.arg("--target-dir").arg(&target_dir);
    cargo
        .current_dir(root.join("ebpf/programs"))
        .env("PATH", search_path());
    // What cargo tells this script about the host's build is not for the child.
    for name in [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
    ] {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(root));
    let output = cargo
        .output()
        .map_err(|e| format!("cannot run cargo for ebpf/programs: {e}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("building ebpf/programs failed:\n{stderr}").into());
    }
    Ok(target_dir.join(TARGET).join("release").join(OBJECT))
}

/// Compiler flags. Paths are mapped to fixed ones, so that the object is the same wherever it is built.
fn flags(root: &Path) -> String {
    let mut flags = vec![
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Copies of some bytes become loads and stores rather than calls of `memmove` and `memset`.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        // Packets lie at any address; the kernel knows, and emulates where the machine cannot.
        "-Ctarget-feature=+allows-misaligned-mem-access".to_owned(),
        format!("--remap-path-prefix={}=sluice", root.display()),
    ];
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    if let Some(home) = home {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    flags.join("\x1f")
}
