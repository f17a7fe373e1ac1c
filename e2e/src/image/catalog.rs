//! Which images there are and what each holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::archive::{Image, Made, USER};
use super::build::{Programs, build_static, ensure_static};
use super::layer::Layer;

/// One of the images that a cluster needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Our relay, nothing else.
    Relay,
    /// Our operator, nothing else.
    Operator,
    /// What kubelet's sandbox runs.
    Pause,
    /// Debian's busybox with its commands: for local-path-provisioner's helper pods.
    Busybox,
    /// Debian's C tor with its libraries: to compare with, and as the other engine.
    Tor,
}

/// Commands that busybox answers to in its image.
const APPLETS: [&str; 12] = [
    "sh", "mkdir", "rm", "chmod", "chown", "ls", "cat", "sleep", "wget", "nc", "true", "test",
];

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Relay, Self::Operator, Self::Pause, Self::Busybox, Self::Tor];

    /// The last word of the image's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Operator => "operator",
            Self::Pause => "pause",
            Self::Busybox => "busybox",
            Self::Tor => "tor",
        }
    }

    /// The image's full name: `localhost/relayfleet/relay:0.1.0`.
    #[must_use]
    pub fn name(self, tag: &str) -> String {
        format!("localhost/relayfleet/{}:{tag}", self.word())
    }

    fn describe(self, programs: &Programs, tag: &str) -> anyhow::Result<Image> {
        match self {
            Self::Relay => ours(self, &programs.relay, tag),
            Self::Operator => ours(self, &programs.operator, tag),
            Self::Pause => ours(self, &programs.pause, tag),
            Self::Busybox => busybox(tag),
            Self::Tor => tor(tag),
        }
    }
}

/// Builds the programs and writes every image's archive into `folder`, which is made if need be.
///
/// # Errors
/// When a build fails, a Debian package is missing or a file cannot be written.
pub fn make_all(workspace: &Path, folder: &Path, tag: &str) -> anyhow::Result<Vec<Made>> {
    let programs = build_static(workspace)?;
    make(&Kind::ALL, &programs, folder, tag)
}

/// Writes the archives of the images named, `relay.tar` and so on, into `folder`, which is made if need be.
///
/// # Errors
/// When a program or a Debian package is missing or a file cannot be written.
pub fn make(kinds: &[Kind], programs: &Programs, folder: &Path, tag: &str) -> anyhow::Result<Vec<Made>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    kinds
        .iter()
        .map(|kind| {
            let archive = folder.join(format!("{}.tar", kind.word()));
            kind.describe(programs, tag)
                .and_then(|image| image.write(&archive))
                .with_context(|| kind.name(tag))
        })
        .collect()
}

/// Writes the archives of the two images that a cluster needs before it can run any pod.
///
/// # Errors
/// As [`make`].
pub fn make_pause_and_busybox(pause: &Path, folder: &Path, tag: &str) -> anyhow::Result<Vec<Made>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let images = [
        (Kind::Pause, ours(Kind::Pause, pause, tag)?),
        (Kind::Busybox, busybox(tag)?),
    ];
    let write = |(kind, image): (Kind, Image)| image.write(&folder.join(format!("{}.tar", kind.word())));
    images.into_iter().map(write).collect()
}

/// One static program and nothing else.
pub(crate) fn ours(kind: Kind, program: &Path, tag: &str) -> anyhow::Result<Image> {
    ensure_static(program)?;
    let path = format!("/usr/local/bin/{}", kind.word());
    let mut layer = Layer::default();
    layer.program(&path, program)?;
    Ok(Image {
        name: kind.name(tag),
        user: USER.into(),
        entrypoint: vec![path],
        layer,
    })
}

fn busybox(tag: &str) -> anyhow::Result<Image> {
    let program = debian_file(&["/bin/busybox", "/usr/bin/busybox"], "busybox-static")?;
    ensure_static(&program).context("install the Debian package busybox-static instead of busybox")?;
    let mut layer = Layer::default();
    layer.program("/bin/busybox", &program)?;
    for applet in APPLETS {
        layer.link(&format!("/bin/{applet}"), "busybox");
    }
    // As root: it makes and removes the folders of volumes, whose owners vary.
    Ok(Image {
        name: Kind::Busybox.name(tag),
        user: "0:0".into(),
        entrypoint: vec!["/bin/sh".into()],
        layer,
    })
}

fn tor(tag: &str) -> anyhow::Result<Image> {
    let program = debian_file(&["/usr/bin/tor", "/usr/sbin/tor"], "tor")?;
    let mut layer = Layer::default();
    layer.program("/usr/bin/tor", &program)?;
    for library in libraries(&program)? {
        let path = library.to_str().context("a library's path is not text")?;
        layer.program(path, &library)?;
    }
    Ok(Image {
        name: Kind::Tor.name(tag),
        user: USER.into(),
        entrypoint: vec!["/usr/bin/tor".into()],
        layer,
    })
}

fn debian_file(places: &[&str], package: &str) -> anyhow::Result<PathBuf> {
    places
        .iter()
        .map(PathBuf::from)
        .find(|place| place.is_file())
        .with_context(|| format!("{} is missing: apt-get install {package}", places.join(" or ")))
}

/// The shared libraries and the loader that a program names, where the loader finds them.
fn libraries(program: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("cannot start ldd")?;
    ensure!(
        output.status.success(),
        "ldd {}: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    listed(&String::from_utf8(output.stdout)?)
}

/// Reads ldd's lines: `name => path (address)`, or `path (address)` for the loader, or a name alone for the kernel's.
fn listed(text: &str) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        ensure!(!line.ends_with("not found"), "a library is missing: {line}");
        let place = line.split_once("=> ").map_or(line, |(_, place)| place);
        if let Some(path) = place.split_whitespace().next().filter(|path| path.starts_with('/')) {
            found.insert(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_loader_and_what_is_missing() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x2)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let paths: Vec<PathBuf> = listed(text).unwrap().into_iter().collect();
        assert_eq!(
            paths,
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libz.so.1"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(listed("\tlibz.so.1 => not found\n").is_err());
    }

    #[test]
    fn a_script_is_refused_as_an_image_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("relay");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        assert!(ours(Kind::Relay, &script, "1").is_err());
    }
}
