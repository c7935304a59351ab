//! What goes wrong, and what becomes of it.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use skep_tests::Kubectl;
use skep_tests::cluster::{http_get, until, wanted};
use skep_tests::machine::pids_in_cgroup;

use crate::Scene;
use crate::hello::{apply, is_served_by, json, node_ports, replicas, text};

/// So many requests are answered while agents are gone.
const REQUESTS: usize = 300;

/// Asks the Service again and again by its address, and prints what became of it: the pod's own traffic, by no one's help.
const ASKING: &str = r#"{
  "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asking", "namespace": "hello"},
  "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
    "name": "asking", "image": "localhost/skep/busybox:latest", "imagePullPolicy": "IfNotPresent",
    "command": ["sh", "-c", "while true; do timeout 10 wget -qO- http://$HELLO_SERVICE_HOST > /dev/null && echo answered || echo FAILED; sleep 0.05; done"]
  }]}
}"#;

pub(crate) fn a_killed_process_is_restarted_and_serves_again(scene: &mut Scene) {
    let kubectl = scene.cluster.kubectl();
    apply(&kubectl);
    let pod = replicas(&kubectl).remove(0);
    let (name, uid) = (text(&pod, "/metadata/name"), text(&pod, "/metadata/uid"));
    let before = text(&pod, "/status/containerStatuses/0/containerID");
    let pids = pids_in_cgroup("httpd", uid);
    let pid = pids.first().expect("the replica's process");
    assert!(Command::new("kill").args(["-9", pid]).status().expect("kill starts").success());
    let count = "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
    until("it is restarted", || wanted(kubectl.run(&["get", "pod", "-n", "hello", name, "-o", count]), "1 true"));
    let after = json(&kubectl, &["get", "pod", "-n", "hello", name]);
    assert_ne!(text(&after, "/status/containerStatuses/0/containerID"), before);
    assert_eq!(after["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 137);
    is_served_by(&kubectl, 3);
}

pub(crate) fn a_deleted_pod_is_replaced(scene: &mut Scene) {
    let kubectl = scene.cluster.kubectl();
    apply(&kubectl);
    let pod = replicas(&kubectl).remove(0);
    let name = text(&pod, "/metadata/name");
    kubectl.run(&["delete", "pod", "-n", "hello", name]).ok();
    is_served_by(&kubectl, 3);
    let left = replicas(&kubectl);
    assert!(left.len() == 3 && left.iter().all(|pod| text(pod, "/metadata/name") != name), "{name} is still there");
}

pub(crate) fn killed_agents_fail_no_request_and_restart_no_container(scene: &mut Scene) {
    let kubectl = scene.cluster.kubectl();
    apply(&kubectl);
    is_served_by(&kubectl, 3);
    kubectl.run_with(&["apply", "-f", "-"], ASKING).ok();
    kubectl.run(&["wait", "-n", "hello", "--for=condition=Ready", "pod/asking", "--timeout=60s"]).ok();
    let (before, addresses) = (containers(&kubectl), node_ports(&kubectl));
    let (answered, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failed = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut failed = Vec::new();
            for address in addresses.iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                match http_get(*address) {
                    Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => failed.push(error),
                }
            }
            failed
        });
        let answer = |count: usize| {
            let wanted = answered.load(Ordering::Relaxed) + count;
            let so_far = || answered.load(Ordering::Relaxed);
            until("requests are answered", || {
                if so_far() >= wanted || asking.is_finished() { Ok(()) } else { Err(so_far().to_string()) }
            });
        };
        answer(REQUESTS);
        for process in ["node-1-kubelet", "node-1-ebpf-proxy", "node-2-kubelet", "node-2-ebpf-proxy"] {
            scene.cluster.kill(process).expect("killed");
        }
        answer(REQUESTS);
        scene.cluster.deploy().expect("they start again");
        answer(REQUESTS);
        ended.store(true, Ordering::Relaxed);
        asking.join().expect("the thread ends")
    });
    assert_eq!(failed, Vec::<String>::new(), "after {} answers", answered.load(Ordering::Relaxed));
    let log = kubectl.run(&["logs", "-n", "hello", "asking"]).ok();
    let count = |word: &str| log.lines().filter(|line| *line == word).count();
    assert!(
        count("answered") > 10 && count("FAILED") == 0,
        "{} answered, {} failed",
        count("answered"),
        count("FAILED")
    );
    assert_eq!(containers(&kubectl), before);
    kubectl.run(&["delete", "pod", "-n", "hello", "asking"]).ok();
}

pub(crate) fn deploying_again_keeps_containers_and_data(scene: &mut Scene) {
    let kubectl = scene.cluster.kubectl();
    apply(&kubectl);
    let before = containers(&kubectl);
    let kubelet = scene.cluster.pid("node-1-kubelet").expect("it runs");
    let containerd = scene.cluster.pid("containerd").expect("it runs");
    scene.cluster.deploy().expect("deployed again");
    assert_ne!(scene.cluster.pid("node-1-kubelet").expect("it runs"), kubelet);
    assert_eq!(scene.cluster.pid("containerd").expect("it runs"), containerd);
    assert_eq!(containers(&kubectl), before);
    is_served_by(&kubectl, 3);
}

pub(crate) fn a_node_without_its_kubelet_is_not_ready_and_serves_no_more(scene: &mut Scene) {
    let kubectl = scene.cluster.kubectl();
    apply(&kubectl);
    is_served_by(&kubectl, 3);
    let on_other = replicas(&kubectl).iter().filter(|pod| text(pod, "/spec/nodeName") == "node-1").count();
    scene.cluster.kill("node-2-kubelet").expect("killed");
    let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    until("the node is not ready", || wanted(kubectl.run(&["get", "node", "node-2", "-o", ready]), "Unknown"));
    is_served_by(&kubectl, on_other);
    scene.cluster.deploy().expect("it starts again");
    until("the node is ready", || wanted(kubectl.run(&["get", "node", "node-2", "-o", ready]), "True"));
    is_served_by(&kubectl, 3);
}

/// Each container by pod and name, with how often it was started: equal when nothing was.
fn containers(kubectl: &Kubectl) -> BTreeMap<String, String> {
    let list = json(kubectl, &["get", "pods", "-n", "hello"]);
    let statuses = list["items"].as_array().into_iter().flatten().flat_map(|pod| {
        let name = text(pod, "/metadata/name").to_owned();
        pod["status"]["containerStatuses"].as_array().into_iter().flatten().map(move |status| (name.clone(), status))
    });
    statuses
        .map(|(pod, status)| {
            (format!("{pod}/{}", status["name"]), format!("{} {}", status["containerID"], status["restartCount"]))
        })
        .collect()
}
