//! Kubernetes' own programs, built from their own Go modules once a machine and version.
//!
//! The pins are the `go.mod` and `go.sum` files under `e2e/cluster/`; what is built lies outside the tree, in
//! `$RELAYFLEET_CACHE` (default `~/.cache/relayfleet`) under a name made of those pins, whole or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{command, say};

/// The Kubernetes that `e2e/cluster/kubernetes/go.mod` pins; the linker writes it into the programs.
pub const KUBERNETES: &str = "1.35.4";

/// Programs that share one go.mod, so that no family bends another's versions.
struct Family {
    name: &'static str,
    /// Name of the program and its package.
    programs: &'static [(&'static str, &'static str)],
}

const FAMILIES: [Family; 5] = [
    Family {
        name: "etcd",
        programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
    },
    Family {
        name: "kubernetes",
        programs: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            (
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
            ),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ],
    },
    Family {
        name: "helm",
        programs: &[("helm", "helm.sh/helm/v3/cmd/helm")],
    },
    Family {
        name: "provisioner",
        programs: &[("local-path-provisioner", "github.com/rancher/local-path-provisioner")],
    },
    Family {
        name: "kwok",
        programs: &[("kwok", "sigs.k8s.io/kwok/cmd/kwok")],
    },
];

/// The repository's own folder: `RELAYFLEET_ROOT`, or where this program was built.
pub fn repository() -> PathBuf {
    match std::env::var_os("RELAYFLEET_ROOT") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap_or(Path::new("/"))
            .to_path_buf(),
    }
}

/// Cargo's target folder: `CARGO_TARGET_DIR`, or `target` in the repository.
pub fn target() -> PathBuf {
    repository().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// `$RELAYFLEET_CACHE`, or `~/.cache/relayfleet`.
pub fn cache() -> PathBuf {
    match std::env::var_os("RELAYFLEET_CACHE") {
        Some(cache) => cache.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/relayfleet"),
    }
}

/// The folder with all programs, built now if they are not there: about 11 minutes on two processors the first time.
///
/// # Errors
/// No Go, no network for the modules, no space: the error names the log.
pub fn ready() -> Result<PathBuf> {
    let folder = cache().join(format!("bin-{}", key()?));
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(cache()).with_context(|| format!("cannot make {}", cache().display()))?;
    let lock = File::create(cache().join("lock"))?;
    lock.lock().context("cannot lock the cache")?;
    if folder.is_dir() {
        return Ok(folder);
    }
    say::step("building Kubernetes' programs from their Go modules (once; about 11 minutes on two processors)");
    let unfinished = cache().join("bin-unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished)?;
    for family in &FAMILIES {
        build(family, &unfinished)?;
        let names: Vec<&str> = family.programs.iter().map(|(name, _)| *name).collect();
        say::step(format!("  built {}", names.join(", ")));
    }
    fs::rename(&unfinished, &folder)?;
    Ok(folder)
}

fn build(family: &Family, into: &Path) -> Result<()> {
    let log = cache().join(format!("build-{}.log", family.name));
    let mut go = command::command(
        "go",
        ["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags"],
    );
    go.arg(linker_flags(family)).arg("-o");
    match family.programs {
        // A package named v3 makes a program named after its parent, so the one program says its own name.
        [(name, package)] => go.arg(into.join(name)).arg(package),
        many => go
            .arg(format!("{}/", into.display()))
            .args(many.iter().map(|(_, package)| package)),
    };
    go.current_dir(modules().join(family.name));
    go.env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off")
        .env_remove("GOFLAGS");
    command::logged(&mut go, &log).context("needs Go 1.25 or newer, the Go module proxy and 4 GB of disk")?;
    for (name, _) in family.programs {
        if !into.join(name).is_file() {
            bail!("{} built no {name}; see {}", family.name, log.display());
        }
    }
    Ok(())
}

fn linker_flags(family: &Family) -> String {
    if family.name != "kubernetes" {
        return "-s -w ".to_owned();
    }
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    let version = "k8s.io/component-base/version";
    format!(
        "-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor={minor} \
         -X k8s.io/client-go/pkg/version.gitVersion=v{KUBERNETES}"
    )
}

fn modules() -> PathBuf {
    repository().join("e2e/cluster")
}

/// Twelve hexadecimal digits over everything that decides what is built.
fn key() -> Result<String> {
    let mut hash = Sha256::new();
    for family in &FAMILIES {
        hash.update(linker_flags(family));
        for file in ["go.mod", "go.sum"] {
            let path = modules().join(family.name).join(file);
            hash.update(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    Ok(hex::encode(hash.finalize()).chars().take(12).collect())
}
