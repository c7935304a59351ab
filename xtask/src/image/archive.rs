//! Images as a tar file in the OCI image layout (image-spec, `image-layout.md`), and in the folders of a registry.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::blobs::{Blob, Blobs};
use super::layer::append_file;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Uncompressed: these archives don't travel, and the layer's digest is its diff id then.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How an image's containers start where a pod says nothing else.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// The program, and its arguments that stay.
    pub(crate) entrypoint: Vec<String>,
    /// The arguments that a pod replaces, or the command where there is no entrypoint.
    pub(crate) cmd: Vec<String>,
    /// The user, and the group behind a colon; root where it is empty.
    pub(crate) user: String,
}

/// An image whose parts are in a folder of blobs.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    manifest: Blob,
    config: Blob,
    layers: Vec<Blob>,
}

/// An image under a name such as `localhost/skep/busybox:latest`.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// The whole name.
    pub(crate) name: String,
    /// What it names.
    pub(crate) image: Image,
}

impl Image {
    /// Puts an image together, the lowest layer first.
    ///
    /// # Errors
    /// When its manifest can't be kept.
    pub(crate) fn new(blobs: &Blobs, layers: &[Blob], config: &Config) -> Result<Self> {
        let mut start = json!({ "Env": [PATH], "WorkingDir": "/" });
        for (key, words) in [("Entrypoint", &config.entrypoint), ("Cmd", &config.cmd)] {
            if !words.is_empty() {
                start[key] = json!(words);
            }
        }
        if !config.user.is_empty() {
            start["User"] = json!(config.user);
        }
        let digests: Vec<String> = layers.iter().map(Blob::digest).collect();
        let created: Vec<Value> = layers.iter().map(|_| json!({ "created_by": "cargo xtask image" })).collect();
        let config = json!({
            "architecture": architecture(), "os": "linux", "config": start,
            "rootfs": { "type": "layers", "diff_ids": digests }, "history": created,
        });
        let config = blobs.put(config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
        });
        let manifest = blobs.put(manifest.to_string().as_bytes())?;
        Ok(Self { manifest, config, layers: layers.to_vec() })
    }

    /// Its manifest.
    pub(crate) fn manifest(&self) -> &Blob {
        &self.manifest
    }

    /// Its configuration and its layers.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

impl Named {
    /// The name without the tag, and the tag.
    pub(crate) fn split(&self) -> (&str, &str) {
        // A colon before the last slash is a port's.
        match self.name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            Some(_) | None => (&self.name, "latest"),
        }
    }
}

