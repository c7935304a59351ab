//! What is kept of a case that failed: events and pods of its namespaces, and what the cluster's processes logged meanwhile.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::process::Command;

use super::runner::Suite;

/// Of one process's log at most the last so many bytes are kept for a case.
const LONGEST_LOG: u64 = 2 << 20;

/// How long logs are; a file that is not there is empty.
pub(crate) fn sizes(logs: &[PathBuf]) -> Vec<u64> {
    logs.iter().map(|log| fs::metadata(log).map_or(0, |data| data.len())).collect()
}

/// Keeps what was added to logs since they had some sizes. Cases that ran at the same time are in it as well.
///
/// # Errors
/// When it can't be written.
pub(crate) fn keep_logs(logs: &[PathBuf], before: &[u64], folder: &Path) -> Result<()> {
    for (log, before) in logs.iter().zip(before) {
        let Some(name) = log.file_name() else { continue };
        let Ok(added) = added(log, *before) else { continue };
        let path = folder.join(name);
        fs::write(&path, added).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

fn added(log: &Path, before: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(before.max(end.saturating_sub(LONGEST_LOG))))?;
    let mut bytes = Vec::new();
    file.take(LONGEST_LOG).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Keeps the events and pods of the namespaces that a process of the suite made. What can't be had is said in the file.
pub(crate) async fn keep_namespaces(suite: &Suite, run_id: &str, folder: &Path) {
    for namespace in namespaces(suite, run_id).await {
        for kind in ["events", "pods"] {
            let words = ["get", kind, "--namespace", &namespace, "--output", "yaml"];
            let text = kubectl(suite, &words).await.unwrap_or_else(|error| format!("# {error:#}\n"));
            // The report names the folder whatever is in it: a file less is no reason to end the run.
            let _ = fs::write(folder.join(format!("{namespace}.{kind}.yaml")), text);
        }
    }
}

/// Deletes the namespaces that a process of the suite made, and does not wait until they are gone.
pub(crate) async fn delete_namespaces(suite: &Suite, run_id: &str) {
    for namespace in namespaces(suite, run_id).await {
        // A cluster that does not answer any more fails the next case, with a reason.
        let _ = kubectl(suite, &["delete", "namespace", &namespace, "--wait=false"]).await;
    }
}

async fn namespaces(suite: &Suite, run_id: &str) -> Vec<String> {
    let selector = format!("e2e-run={run_id}");
    let list = kubectl(suite, &["get", "namespaces", "--selector", &selector, "--output", "name"]).await;
    let list = list.unwrap_or_default();
    list.lines().filter_map(|line| line.strip_prefix("namespace/")).map(str::to_owned).collect()
}

async fn kubectl(suite: &Suite, words: &[&str]) -> Result<String> {
    let output = Command::new(&suite.kubectl)
        .arg("--kubeconfig")
        .arg(&suite.kubeconfig)
        .arg("--request-timeout=20s")
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("can't start kubectl")?;
    if !output.status.success() {
        anyhow::bail!("kubectl {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_that_is_kept_which_was_added() {
        let folder = tempfile::tempdir().expect("a folder");
        let (logs, kept) =
            (vec![folder.path().join("a.log"), folder.path().join("none.log")], folder.path().join("kept"));
        fs::create_dir(&kept).expect("made");
        fs::write(&logs[0], "before\n").expect("written");
        let before = sizes(&logs);
        fs::write(&logs[0], "before\nafter\n").expect("written");
        keep_logs(&logs, &before, &kept).expect("kept");
        assert_eq!(fs::read_to_string(kept.join("a.log")).expect("read"), "after\n");
        assert!(!kept.join("none.log").exists());
    }
}
