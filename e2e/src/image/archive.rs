//! One image as one OCI archive (image-spec 1.0 "Image Layout"), which older tools that know `docker save` take too.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::layer::Layer;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Nobody in particular; Kubernetes demands a number to believe `runAsNonRoot`. 10 000 and above collide with no
/// user of a host.
pub const USER: &str = "10001:10001";

/// What an image holds and how it starts.
#[derive(Debug, Clone)]
pub struct Image {
    /// With registry and tag: `localhost/relayfleet/relay:0.1.0`.
    pub name: String,
    /// `uid:gid` in numbers; scratch has no names.
    pub user: String,
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// The one layer.
    pub layer: Layer,
}

/// An image that lies on disk.
#[derive(Debug, Clone)]
pub struct Made {
    /// With registry and tag.
    pub name: String,
    /// Of the manifest, `sha256:…`: what container runtimes print as the image's digest.
    pub digest: String,
    /// The OCI archive.
    pub archive: PathBuf,
}

/// A blob with its digest in hex.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self {
            digest: hex::encode(Sha256::digest(&bytes)),
            bytes,
        }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.bytes.len() })
    }
}

impl Image {
    /// The archive's bytes and the manifest's digest.
    ///
    /// # Errors
    /// When a path in the layer is longer than a tar header holds.
    pub fn to_archive(&self) -> anyhow::Result<(Vec<u8>, String)> {
        let layer = Blob::new(self.layer.to_tar()?);
        let config = Blob::json(&self.config(&layer));
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": [layer.descriptor(LAYER)],
        }));
        let saved = json!([{ "Config": config.path(), "RepoTags": [self.name], "Layers": [layer.path()] }]);
        let index = self.index(&manifest);
        let digest = format!("sha256:{}", manifest.digest);

        let mut archive = Layer::default();
        archive.file(
            "oci-layout",
            json!({ "imageLayoutVersion": "1.0.0" }).to_string().into_bytes(),
            0o644,
        );
        archive.file("index.json", index.to_string().into_bytes(), 0o644);
        archive.file("manifest.json", saved.to_string().into_bytes(), 0o644);
        for blob in [manifest, config, layer] {
            archive.file(&blob.path(), blob.bytes, 0o644);
        }
        Ok((archive.to_tar()?, digest))
    }

    /// Writes the archive; a reader never sees half of it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<Made> {
        let (bytes, digest) = self.to_archive()?;
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, bytes)
            .and_then(|()| std::fs::rename(&fresh, path))
            .with_context(|| format!("cannot write the image {}", path.display()))?;
        Ok(Made {
            name: self.name.clone(),
            digest,
            archive: path.to_owned(),
        })
    }

    fn config(&self, layer: &Blob) -> Value {
        json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": self.user,
                "Entrypoint": self.entrypoint,
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "relayfleet e2e image" }],
        })
    }

    fn index(&self, manifest: &Blob) -> Value {
        let mut entry = manifest.descriptor(MANIFEST);
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        if let Some(entry) = entry.as_object_mut() {
            entry.insert(
                "platform".into(),
                json!({ "architecture": architecture(), "os": "linux" }),
            );
            entry.insert(
                "annotations".into(),
                json!({ "io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag }),
            );
        }
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        })
    }
}

/// This machine's processor as images name it (Go's GOARCH).
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;

    fn image_of(program: &Path) -> Image {
        let mut layer = Layer::default();
        layer.program("/usr/local/bin/relay", program).unwrap();
        Image {
            name: "localhost/relayfleet/relay:1".into(),
            user: USER.into(),
            entrypoint: vec!["/usr/local/bin/relay".into()],
            layer,
        }
    }

    fn listed(archive: &[u8]) -> Vec<(String, u32, u64, u64)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                (
                    path,
                    header.mode().unwrap(),
                    header.uid().unwrap(),
                    header.mtime().unwrap(),
                )
            })
            .collect()
    }

    fn content(archive: &[u8], path: &str) -> Vec<u8> {
        let mut archive = tar::Archive::new(archive);
        let mut entry = archive
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .find(|entry| entry.path().unwrap().to_str() == Some(path))
            .unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_same_program_in_two_folders_gives_the_same_image() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let made = folders.each_ref().map(|folder| {
            let program = folder.path().join("built");
            fs::write(&program, b"a relay").unwrap();
            image_of(&program).write(&folder.path().join("relay.tar")).unwrap()
        });

        assert_eq!(made[0].digest, made[1].digest);
        assert_eq!(fs::read(&made[0].archive).unwrap(), fs::read(&made[1].archive).unwrap());
    }

    #[test]
    fn another_program_gives_another_digest() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("built");
        let digests = [b"one relay", b"two relay"].map(|bytes| {
            fs::write(&program, bytes).unwrap();
            image_of(&program).to_archive().unwrap().1
        });

        assert_ne!(digests[0], digests[1]);
    }

    #[test]
    fn an_image_holds_the_program_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("built");
        fs::write(&program, b"a relay").unwrap();
        let (archive, digest) = image_of(&program).to_archive().unwrap();

        let index: Value = serde_json::from_slice(&content(&archive, "index.json")).unwrap();
        let named = &index["manifests"][0];
        assert_eq!(named["digest"], digest);
        assert_eq!(
            named["annotations"]["io.containerd.image.name"],
            "localhost/relayfleet/relay:1"
        );

        let blob = |value: &Value| value["digest"].as_str().unwrap().replace(':', "/");
        let manifest = content(&archive, &format!("blobs/{}", blob(named)));
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layer = content(&archive, &format!("blobs/{}", blob(&manifest["layers"][0])));
        assert_eq!(
            listed(&layer),
            [
                ("usr/".into(), 0o755, 0, 0),
                ("usr/local/".into(), 0o755, 0, 0),
                ("usr/local/bin/".into(), 0o755, 0, 0),
                ("usr/local/bin/relay".into(), 0o555, 0, 0),
            ]
        );

        let config = content(&archive, &format!("blobs/{}", blob(&manifest["config"])));
        let config: Value = serde_json::from_slice(&config).unwrap();
        let (uid, _) = config["config"]["User"].as_str().unwrap().split_once(':').unwrap();
        assert!(uid.parse::<u32>().unwrap() >= 10_000);
    }

    #[test]
    fn every_blob_is_named_by_its_own_digest() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("built");
        fs::write(&program, vec![7; 100_000]).unwrap();
        let (archive, _) = image_of(&program).to_archive().unwrap();

        let blobs: Vec<String> = listed(&archive)
            .into_iter()
            .filter_map(|(path, ..)| path.strip_prefix("blobs/sha256/").map(str::to_owned))
            .filter(|digest| !digest.is_empty())
            .collect();
        assert_eq!(blobs.len(), 3);
        for digest in blobs {
            let bytes = content(&archive, &format!("blobs/sha256/{digest}"));
            assert_eq!(hex::encode(Sha256::digest(&bytes)), digest);
        }
    }
}
