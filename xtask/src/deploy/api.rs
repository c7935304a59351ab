//! What a deployment asks the API server, by curl and the administrator's certificate: kubectl is the user's, and may not be there.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::layout::Layout;
use super::subnet::Subnet;
use crate::shell;

/// The API server as the administrator sees it.
pub(crate) struct Api {
    server: String,
    credentials: PathBuf,
}

/// A node as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeState {
    pub(crate) name: String,
    pub(crate) ready: bool,
    /// Why it is not ready, in the kubelet's words.
    pub(crate) message: String,
    pub(crate) pod_cidr: Option<Subnet>,
}

impl Api {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { server: format!("https://{}", layout.api_for_nodes()), credentials: layout.admin_dir() }
    }

    /// Every Node object.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(crate) fn nodes(&self) -> Result<Vec<NodeState>> {
        let list = self.get("/api/v1/nodes")?;
        Ok(list["items"].as_array().into_iter().flatten().map(node_state).collect())
    }

    /// The version that the server tells.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(crate) fn version(&self) -> Result<String> {
        let version = self.get("/version")?;
        Ok(version["gitVersion"].as_str().context("the API server tells no version")?.to_owned())
    }

    /// Whether the server answers in a media type when it is asked for it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(crate) fn answers_in(&self, media_type: &str) -> Result<bool> {
        let header = format!("Accept: {media_type}, application/json;q=0.1");
        let words = ["--header", &header, "--output", "/dev/null", "--write-out", "%{content_type}"];
        Ok(self.curl("/api/v1/nodes", &words)?.starts_with(media_type))
    }

    fn get(&self, path: &str) -> Result<Value> {
        serde_json::from_str(&self.curl(path, &[])?).with_context(|| format!("{path} is no JSON"))
    }

    fn curl(&self, path: &str, words: &[&str]) -> Result<String> {
        let file = |name: &str| self.credentials.join(name);
        shell::output(
            Command::new("curl")
                .args(["--silent", "--show-error", "--fail", "--max-time", "10", "--noproxy", "*", "--cacert"])
                .arg(file("ca.crt"))
                .arg("--cert")
                .arg(file("client.crt"))
                .arg("--key")
                .arg(file("client.key"))
                .args(words)
                .arg(format!("{}{path}", self.server)),
        )
    }
}

fn node_state(node: &Value) -> NodeState {
    let ready = node["status"]["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Ready");
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    NodeState {
        name: text(node["metadata"].get("name")),
        ready: ready.is_some_and(|condition| condition["status"] == "True"),
        message: text(ready.and_then(|condition| condition.get("message"))),
        pod_cidr: node["spec"]["podCIDR"].as_str().and_then(|cidr| cidr.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_without_the_condition_is_not_ready() {
        let node = json!({ "metadata": { "name": "a" }, "spec": { "podCIDR": "10.244.1.0/24" } });
        let state = node_state(&node);
        assert_eq!((state.ready, state.pod_cidr), (false, Some(Subnet::new([10, 244, 1, 0], 24))));
        let node = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        assert!(node_state(&node).ready);
    }
}
