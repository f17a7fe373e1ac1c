//! Our programs, linked statically, with no trace of where they were built.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::{elf, shared};

/// Where the static programs lie after a build.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The relay.
    pub relay: PathBuf,
    /// The operator.
    pub operator: PathBuf,
    /// What holds a pod's namespaces.
    pub pause: PathBuf,
}

impl Programs {
    /// The programs that lie in this folder under their own names.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            relay: folder.join("relay"),
            operator: folder.join("operator"),
            pause: folder.join("pause"),
        }
    }
}

/// Builds `relay`, `operator` and `pause` from the workspace: release, static, the same bytes wherever it is checked
/// out. What other crates cost is paid once for each compiler, in a folder of the cache that all checkouts share; the
/// programs themselves come to `target/programs` of this one. Cargo's own progress goes to stderr.
///
/// # Errors
/// When cargo or rustc are missing, the build fails, or a program came out with a need for shared libraries.
pub fn build_static(workspace: &Path) -> anyhow::Result<Programs> {
    let (workspace, target) = whereabouts(workspace)?;
    build_static_into(&workspace, &target)
}

/// Builds `pause` alone as [`build_static`] does: what a cluster needs before it can run any pod. Its target folder is
/// its own, so that a cluster can start while the other programs are still built.
///
/// # Errors
/// As [`build_static`].
pub fn build_pause(workspace: &Path) -> anyhow::Result<PathBuf> {
    let (workspace, target) = whereabouts(workspace)?;
    build_pause_into(&workspace, &target)
}

/// What the bench needs besides the relay as it ships.
#[derive(Debug, Clone)]
pub struct BenchPrograms {
    /// The relay with symbols and frame pointers, for `perf`.
    pub relay: PathBuf,
    /// The lean load.
    pub load: PathBuf,
}

/// Builds the load and the relay as [`build_static`] does, but with symbols and frame pointers. Their target folder is
/// their own: both flags concern every crate.
///
/// # Errors
/// As [`build_static`].
pub fn build_bench(workspace: &Path) -> anyhow::Result<BenchPrograms> {
    let (workspace, target) = whereabouts(workspace)?;
    let target = target.join("profiled");
    let toolchain = Toolchain::ask(&workspace)?;
    let flags = ["--release", "--target", &toolchain.host];
    let _lock = shared::take_over(&workspace, &target, &flags)?;
    let mut build = cargo_build(&workspace, &target, &["relay-node", "relay-load"], &flags, &toolchain);
    let mut rustflags = rust_flags(&toolchain, &target);
    rustflags.push("\u{1f}-Cforce-frame-pointers=yes");
    build
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags)
        .env("CFLAGS", format!("{} -fno-omit-frame-pointer", c_flags(&target)))
        .env("CARGO_PROFILE_RELEASE_STRIP", "none");
    run(&mut build)?;
    let built = target.join(&toolchain.host).join("release");
    let ours = workspace.join("target/programs");
    fs::create_dir_all(&ours)?;
    let copied = |program: &str, name: &str| -> anyhow::Result<PathBuf> {
        let (fresh, to) = (ours.join(format!("{name}.new")), ours.join(name));
        fs::copy(built.join(program), &fresh).and_then(|_| fs::rename(&fresh, &to))?;
        Ok(to)
    };
    Ok(BenchPrograms {
        relay: copied("relay", "relay-with-symbols")?,
        load: copied("relay-load", "relay-load")?,
    })
}

/// Builds the lean load as [`build_static`] builds the relay, whose crates it shares; where it is.
///
/// # Errors
/// As [`build_static`].
pub fn build_load(workspace: &Path) -> anyhow::Result<PathBuf> {
    let (workspace, target) = whereabouts(workspace)?;
    let folder = build(&workspace, &target.join("static"), &["relay-load"], &["relay-load"])?;
    Ok(folder.join("relay-load"))
}

/// The workspace's root and the target folder that all checkouts share. A build for one compiler is of no use to
/// another.
fn whereabouts(workspace: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let workspace = workspace
        .canonicalize()
        .with_context(|| format!("no workspace at {}", workspace.display()))?;
    let compiler: String = Toolchain::ask(&workspace)?.commit.chars().take(12).collect();
    Ok((workspace, crate::programs::cache().join(format!("rust-{compiler}"))))
}

/// As [`build_static`], with a target folder of the caller's choice.
///
/// # Errors
/// As [`build_static`].
pub(crate) fn build_static_into(workspace: &Path, target: &Path) -> anyhow::Result<Programs> {
    let packages = ["relay-node", "operator-controller"];
    let folder = build(workspace, &target.join("static"), &packages, &["relay", "operator"])?;
    // Never together with the others: what they ask of shared crates would change its bytes.
    build_pause_into(workspace, target)?;
    Ok(Programs::in_folder(&folder))
}

fn build_pause_into(workspace: &Path, target: &Path) -> anyhow::Result<PathBuf> {
    Ok(build(workspace, &target.join("pause"), &["pause"], &["pause"])?.join("pause"))
}

