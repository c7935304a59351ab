//! Calls of CNI plugins: one process a call, parameters in its environment, the configuration on its input.
//!
//! Invariant: nothing is remembered here; the caller keeps the result of an addition for the deletion.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The attachment that a call is about (CNI specification, "Protocol parameters").
#[derive(Debug, Clone, Copy)]
pub struct Attachment<'a> {
    /// Unique on the node.
    pub container_id: &'a str,
    /// The pinned network namespace.
    pub netns: &'a Path,
    /// The interface's name in the namespace.
    pub interface: &'a str,
    /// Pairs as `K8S_POD_NAME=web;K8S_POD_NAMESPACE=default`.
    pub args: &'a str,
}

/// Why a plugin's call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started or spoken to.
    #[error("CNI plugin: {0}")]
    Io(#[from] std::io::Error),
    /// It failed; with its own message, or its error output where it had none.
    #[error("CNI plugin failed: {0}")]
    Failed(String),
    /// It succeeded with something else than a result.
    #[error("CNI plugin's result: {0}")]
    Result(#[from] serde_json::Error),
}

/// Runs `command` (`ADD`, `DEL`) of a plugin; an empty answer is null. Dropping the future kills the plugin.
pub async fn call(
    plugin: &Path,
    command: &str,
    of: Attachment<'_>,
    path: &Path,
    config: &Value,
) -> Result<Value, Error> {
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", of.container_id)
        .env("CNI_NETNS", of.netns)
        .env("CNI_IFNAME", of.interface)
        .env("CNI_ARGS", of.args)
        .env("CNI_PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let input = child.stdin.take();
    let text = config.to_string();
    let write = async move {
        if let Some(mut input) = input {
            // A plugin that ends without reading has more to say by its exit than the broken pipe has.
            let _ = input.write_all(text.as_bytes()).await;
        }
    };
    // Together: a plugin may answer before it has read everything, and a full pipe would hold both.
    let ((), output) = tokio::join!(write, child.wait_with_output());
    let output = output?;
    if !output.status.success() {
        let answer: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        let message = answer.as_ref().and_then(|answer| answer["msg"].as_str()).map(String::from);
        return Err(Error::Failed(
            message.unwrap_or_else(|| String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        ));
    }
    if output.stdout.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The addresses of a result, without their prefix lengths, in the plugin's order.
pub fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| Some(ip["address"].as_str()?.split('/').next()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str) -> Result<Value, Error> {
        let of = Attachment { container_id: "c", netns: Path::new("/n"), interface: "eth0", args: "" };
        // `sh` reads its program from the input, where a plugin would read its configuration.
        let config = Value::String(script.to_owned());
        call(Path::new("/bin/sh"), "ADD", of, Path::new("/opt/cni/bin"), &config).await
    }

    #[tokio::test]
    async fn a_plugin_that_fails_without_an_answer_is_quoted() {
        let error = run("no-such-plugin-command").await.unwrap_err();
        assert!(matches!(error, Error::Failed(message) if message.contains("no-such-plugin-command")));
    }

    #[tokio::test]
    async fn the_configuration_is_the_input_and_the_output_the_result() {
        let of = Attachment { container_id: "c", netns: Path::new("/n"), interface: "eth0", args: "" };
        let config = serde_json::json!({"cniVersion": "1.1.0", "type": "cat"});
        let result = call(Path::new("/bin/cat"), "ADD", of, Path::new("/opt/cni/bin"), &config).await;
        assert_eq!(result.unwrap(), config);
    }

    #[test]
    fn addresses_lose_their_prefix_length() {
        let result = serde_json::json!({"ips": [{"address": "10.0.0.2/24"}, {"address": "fd00::2/64"}]});
        assert_eq!(addresses(&result), ["10.0.0.2", "fd00::2"]);
    }
}
