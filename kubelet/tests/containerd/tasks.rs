//! Containers, their first processes, and their logs.

use futures::StreamExt;
use skep_kubelet::runtime::containerd::{Event, Exit, TaskStatus};

use crate::private::{NODE, Private, eventually};

#[tokio::test]
async fn two_containers_of_a_pod_run_log_and_report_their_exit_codes() {
    let private = Private::start().await;
    let client = &private.client;
    let mut stream = Box::pin(client.events());
    let first_event = tokio::spawn(async move { stream.next().await });
    private.run("a", "echo out; echo err >&2; exit 3").await;
    private.run("b", "echo waits; exec /bin/busybox sleep 1000").await;
    let first_event = first_event.await.expect("joined").expect("an event").expect("from containerd");
    assert_eq!(first_event, Event::Exited { container: "a".into(), exit_code: 3 });
    // A second client is what a restarted kubelet is: it finds the container by its label and can stop it.
    let again = private.another().await;
    let listed = again.containers(&[("pod", "pod-1"), NODE]).await.expect("list");
    assert!(listed.iter().any(|record| record.id == "b" && record.image == "busybox"), "{listed:?}");
    eventually("the container writes", async || private.log("b").contains("waits")).await;
    again.kill("b", 9).await.expect("kill");
    assert_eq!(again.wait("b").await.expect("wait"), 137);
    for id in ["a", "b"] {
        again.remove(id).await.expect("remove");
    }
    let log = private.log("a");
    assert!(log.contains(" stdout F out\n") && log.contains(" stderr F err\n"), "{log}");
    let log = private.log("b");
    assert!(log.ends_with(" stdout F waits\n"), "{log}");
}

#[tokio::test]
async fn a_task_is_created_running_and_stopped_with_its_exit_code() {
    let private = Private::start().await;
    let client = &private.client;
    private.create("a", "exec /bin/busybox sleep 1000", false).await;
    assert_eq!(client.task("a").await.expect("task"), None);
    private.start_with("a", &private.target("a")).await;
    let running = client.task("a").await.expect("task").expect("is there");
    assert_eq!((running.id.as_str(), running.status), ("a", TaskStatus::Running));
    assert_eq!(client.tasks().await.expect("tasks"), [running]);
    client.kill_all("a", 9).await.expect("kill");
    client.wait("a").await.expect("wait");
    let stopped = client.task("a").await.expect("task").expect("is there").status;
    assert!(matches!(stopped, TaskStatus::Stopped(Exit { exit_code: 137, .. })), "{stopped:?}");
    let exit = client.reap("a").await.expect("reap").expect("an exit");
    assert_eq!(client.task("a").await.expect("task"), None);
    assert_eq!(client.container("a").await.expect("container").expect("is there").ended, Some(exit));
    assert_eq!(client.reap("a").await.expect("again"), Some(exit));
    client.remove("a").await.expect("remove");
}

#[tokio::test]
async fn removing_what_is_partly_or_wholly_gone_is_no_error() {
    let private = Private::start().await;
    let client = &private.client;
    client.remove("never-there").await.expect("nothing");
    private.create("no-task", "true", false).await;
    client.remove("no-task").await.expect("container and snapshot");
    client.prepare_snapshot("snapshot-only", "").await.expect("snapshot");
    client.remove("snapshot-only").await.expect("snapshot");
    client.prepare_snapshot("snapshot-only", "").await.expect("its key is free again");
    client.remove("snapshot-only").await.expect("snapshot");
}

#[tokio::test]
async fn only_containers_with_all_labels_are_listed_and_an_update_keeps_the_labels_it_does_not_name() {
    let private = Private::start().await;
    let client = &private.client;
    private.create("a", "true", false).await;
    assert_eq!(client.containers(&[NODE, ("pod", "another")]).await.expect("list"), []);
    let labels = [("pod".to_owned(), "another".to_owned())].into();
    client.update_labels("a", labels).await.expect("update");
    let listed = client.containers(&[NODE, ("pod", "another")]).await.expect("list");
    assert_eq!(listed.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["a"]);
    client.remove("a").await.expect("remove");
}

#[tokio::test]
async fn garbage_collection_leaves_a_prepared_snapshot_alone() {
    let private = Private::start().await;
    let client = &private.client;
    client.prepare_snapshot("a", "").await.expect("snapshot");
    private.collect_garbage();
    client.mounts("a").await.expect("still there");
    client.remove("a").await.expect("remove");
}

#[tokio::test]
async fn snapshots_without_a_container_are_swept() {
    let private = Private::start().await;
    let client = &private.client;
    private.create("a", "true", false).await;
    client.prepare_snapshot("orphan", "").await.expect("snapshot");
    assert_eq!(client.sweep_snapshots(&[]).await.expect("sweep"), 1);
    client.mounts("a").await.expect("the container's is still there");
    client.remove("a").await.expect("remove");
}

#[tokio::test]
async fn a_command_that_is_not_there_fails_the_start_and_leaves_no_task() {
    let private = Private::start().await;
    let client = &private.client;
    private.create("a", "true", false).await;
    let root = client.mounts("a").await.expect("mounts")[0].source.clone();
    std::fs::remove_file(std::path::Path::new(&root).join("bin/busybox")).expect("removed");
    let io = Default::default();
    let error = client.start("a", &io).await.expect_err("no such command").to_string();
    assert!(error.contains("no such file or directory"), "{error}");
    assert_eq!(client.task("a").await.expect("task"), None);
    client.remove("a").await.expect("remove");
}

#[tokio::test]
async fn a_wait_and_the_log_outlive_a_restart_of_containerd() {
    let mut private = Private::start().await;
    private.run("a", "while [ ! -e /go ]; do /bin/busybox sleep 0.05; done; echo after; exit 5").await;
    let client = private.client.clone();
    let waiting = tokio::spawn(async move { client.wait("a").await });
    let mut events = Box::pin(private.client.events());
    let subscribed = tokio::spawn(async move { events.next().await });
    private.restart().await;
    assert!(subscribed.await.expect("joined").expect("an item").is_err());
    let root = private.client.mounts("a").await.expect("the connection heals")[0].source.clone();
    std::fs::write(std::path::Path::new(&root).join("go"), "").expect("go");
    assert_eq!(waiting.await.expect("joined").expect("wait"), 5);
    eventually("the log is whole", async || private.log("a").ends_with(" stdout F after\n")).await;
    private.client.remove("a").await.expect("remove");
}
