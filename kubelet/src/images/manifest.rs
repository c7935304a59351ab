//! What an image is made of: indexes, manifests and configurations of the OCI image specification and of Docker's.
//!
//! Invariant: pure; what is read was written by others and is only looked into, never trusted to be complete.

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What an image says of how to run it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// What a container's `command` replaces.
    pub entrypoint: Vec<String>,
    /// What a container's `args` replaces.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Empty: `/`.
    pub working_dir: String,
    /// `user[:group]`, names or numbers; empty: root.
    pub user: String,
    /// As `SIGQUIT` or a number; none: `SIGTERM`.
    pub stop_signal: Option<String>,
    /// Paths that it wants volumes at.
    pub volumes: Vec<String>,
}

/// A part of an image in the content store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    #[serde(default)]
    pub(super) size: i64,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

/// What a descriptor's content turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Manifests for several platforms: those for this machine, best first.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
}

/// A configuration with what the layers unpack to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) config: ImageConfig,
    pub(super) diff_ids: Vec<String>,
}

/// Reads an index or a manifest; which one it is shows by its fields, since old Docker ones have no media type inside.
pub(super) fn read(text: &[u8]) -> Result<Content, String> {
    #[derive(Deserialize)]
    struct Either {
        manifests: Option<Vec<Descriptor>>,
        config: Option<Descriptor>,
        #[serde(default)]
        layers: Vec<Descriptor>,
    }
    let either: Either = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match (either.manifests, either.config) {
        (Some(manifests), None) => Ok(Content::Index(for_this_machine(manifests))),
        (None, Some(config)) => Ok(Content::Manifest { config, layers: either.layers }),
        (Some(_), Some(_)) => Err("it is an index and a manifest at once".to_owned()),
        (None, None) => Err("it is neither an index nor a manifest".to_owned()),
    }
}

/// Reads a configuration.
pub(super) fn read_configuration(text: &[u8]) -> Result<Configuration, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let config = &value["config"];
    let strings = |value: &Value| {
        let all = value.as_array().into_iter().flatten();
        all.filter_map(|one| one.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let text = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
    Ok(Configuration {
        diff_ids: strings(&value["rootfs"]["diff_ids"]),
        config: ImageConfig {
            entrypoint: strings(&config["Entrypoint"]),
            cmd: strings(&config["Cmd"]),
            env: strings(&config["Env"]),
            working_dir: text("WorkingDir"),
            user: text("User"),
            stop_signal: config["StopSignal"].as_str().filter(|signal| !signal.is_empty()).map(str::to_owned),
            volumes: config["Volumes"].as_object().into_iter().flatten().map(|(path, _)| path.clone()).collect(),
        },
    })
}

/// The chain id of each layer: the snapshot that it and all below it unpack to (OCI image specification, "Layer ChainID").
pub(super) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff in diff_ids {
        let next = match chain.last() {
            None => diff.clone(),
            Some(below) => format!("sha256:{:x}", Sha256::digest(format!("{below} {diff}"))),
        };
        chain.push(next);
    }
    chain
}

fn for_this_machine(mut manifests: Vec<Descriptor>) -> Vec<Descriptor> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    // One that names no platform may be for any: archives of one image have it so.
    manifests.retain(|manifest| {
        manifest.platform.as_ref().is_none_or(|is| is.os == "linux" && is.architecture == architecture)
    });
    manifests.sort_by_key(|manifest| manifest.platform.is_none());
    manifests
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_index_yields_the_manifests_for_this_machine() {
        let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let index = json!({"manifests": [
            {"digest": "sha256:any"},
            {"digest": "sha256:other", "platform": {"os": "linux", "architecture": "s390x"}},
            {"digest": "sha256:ours", "platform": {"os": "linux", "architecture": machine}},
        ]});
        let Ok(Content::Index(found)) = read(index.to_string().as_bytes()) else { panic!("not an index") };
        assert_eq!(found.iter().map(|one| one.digest.as_str()).collect::<Vec<_>>(), ["sha256:ours", "sha256:any"]);
    }

    #[test]
    fn a_configuration_may_leave_out_anything() {
        let read = read_configuration(br#"{"config": {"Cmd": ["sh"], "Env": null}}"#).unwrap();
        assert_eq!(read.config, ImageConfig { cmd: vec!["sh".to_owned()], ..ImageConfig::default() });
        assert_eq!(read_configuration(b"{}").unwrap().diff_ids, Vec::<String>::new());
    }

    #[test]
    fn a_chain_id_covers_the_layers_below() {
        let [a, b] = ["a", "b"].map(|byte| format!("sha256:{}", byte.repeat(64)));
        let chain = chain_ids(&[a.clone(), b]);
        assert_eq!(chain[0], a);
        assert_eq!(chain[1], "sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c");
    }
}
