//! An image as a tar file in the OCI image layout (image-spec, `image-layout.md`).

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::layer::Tree;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Uncompressed: these archives don't travel, and the layer's digest is its diff id then.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What an image is made of: one layer, and how its containers start.
pub(crate) struct Image {
    /// The files.
    pub(crate) tree: Tree,
    /// The environment, as `NAME=value`.
    pub(crate) env: Vec<String>,
    /// The command.
    pub(crate) cmd: Vec<String>,
}

/// The archive of one image under a name such as `localhost/skep/busybox:latest`.
pub(crate) fn write(name: &str, image: &Image) -> Result<Vec<u8>> {
    let layer = image.tree.to_tar()?;
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": { "Env": image.env, "Cmd": image.cmd, "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        "history": [{ "created_by": "cargo xtask image" }],
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config), "layers": [descriptor(LAYER, &layer)],
    })
    .to_string()
    .into_bytes();
    let mut named = descriptor(MANIFEST, &manifest);
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    // containerd takes the whole name from its own annotation, others the tag from the specification's.
    named["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
    named["platform"] = json!({ "architecture": architecture(), "os": "linux" });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [named] });

    let mut files = Tree::default();
    files.file("oci-layout", 0o644, json!({ "imageLayoutVersion": "1.0.0" }).to_string().into_bytes());
    files.file("index.json", 0o644, index.to_string().into_bytes());
    files.directory("blobs", 0o755);
    files.directory("blobs/sha256", 0o755);
    for blob in [config, manifest, layer] {
        let hex = hex(&blob);
        files.file(&format!("blobs/sha256/{hex}"), 0o644, blob);
    }
    files.to_tar()
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(content))
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
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

    use super::*;

    fn unpacked(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().expect("a tar file") {
            let mut entry = entry.expect("an entry");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            files.insert(entry.path().expect("a path").display().to_string(), content);
        }
        files
    }

    fn image() -> Image {
        let mut tree = Tree::default();
        tree.directory("bin", 0o755);
        tree.file("bin/a", 0o755, b"binary".to_vec());
        Image { tree, env: vec!["PATH=/bin".to_owned()], cmd: vec!["a".to_owned()] }
    }

    #[test]
    fn every_descriptor_leads_to_a_blob_of_its_digest_and_size() {
        let files = unpacked(&write("example.com/a:1", &image()).expect("an archive"));
        let index: Value = serde_json::from_slice(&files["index.json"]).expect("JSON");
        let blob = |descriptor: &Value| {
            let hex = descriptor["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
            let content = &files[&format!("blobs/sha256/{hex}")];
            assert_eq!((super::hex(content), descriptor["size"].as_u64()), (hex, Some(content.len() as u64)));
            content
        };
        let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0])).expect("JSON");
        let config: Value = serde_json::from_slice(blob(&manifest["config"])).expect("JSON");
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(layer));
        assert_eq!(unpacked(layer)["bin/a"], b"binary");
    }

    #[test]
    fn the_name_is_given_to_containerd_whole_and_to_others_as_a_tag() {
        let files = unpacked(&write("example.com/a:1", &image()).expect("an archive"));
        let index: Value = serde_json::from_slice(&files["index.json"]).expect("JSON");
        let annotations = &index["manifests"][0]["annotations"];
        assert_eq!(annotations["io.containerd.image.name"], "example.com/a:1");
        assert_eq!(annotations["org.opencontainers.image.ref.name"], "1");
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        assert_eq!(write("a:1", &image()).expect("an archive"), write("a:1", &image()).expect("an archive"));
    }
}
