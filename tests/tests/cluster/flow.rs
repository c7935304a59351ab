//! What people do with an application, from apply to delete, by one kubectl.

use std::path::Path;

use skep_tests::Kubectl;
use skep_tests::cluster::{http_get, until};

use crate::Scene;
use crate::hello::{MANIFEST, apply, every_replica_answers, is_served_by, node_ports, replicas, rolled_out, text};

pub(crate) fn an_application_lives_its_life(scene: &mut Scene, binary: &Path) {
    let kubectl = Kubectl::new(binary, &scene.cluster.kubeconfig(), scene.cluster.folder());
    kubectl.run(&["delete", "namespace", "hello", "--ignore-not-found"]).ok();
    apply(&kubectl);
    every_replica_answers(&kubectl, "http://hello");
    for address in node_ports(&kubectl) {
        assert!(http_get(address).expect("the node port answers").starts_with("Hello from"));
    }
    logs(&kubectl);
    exec(&kubectl);
    copy(&kubectl, scene.cluster.folder());
    port_forward(&kubectl);
    read(&kubectl);
    change(&kubectl);
    kubectl.run(&["delete", "namespace", "hello"]).ok();
    let gone = kubectl.run(&["get", "namespace", "hello"]).fails();
    assert!(gone.contains("namespaces \"hello\" not found"), "{gone}");
}

fn logs(kubectl: &Kubectl) {
    let log = kubectl.run(&["logs", "-n", "hello", "-l", "app=hello"]).ok();
    assert_eq!(log.lines().filter(|line| *line == "serving on port 8080").count(), 3, "{log}");
    let mut following = kubectl.follow(&["logs", "-f", "-n", "hello", "client"]);
    let write = ["exec", "-i", "-n", "hello", "client", "--", "sh", "-c", "cat > /proc/1/fd/1"];
    kubectl.run_with(&write, "a line for the log\n").ok();
    assert_eq!(following.line_with("a line for"), "a line for the log");
}

fn exec(kubectl: &Kubectl) {
    let command = ["exec", "-i", "-n", "hello", "client", "--", "sh", "-c", "cat; echo complaint >&2; exit 7"];
    let output = kubectl.run_with(&command, "some input");
    assert_eq!((output.stdout.as_str(), output.code), ("some input", Some(7)), "{output:?}");
    assert!(output.stderr.contains("complaint"), "{output:?}");
    let command = ["exec", "-it", "-n", "hello", "client", "--", "sh", "-c", "test -t 0 && echo on a terminal; exit 3"];
    let output = kubectl.on_terminal(&command);
    assert!(output.stdout.contains("on a terminal"), "{output:?}");
    assert_eq!(output.code, Some(3), "{output:?}");
}

fn copy(kubectl: &Kubectl, folder: &Path) {
    let (there, back) = (folder.join("there"), folder.join("back"));
    let content: Vec<u8> = (0..300_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    std::fs::write(&there, &content).expect("a file");
    let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    kubectl.run(&["cp", &path(&there), "hello/client:/tmp/copied"]).ok();
    kubectl.run(&["cp", "hello/client:/tmp/copied", &path(&back)]).ok();
    assert!(std::fs::read(&back).expect("a file came back") == content, "the copy differs");
}

fn port_forward(kubectl: &Kubectl) {
    for (target, port) in [("deployment/hello", ":8080"), ("service/hello", ":80")] {
        let mut following = kubectl.follow(&["port-forward", "-n", "hello", target, port]);
        let line = following.line_with("Forwarding from 127.0.0.1:");
        let address = line.split_whitespace().nth(2).expect("an address").parse().expect("an address");
        for _ in 0..3 {
            assert!(http_get(address).expect("an answer").starts_with("Hello from"));
        }
    }
}

fn read(kubectl: &Kubectl) {
    let pod = replicas(kubectl).remove(0);
    let described = kubectl.run(&["describe", "pod", "-n", "hello", text(&pod, "/metadata/name")]).ok();
    for words in ["Successfully assigned hello/", "Started", "ContainersReady             True"] {
        assert!(described.contains(words), "{words} is missing in\n{described}");
    }
    let rights = kubectl.run(&["auth", "can-i", "--list", "-n", "hello"]).ok();
    assert!(rights.contains("*.*"), "{rights}");
    let top = kubectl.run(&["top", "pods", "-n", "hello"]).fails();
    assert!(top.contains("Metrics API not available"), "{top}");
}

fn change(kubectl: &Kubectl) {
    kubectl.run(&["label", "pod", "-n", "hello", "client", "tier=front"]).ok();
    assert!(kubectl.run(&["edit", "deployment", "-n", "hello", "hello"]).stderr.contains("no changes made"));
    let changed = std::fs::read_to_string(MANIFEST).expect("the example").replace("Hello from", "Greetings from");
    let difference = kubectl.run_with(&["diff", "-f", "-"], &changed);
    assert!(difference.stdout.contains("+  greeting: Greetings from"), "{difference:?}");

    kubectl.run(&["scale", "-n", "hello", "deployment/hello", "--replicas=5"]).ok();
    rolled_out(kubectl);
    is_served_by(kubectl, 5);
    kubectl.run(&["scale", "-n", "hello", "deployment/hello", "--replicas=3"]).ok();
    is_served_by(kubectl, 3);

    kubectl.run(&["set", "image", "-n", "hello", "deployment/hello", "web=localhost/skep/missing:1"]).ok();
    let reasons = "jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}";
    until("a missing image is told", || {
        let told = kubectl.run(&["get", "pods", "-n", "hello", "-l", "app=hello", "-o", reasons]).ok();
        if told.contains("ErrImagePull") || told.contains("ImagePullBackOff") { Ok(()) } else { Err(told) }
    });
    kubectl.run(&["rollout", "undo", "-n", "hello", "deployment/hello"]).ok();
    rolled_out(kubectl);
    is_served_by(kubectl, 3);
    kubectl.run(&["rollout", "restart", "-n", "hello", "deployment/hello"]).ok();
    rolled_out(kubectl);
    assert!(kubectl.run(&["rollout", "history", "-n", "hello", "deployment/hello"]).ok().contains("REVISION"));
}