/// Writes an archive of images; what they share is in it once.
///
/// # Errors
/// When a blob can't be read, or the archive not be written.
pub(crate) fn write(blobs: &Blobs, images: &[Named], to: impl Write) -> Result<()> {
    let mut builder = Builder::new(to);
    let mut small = |path: &str, content: &[u8]| -> Result<()> {
        let mut header = header(0o644);
        header.set_size(content.len() as u64);
        Ok(builder.append_data(&mut header, path, content)?)
    };
    small("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string().as_bytes())?;
    let manifests: Vec<Value> = images.iter().map(named_descriptor).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    small("index.json", index.to_string().as_bytes())?;
    for path in ["blobs", "blobs/sha256"] {
        let mut header = header(0o755);
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        builder.append_data(&mut header, format!("{path}/"), &[][..])?;
    }
    let parts = |named: &Named| -> Vec<Blob> {
        std::iter::once(named.image.manifest()).chain(named.image.parts()).cloned().collect()
    };
    let all: BTreeSet<Blob> = images.iter().flat_map(parts).collect();
    for blob in all {
        append_file(&mut builder, header(0o644), &format!("blobs/sha256/{}", blob.hex()), &blobs.file(&blob))?;
    }
    builder.into_inner()?.flush()?;
    Ok(())
}

/// Puts an image into the registry that serves a folder of blobs; `repository` is its name there.
///
/// # Errors
/// When it can't be written.
pub(crate) fn publish(blobs: &Blobs, repository: &str, tag: &str, image: &Image) -> Result<()> {
    let repository = format!("repositories/{repository}");
    let manifest = image.manifest();
    for blob in image.parts() {
        blobs.note(&format!("{repository}/_layers/sha256/{}/link", blob.hex()), &blob.digest())?;
    }
    let manifests = format!("{repository}/_manifests");
    let hex = manifest.hex();
    for link in
        [format!("revisions/sha256/{hex}"), format!("tags/{tag}/index/sha256/{hex}"), format!("tags/{tag}/current")]
    {
        blobs.note(&format!("{manifests}/{link}/link"), &manifest.digest())?;
    }
    Ok(())
}

fn named_descriptor(named: &Named) -> Value {
    let mut descriptor = descriptor(MANIFEST, named.image.manifest());
    // containerd takes the whole name from its own annotation, others the tag from the specification's.
    descriptor["annotations"] =
        json!({ "io.containerd.image.name": named.name, "org.opencontainers.image.ref.name": named.split().1 });
    descriptor["platform"] = json!({ "architecture": architecture(), "os": "linux" });
    descriptor
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({ "mediaType": media_type, "digest": blob.digest(), "size": blob.size })
}

fn header(mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_mtime(0);
    header
}

/// This machine's architecture in Go's words, which the specification uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::image::layer::Tree;

    fn unpacked(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().expect("a tar file") {
            let mut entry = entry.expect("an entry");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            let path = entry.path().expect("a path").display().to_string();
            assert!(files.insert(path.clone(), content).is_none(), "{path} is there twice");
        }
        files
    }

    /// Two images that share a layer.
    fn images(blobs: &Blobs) -> [Named; 2] {
        let layer = |name: &str| {
            let mut tree = Tree::default();
            tree.file(&format!("bin/{name}"), 0o755, "binary");
            blobs.layer(&tree.key().expect("a key"), |out| tree.write(out)).expect("a layer")
        };
        ["a", "b"].map(|name| {
            let config = Config { cmd: vec![name.to_owned()], ..Config::default() };
            let image = Image::new(blobs, &[layer("shared"), layer(name)], &config).expect("an image");
            Named { name: format!("example.com/{name}:1"), image }
        })
    }

    fn archive() -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("blobs");
        let mut bytes = Vec::new();
        write(&blobs, &images(&blobs), &mut bytes).expect("an archive");
        (folder, bytes)
    }

    #[test]
    fn every_descriptor_leads_to_a_blob_of_its_digest_and_size() {
        let (_folder, bytes) = archive();
        let files = unpacked(&bytes);
        let index: Value = serde_json::from_slice(&files["index.json"]).expect("JSON");
        let blob = |descriptor: &Value| {
            let hex = descriptor["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
            let content = &files[&format!("blobs/sha256/{hex}")];
            let there = format!("{:x}", Sha256::digest(content));
            assert_eq!((there, descriptor["size"].as_u64()), (hex, Some(content.len() as u64)));
            content
        };
        for (number, own) in ["bin/a", "bin/b"].into_iter().enumerate() {
            let manifest: Value = serde_json::from_slice(blob(&index["manifests"][number])).expect("JSON");
            let config: Value = serde_json::from_slice(blob(&manifest["config"])).expect("JSON");
            let layers = manifest["layers"].as_array().expect("layers");
            let digests: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
            assert_eq!(config["rootfs"]["diff_ids"].as_array().expect("digests").iter().collect::<Vec<_>>(), digests);
            assert_eq!(unpacked(blob(&layers[0]))["bin/shared"], b"binary");
            assert_eq!(unpacked(blob(&layers[1]))[own], b"binary");
        }
    }

    #[test]
    fn the_name_is_given_to_containerd_whole_and_to_others_as_a_tag() {
        let (_folder, bytes) = archive();
        let index: Value = serde_json::from_slice(&unpacked(&bytes)["index.json"]).expect("JSON");
        let annotations = &index["manifests"][1]["annotations"];
        assert_eq!(annotations["io.containerd.image.name"], "example.com/b:1");
        assert_eq!(annotations["org.opencontainers.image.ref.name"], "1");
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        assert_eq!(archive().1, archive().1);
    }

    #[test]
    fn a_tag_in_the_registry_leads_to_the_manifest() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("blobs");
        let [Named { image, .. }, _] = images(&blobs);
        publish(&blobs, "tests/a", "1", &image).expect("published");
        let manifests = folder.path().join("docker/registry/v2/repositories/tests/a/_manifests");
        let link = std::fs::read_to_string(manifests.join("tags/1/current/link")).expect("a tag");
        assert_eq!(link, image.manifest().digest());
        assert!(manifests.join(format!("revisions/sha256/{}/link", image.manifest().hex())).is_file());
    }

    #[test]
    fn a_port_is_no_tag() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("blobs");
        let [Named { image, .. }, _] = images(&blobs);
        let split = |name: &str| {
            let named = Named { name: name.to_owned(), image: image.clone() };
            let (repository, tag) = named.split();
            (repository.to_owned(), tag.to_owned())
        };
        assert_eq!(split("localhost:5000/a"), ("localhost:5000/a".to_owned(), "latest".to_owned()));
        assert_eq!(split("registry.k8s.io/pause:3.10"), ("registry.k8s.io/pause".to_owned(), "3.10".to_owned()));
    }
}
