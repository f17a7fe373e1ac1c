//! Installing into a cluster that the person already has.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::images::{self, Images};
use super::operator::{self, Tools};
use crate::command::{command, output, succeeds};
use crate::{programs, say};

/// Tools that can put an image archive into a cluster of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Loader {
    Kind(String),
    K3d(String),
    Minikube(String),
    K3s,
}

/// Loads the images into the cluster of this context and installs the chart.
///
/// # Errors
/// The context is not in the kubeconfig, its cluster is of no kind that takes image archives, or a tool fails.
pub fn install(context: &str) -> Result<()> {
    let (kubectl, helm) = (tool("kubectl")?, tool("helm")?);
    let tools = Tools::of_context(&kubectl, &helm, context);
    let known = output(&mut command(&kubectl, ["config", "get-contexts", "-o", "name"]))?;
    if !known.lines().any(|line| line == context) {
        let known: Vec<&str> = known.lines().collect();
        bail!(
            "your kubeconfig has no context {context:?}; it has: {}",
            known.join(", ")
        );
    }
    let loader = Loader::of(context, |tool| on_path(tool).is_some())?;
    output(&mut tools.kubectl(["get", "--raw", "/readyz"])).context("its API server does not answer")?;
    let images = images::ready()?;
    for archive in images.archives.iter().filter(|archive| is_wanted(archive)) {
        output(&mut loader.load(archive)).with_context(|| format!("cannot load {}", archive.display()))?;
    }
    say::step(format!("images are in the cluster of {context}: {}", images.tag));
    operator::install(&tools, &operator::Release::of(&images))?;
    say::step("the operator is installed");
    say::plain(format!("{}\nMake a Relay: docs/examples/", installed(&images)));
    Ok(())
}

fn installed(images: &Images) -> String {
    images
        .made
        .iter()
        .map(|image| format!("{} {}\n", image.name, image.digest))
        .collect()
}

/// Such a cluster brings its own pause and storage.
fn is_wanted(archive: &Path) -> bool {
    !["pause.tar", "busybox.tar"].iter().any(|name| archive.ends_with(name))
}

impl Loader {
    fn of(context: &str, has: impl Fn(&str) -> bool) -> Result<Self> {
        let named = |prefix: &str| context.strip_prefix(prefix).map(str::to_owned);
        let (tool, loader) = match (named("kind-"), named("k3d-"), context) {
            (Some(name), ..) => ("kind", Self::Kind(name)),
            (_, Some(name), _) => ("k3d", Self::K3d(name)),
            (_, _, "default") => ("k3s", Self::K3s),
            (_, _, "minikube") => ("minikube", Self::Minikube(context.to_owned())),
            // A minikube profile may have any name.
            _ if has("minikube") && is_profile(context) => ("minikube", Self::Minikube(context.to_owned())),
            _ => bail!(
                "the context {context:?} is none of kind-NAME, k3d-NAME, minikube or k3s' default, whose images can be \
                 loaded from archives: push the images of `e2e image build` to a registry of yours and install \
                 charts/relayfleet with `helm install --set images.…`"
            ),
        };
        if !has(tool) {
            bail!(
                "the context {context:?} looks like {tool}'s, but there is no {tool} on the PATH to load images with"
            );
        }
        Ok(loader)
    }

    fn load(&self, archive: &Path) -> Command {
        let mut load = match self {
            Self::Kind(name) => command("kind", ["load", "image-archive", "--name", name]),
            Self::K3d(name) => command("k3d", ["image", "import", "--cluster", name]),
            Self::Minikube(profile) => command("minikube", ["--profile", profile, "image", "load"]),
            Self::K3s => command("k3s", ["ctr", "images", "import"]),
        };
        load.arg(archive);
        load
    }
}

fn is_profile(name: &str) -> bool {
    succeeds(&mut command("minikube", ["--profile", name, "status"]))
}

/// The person's own, or ours, which may have to be built.
fn tool(name: &str) -> Result<PathBuf> {
    match on_path(name) {
        Some(path) => Ok(path),
        None => Ok(programs::ready()?.join(name)),
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_known_by_its_name_and_needs_its_tool() {
        assert_eq!(Loader::of("kind-blue", |_| true).unwrap(), Loader::Kind("blue".into()));
        assert_eq!(Loader::of("k3d-red", |_| true).unwrap(), Loader::K3d("red".into()));
        assert_eq!(Loader::of("default", |tool| tool == "k3s").unwrap(), Loader::K3s);

        assert!(
            Loader::of("kind-blue", |_| false)
                .unwrap_err()
                .to_string()
                .contains("no kind on the PATH")
        );
        let foreign = Loader::of("gke_project_zone_name", |_| false).unwrap_err().to_string();
        assert!(foreign.contains("registry"), "{foreign}");
    }
}
