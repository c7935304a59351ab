//! Calls of CNI plugins: one process a call, parameters in its environment, the configuration on its input.
//!
//! Invariant: nothing is remembered here; the caller keeps the result of an addition for the deletion.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// A plugin that has not ended by then is killed (upstream: the runtime's request timeout of the kubelet, 2 minutes).
const TIMEOUT: Duration = Duration::from_secs(120);
/// More than this of a plugin's output is an error, not a result.
const MAX_OUTPUT: u64 = 1 << 20;

/// The attachment that a call is about (CNI specification, "Protocol parameters").
#[derive(Debug, Clone, Copy)]
pub struct Attachment<'a> {
    /// Unique on the node.
    pub container_id: &'a str,
    /// The pinned network namespace; none when a deletion finds it gone.
    pub netns: Option<&'a Path>,
    /// The interface's name in the namespace.
    pub interface: &'a str,
    /// Pairs as `K8S_POD_NAME=web;K8S_POD_NAMESPACE=default`.
    pub args: &'a str,
}

/// Why a plugin's call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It could not be started or spoken to.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It did not end in time and was killed.
    #[error("did not end within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// It failed; with its own message, or its error output where it had none.
    #[error("{message}")]
    Failed {
        /// The code of the specification ("Error"), 0 for a plugin that gave none.
        code: u64,
        /// Its `msg`, with its `details` behind it.
        message: String,
    },
    /// It succeeded with something else than a result.
    #[error("its result is not JSON: {0}")]
    Result(#[from] serde_json::Error),
}

/// Runs `command` (`ADD`, `DEL`, `STATUS`, `GC`) of a plugin; an empty answer is null. Dropping the future kills the plugin.
///
/// `of` is none for the commands that are about no attachment.
pub async fn call(
    plugin: &Path,
    command: &str,
    of: Option<Attachment<'_>>,
    path: &OsStr,
    config: &Value,
) -> Result<Value, CallError> {
    let mut process = Command::new(plugin);
    process.env("CNI_COMMAND", command).env("CNI_PATH", path);
    if let Some(of) = of {
        process
            .env("CNI_CONTAINERID", of.container_id)
            .env("CNI_NETNS", of.netns.unwrap_or(Path::new("")))
            .env("CNI_IFNAME", of.interface)
            .env("CNI_ARGS", of.args);
    }
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = process.spawn()?;
    let input = child.stdin.take();
    let text = config.to_string();
    let write = async move {
        if let Some(mut input) = input {
            // A plugin that ends without reading has more to say by its exit than the broken pipe has.
            let _ = input.write_all(text.as_bytes()).await;
        }
    };
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    // Together: a plugin may answer before it has read everything, and a full pipe would hold both.
    let all = async { tokio::join!(write, stdout, stderr, child.wait()) };
    let ((), stdout, stderr, status) = tokio::time::timeout(TIMEOUT, all).await.map_err(|_| CallError::Timeout)?;
    let (stdout, stderr) = (stdout?, stderr?);
    if !status?.success() {
        return Err(failure(&stdout, &stderr));
    }
    if stdout.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_slice(&stdout)?)
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if let Some(from) = from {
        from.take(MAX_OUTPUT).read_to_end(&mut text).await?;
    }
    Ok(text)
}

fn failure(stdout: &[u8], stderr: &[u8]) -> CallError {
    let answer: Value = serde_json::from_slice(stdout).unwrap_or_default();
    let Some(message) = answer["msg"].as_str() else {
        let text = if stderr.trim_ascii().is_empty() { stdout } else { stderr };
        return CallError::Failed { code: 0, message: String::from_utf8_lossy(text.trim_ascii()).into_owned() };
    };
    let details = answer["details"].as_str().filter(|details| !details.is_empty());
    let message = details.map_or_else(|| message.to_owned(), |details| format!("{message}; {details}"));
    CallError::Failed { code: answer["code"].as_u64().unwrap_or(0), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str) -> Result<Value, CallError> {
        let of = Attachment { container_id: "c", netns: Some(Path::new("/n")), interface: "eth0", args: "" };
        // `sh` reads its program from the input, where a plugin would read its configuration.
        let config = Value::String(script.to_owned());
        call(Path::new("/bin/sh"), "ADD", Some(of), OsStr::new("/opt/cni/bin"), &config).await
    }

    #[tokio::test]
    async fn a_plugin_that_fails_without_an_answer_is_quoted() {
        let error = run("no-such-plugin-command").await.unwrap_err();
        assert!(error.to_string().contains("no-such-plugin-command"), "{error}");
    }

    #[tokio::test]
    async fn the_configuration_is_the_input_and_the_output_the_result() {
        let config = serde_json::json!({"cniVersion": "1.1.0", "type": "cat"});
        let result = call(Path::new("/bin/cat"), "STATUS", None, OsStr::new(""), &config).await;
        assert_eq!(result.unwrap(), config);
    }

    #[test]
    fn a_failure_is_told_by_message_and_details() {
        let error = failure(br#"{"code": 11, "msg": "busy", "details": "lease held"}"#, b"noise");
        assert!(
            matches!(&error, CallError::Failed { code: 11, message } if message == "busy; lease held"),
            "{error:?}"
        );
    }
}