/// Builds these packages, checks their programs and copies them into the checkout, whose folder it gives.
fn build(workspace: &Path, target: &Path, packages: &[&str], programs: &[&str]) -> anyhow::Result<PathBuf> {
    let ours = workspace.join("target/programs");
    fs::create_dir_all(&ours).with_context(|| format!("cannot make {}", ours.display()))?;
    let toolchain = Toolchain::ask(workspace)?;
    let flags = ["--release", "--target", &toolchain.host];
    let _lock = shared::take_over(workspace, target, &flags)?;
    run(&mut cargo_build(workspace, target, packages, &flags, &toolchain))?;
    let built = target.join(&toolchain.host).join("release");
    for program in programs {
        let from = built.join(program);
        ensure_static(&from)?;
        ensure_homeless(&from, workspace)?;
        // Not over the old one: it may be running.
        let fresh = ours.join(format!("{program}.new"));
        fs::copy(&from, &fresh)
            .and_then(|_| fs::rename(&fresh, ours.join(program)))
            .with_context(|| format!("cannot copy {} to {}", from.display(), ours.display()))?;
    }
    Ok(ours)
}

fn cargo_build(workspace: &Path, target: &Path, packages: &[&str], flags: &[&str], toolchain: &Toolchain) -> Command {
    let mut build = Command::new(cargo());
    build
        .current_dir(workspace)
        .args(["build", "--locked"])
        .args(flags)
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .arg("--bins")
        .arg("--target-dir")
        .arg(target)
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(toolchain, target))
        .env("CFLAGS", c_flags(target))
        .env("CC_SHELL_ESCAPED_FLAGS", "1")
        .env("SOURCE_DATE_EPOCH", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        // It would be stripped, and takes a third of the time.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_INCREMENTAL");
    build
}

fn run(build: &mut Command) -> anyhow::Result<()> {
    let status = build.status().context("cannot start cargo: is Rust installed?")?;
    ensure!(
        status.success(),
        "cargo could not build the static programs ({status}); its messages stand above"
    );
    Ok(())
}

/// Refuses a program that would not start in an image without libraries.
///
/// # Errors
/// When it cannot be read, is no program, or asks for a loader.
pub fn ensure_static(program: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    if !elf::is_static(&bytes).with_context(|| program.display().to_string())? {
        bail!(
            "{} is linked dynamically and would not start in an image without libraries",
            program.display()
        );
    }
    Ok(())
}

/// Refuses a program that names the folder in which it was built: it would be another program elsewhere.
///
/// # Errors
/// When it cannot be read or holds the path.
fn ensure_homeless(program: &Path, workspace: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let path = workspace.as_os_str().as_encoded_bytes();
    ensure!(
        path.len() < 4 || !bytes.windows(path.len()).any(|window| window == path),
        "{} holds the path of the workspace: something in it uses CARGO_MANIFEST_DIR or an absolute path",
        program.display()
    );
    Ok(())
}

pub(super) struct Toolchain {
    pub(super) host: String,
    commit: String,
    sysroot: PathBuf,
}

impl Toolchain {
    /// Asked in the workspace, whose rust-toolchain.toml decides.
    pub(super) fn ask(workspace: &Path) -> anyhow::Result<Self> {
        let about = answer(workspace, &["-vV"])?;
        let field = |name: &str| {
            about
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::to_owned)
                .context("rustc -vV lacks a line")
        };
        Ok(Self {
            host: field("host: ")?,
            commit: field("commit-hash: ")?,
            sysroot: answer(workspace, &["--print", "sysroot"])?.trim().into(),
        })
    }
}

fn answer(workspace: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("rustc")
        .current_dir(workspace)
        .args(arguments)
        .output()
        .context("cannot start rustc: is Rust installed?")?;
    ensure!(
        output.status.success(),
        "rustc {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

pub(super) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn cargo_home() -> PathBuf {
    let default = || {
        std::env::var_os("HOME")
            .map_or_else(|| PathBuf::from("/root"), PathBuf::from)
            .join(".cargo")
    };
    std::env::var_os("CARGO_HOME").map_or_else(default, PathBuf::from)
}

/// Machine paths and what stands in their place. The workspace is not among them: Cargo names its files by relative
/// paths, and a flag that names the workspace would make every checkout build every crate anew.
fn remapped(target: &Path) -> [(PathBuf, &'static str); 2] {
    [(target.to_owned(), "/relayfleet/target"), (cargo_home(), "/cargo")]
}

/// For rustc, joined as CARGO_ENCODED_RUSTFLAGS wants it. Only with `--target` do these stay away from build scripts
/// and procedural macros, which cannot be static.
fn rust_flags(toolchain: &Toolchain, target: &Path) -> OsString {
    let mut flags: Vec<OsString> = vec!["-Ctarget-feature=+crt-static".into()];
    let mut remap = |from: &Path, to: &str| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    };
    for (from, to) in remapped(target) {
        remap(&from, to);
    }
    // Where the standard library's source is installed, rustc would name the local copy.
    remap(
        &toolchain.sysroot.join("lib/rustlib/src/rust"),
        &format!("/rustc/{}", toolchain.commit),
    );
    flags.join(OsString::from("\u{1f}").as_os_str())
}

/// For the C files of crates: `__FILE__` stands in their error messages.
fn c_flags(target: &Path) -> String {
    remapped(target)
        .map(|(from, to)| format!("'-ffile-prefix-map={}={to}'", from.display()))
        .join(" ")
}
