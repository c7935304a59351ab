//! What people do with kubectl, by every kubectl on the machine, against a real control plane.

use serde_json::Value;
use skep_tests::{ControlPlane, Kubectl, kubectls};

const MANIFEST: &str = include_str!("../../examples/configuration.yaml");

/// Runs a test once for each kubectl, each with its own cluster-wide names.
async fn with_each_kubectl(test: impl Fn(&Kubectl)) {
    let cluster = ControlPlane::start().await.expect("a control plane");
    for binary in kubectls() {
        let kubectl = Kubectl::new(&binary, &cluster.kubeconfig(), cluster.folder());
        eprintln!("with {}", binary.display());
        test(&kubectl);
    }
}

fn json(kubectl: &Kubectl, arguments: &[&str]) -> Value {
    serde_json::from_str(&kubectl.run(arguments).ok()).expect("kubectl prints JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_applied_read_changed_and_deleted() {
    with_each_kubectl(|kubectl| {
        let applied = kubectl.run_with(&["apply", "--validate=strict", "-f", "-"], MANIFEST).ok();
        assert!(applied.contains("configmap/web created"), "{applied}");
        let again = kubectl.run_with(&["apply", "-f", "-"], MANIFEST).ok();
        assert!(again.lines().all(|line| line.ends_with("unchanged")), "{again}");

        let table = kubectl.run(&["get", "configmaps", "-n", "hello", "web"]).ok();
        assert!(table.starts_with("NAME   DATA   AGE"), "{table}");
        let service = json(kubectl, &["get", "service", "-n", "hello", "web", "-o", "json"]);
        assert!(service["spec"]["clusterIP"].as_str().is_some_and(|ip| ip.starts_with("10.96.")), "{service}");
        assert!(service["spec"]["ports"][0]["nodePort"].as_u64().is_some_and(|port| (30000..=32767).contains(&port)));

        let changed = MANIFEST.replace("Hello, hive", "Hello again");
        let difference = kubectl.run_with(&["diff", "-f", "-"], &changed);
        assert!(difference.stdout.contains("+  index.html: Hello again"), "{difference:?}");
        kubectl.run_with(&["apply", "-f", "-"], &changed).ok();
        kubectl.run(&["label", "configmap", "-n", "hello", "web", "tier=front"]).ok();
        kubectl.run(&["annotate", "configmap", "-n", "hello", "web", "note=x"]).ok();
        kubectl.run(&["patch", "configmap", "-n", "hello", "web", "-p", r#"{"data":{"more":"1"}}"#]).ok();
        kubectl
            .run(&["patch", "configmap", "-n", "hello", "web", "--type=merge", "-p", r#"{"data":{"more":null}}"#])
            .ok();
        let replace = r#"[{"op":"add","path":"/data/x","value":"y"}]"#;
        kubectl.run(&["patch", "configmap", "-n", "hello", "web", "--type=json", "-p", replace]).ok();
        assert!(kubectl.run(&["edit", "configmap", "-n", "hello", "web"]).stderr.contains("no changes made"));
        let map = json(kubectl, &["get", "configmap", "-n", "hello", "-l", "tier=front", "-o", "json"]);
        let map = &map["items"][0];
        assert_eq!(map["data"], serde_json::json!({"index.html": "Hello again", "x": "y"}));
        assert_eq!(map["metadata"]["annotations"]["note"], "x");
        kubectl.run(&["describe", "configmap", "-n", "hello", "web"]).ok();
        kubectl.run_with(&["replace", "-f", "-"], &strip_service(MANIFEST)).ok();
        // kubectl waits until the namespace is gone: its controller empties it first.
        kubectl.run_with(&["delete", "--ignore-not-found", "-f", "-"], MANIFEST).ok();
        let gone = kubectl.run(&["get", "namespace", "hello"]).fails();
        assert!(gone.contains("Error from server (NotFound): namespaces \"hello\" not found"), "{gone}");
    })
    .await;
}

/// A PUT of a Service must carry its address, which the manifest does not have.
fn strip_service(manifest: &str) -> String {
    manifest.split("---\n").filter(|document| !document.contains("kind: Service\n")).collect::<Vec<_>>().join("---\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_learns_what_there_is() {
    with_each_kubectl(|kubectl| {
        let resources = kubectl.run(&["api-resources"]).ok();
        for name in ["configmaps", "deployments", "endpointslices", "leases", "rolebindings"] {
            assert!(resources.contains(name), "{name} is missing in\n{resources}");
        }
        assert!(kubectl.run(&["api-versions"]).ok().contains("apps/v1"));
        assert!(kubectl.run(&["version"]).ok().contains("v1.37.2"));
        assert!(kubectl.run(&["explain", "deployment.spec.replicas"]).ok().contains("replicas <integer>"));
        assert!(kubectl.run(&["get", "--raw", "/readyz?verbose"]).ok().contains("readyz check passed"));
        assert!(kubectl.run(&["get", "--raw", "/metrics"]).ok().contains("apiserver_request_duration_seconds_bucket"));
        let top = kubectl.run(&["top", "nodes"]).fails();
        assert!(top.contains("Metrics API not available"), "{top}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_given_and_held_to() {
    with_each_kubectl(|kubectl| {
        kubectl.run(&["create", "namespace", "rights"]).ok();
        kubectl.run(&["create", "serviceaccount", "reader", "-n", "rights"]).ok();
        assert_eq!(kubectl.run(&["auth", "can-i", "list", "configmaps", "-n", "rights", "--as", "jane"]).stdout.trim(), "no");
        kubectl.run(&["create", "role", "reader", "--verb=get,list", "--resource=configmaps", "-n", "rights"]).ok();
        kubectl.run(&["create", "rolebinding", "readers", "--role=reader", "--user=jane", "-n", "rights"]).ok();
        assert_eq!(kubectl.run(&["auth", "can-i", "list", "configmaps", "-n", "rights", "--as", "jane"]).stdout.trim(), "yes");
        let rights = kubectl.run(&["auth", "can-i", "--list", "-n", "rights", "--as", "jane"]).ok();
        assert!(rights.contains("configmaps"), "{rights}");
        let refused = kubectl.run(&["get", "secrets", "-n", "rights", "--as", "jane"]).fails();
        let words = "secrets is forbidden: User \"jane\" cannot list resource \"secrets\" in API group \"\" in the namespace \"rights\"";
        assert!(refused.contains(words), "{refused}");
        let account = "system:serviceaccount:rights:reader";
        assert_eq!(kubectl.run(&["auth", "can-i", "get", "secrets", "--as", account]).stdout.trim(), "no");
        let token = kubectl.run(&["create", "token", "reader", "-n", "rights"]).ok();
        assert_eq!(token.trim().split('.').count(), 3);
        kubectl.run(&["delete", "namespace", "rights"]).ok();
    })
    .await;
}

const DEPLOYMENT: &str = include_str!("../../examples/deployment.yaml");

/// Asks until kubectl's answer is what is wanted.
fn until(kubectl: &Kubectl, arguments: &[&str], wanted: &str) {
    let begun = std::time::Instant::now();
    loop {
        let answer = kubectl.run(arguments).stdout;
        if answer.trim() == wanted {
            return;
        }
        assert!(begun.elapsed().as_secs() < 60, "{arguments:?} gives {answer:?}, not {wanted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_rolled_out_back_and_away() {
    with_each_kubectl(|kubectl| {
        kubectl.run_with(&["apply", "-f", "-"], DEPLOYMENT).ok();
        let pods = &["get", "pods", "-n", "hive", "-l", "app=bees", "--no-headers", "-o", "custom-columns=PHASE:.status.phase"];
        until(kubectl, pods, "Pending\nPending\nPending");
        let account = "{.items[0].spec.serviceAccountName} {.items[0].spec.volumes[0].projected.sources[0].serviceAccountToken.path}";
        until(kubectl, &["get", "pods", "-n", "hive", "-o", &format!("jsonpath={account}")], "default token");
        kubectl.run(&["get", "configmap", "-n", "hive", "kube-root-ca.crt"]).ok();
        kubectl.run(&["set", "image", "-n", "hive", "deployment/bees", "bee=example.com/bee:2"]).ok();
        let images = &["get", "replicasets", "-n", "hive", "--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[*].spec.template.spec.containers[0].image}"];
        until(kubectl, images, "example.com/bee:1 example.com/bee:2");
        until(kubectl, &["get", "deployment", "-n", "hive", "bees", "-o", "jsonpath={.metadata.annotations.deployment\\.kubernetes\\.io/revision}"], "2");
        assert!(kubectl.run(&["rollout", "history", "-n", "hive", "deployment/bees"]).ok().contains('2'));
        kubectl.run(&["rollout", "undo", "-n", "hive", "deployment/bees"]).ok();
        until(kubectl, &["get", "deployment", "-n", "hive", "bees", "-o", "jsonpath={.spec.template.spec.containers[0].image}"], "example.com/bee:1");
        kubectl.run(&["scale", "-n", "hive", "deployment/bees", "--replicas=1"]).ok();
        let events = kubectl.run(&["describe", "deployment", "-n", "hive", "bees"]).ok();
        assert!(events.contains("ScalingReplicaSet"), "{events}");
        kubectl.run(&["delete", "namespace", "hive"]).ok();
        assert_eq!(kubectl.run(&["get", "pods", "-A", "--no-headers"]).stdout, "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_wait_for_a_node_with_room_and_say_why() {
    with_each_kubectl(|kubectl| {
        kubectl.run(&["create", "namespace", "placed"]).ok();
        until(kubectl, &["get", "serviceaccount", "default", "-n", "placed", "-o", "name"], "serviceaccount/default");
        let pod = ["run", "bee", "-n", "placed", "--image=example.com/bee:1", "--overrides"];
        let wants = r#"{"spec":{"containers":[{"name":"bee","image":"example.com/bee:1","resources":{"requests":{"cpu":"3"}}}]}}"#;
        kubectl.run(&[&pod[..], &[wants]].concat()).ok();
        kubectl.run_with(&["create", "-f", "-"], r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}"#).ok();
        // A new node is not ready until the node lifecycle controller knows better.
        until(kubectl, &["get", "node", "n1", "-o", "jsonpath={.spec.taints}"], "");
        let room = |cpu: &str| {
            let status = format!(r#"{{"status":{{"allocatable":{{"cpu":"{cpu}","memory":"4Gi","pods":"110"}}}}}}"#);
            kubectl.run(&["patch", "node", "n1", "--subresource=status", "--type=merge", "-p", &status]).ok();
        };
        room("2");
        let why = &["get", "pod", "bee", "-n", "placed", "-o", "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}"];
        until(
            kubectl,
            why,
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
        );
        room("4");
        until(kubectl, &["get", "pod", "bee", "-n", "placed", "-o", "jsonpath={.spec.nodeName}"], "n1");
        kubectl.run(&["delete", "pod", "bee", "-n", "placed", "--force"]).ok();
        kubectl.run(&["delete", "node", "n1"]).ok();
        kubectl.run(&["delete", "namespace", "placed"]).ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_deployment_takes_its_pods_along() {
    with_each_kubectl(|kubectl| {
        kubectl.run(&["create", "namespace", "owned"]).ok();
        until(kubectl, &["get", "serviceaccount", "default", "-n", "owned", "-o", "name"], "serviceaccount/default");
        let phases = &["get", "pods", "-n", "owned", "-o", "jsonpath={.items[*].status.phase}"];
        let left = &["get", "replicasets,pods", "-n", "owned", "-o", "name"];
        let create = || {
            kubectl
                .run(&["create", "deployment", "bees", "-n", "owned", "--image=example.com/bee:1", "--replicas=2"])
                .ok();
            until(kubectl, phases, "Pending Pending");
        };
        create();
        kubectl.run(&["delete", "deployment", "-n", "owned", "bees"]).ok();
        until(kubectl, left, "");
        create();
        // In the foreground the Deployment is the last to go, and kubectl waits for it.
        kubectl.run(&["delete", "deployment", "-n", "owned", "bees", "--cascade=foreground"]).ok();
        assert_eq!(kubectl.run(left).stdout.trim(), "");
        create();
        kubectl.run(&["delete", "deployment", "-n", "owned", "bees", "--cascade=orphan"]).ok();
        let owners =
            &["get", "replicasets", "-n", "owned", "-o", "jsonpath={.items[*].metadata.ownerReferences[*].kind}"];
        assert_eq!(kubectl.run(owners).stdout.trim(), "");
        assert_eq!(kubectl.run(phases).stdout.trim(), "Pending Pending");
        kubectl.run(&["delete", "replicasets", "-n", "owned", "--all"]).ok();
        until(kubectl, left, "");
        kubectl.run(&["delete", "namespace", "owned"]).ok();
    })
    .await;
}

fn owned(value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: owned\n  labels: {{app: owned}}\ndata:\n  x: \"{value}\"\n"
    )
}

/// The managers of the config map, each with how it writes.
fn owners(kubectl: &Kubectl) -> Vec<(String, String)> {
    let object = json(kubectl, &["get", "configmap", "owned", "--show-managed-fields", "-o", "json"]);
    let entries = object["metadata"]["managedFields"].as_array().expect("the object has owners");
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    entries.iter().map(|entry| (text(entry, "manager"), text(entry, "operation"))).collect()
}

fn pairs(owners: &[(&str, &str)]) -> Vec<(String, String)> {
    owners.iter().map(|(manager, operation)| ((*manager).to_owned(), (*operation).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_have_owners_and_applies_from_the_servers_side_heed_them() {
    with_each_kubectl(|kubectl| {
        let apply = ["apply", "--server-side", "-f", "-"];
        assert_eq!(kubectl.run_with(&apply, &owned("1")).ok().trim(), "configmap/owned serverside-applied");
        kubectl.run(&["label", "configmap", "owned", "tier=front"]).ok();
        assert_eq!(owners(kubectl), pairs(&[("kubectl", "Apply"), ("kubectl-label", "Update")]));
        let hidden = json(kubectl, &["get", "configmap", "owned", "-o", "json"]);
        assert!(hidden["metadata"].get("managedFields").is_none());

        let difference = kubectl.run_with(&["diff", "--server-side", "-f", "-"], &owned("2"));
        assert!(difference.stdout.contains("+  x: \"2\""), "{difference:?}");
        let other = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
        let conflict = kubectl.run_with(&other, &owned("2")).fails();
        assert!(conflict.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .data.x"), "{conflict}");
        let forced = ["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"];
        kubectl.run_with(&forced, &owned("2")).ok();
        let object = json(kubectl, &["get", "configmap", "owned", "-o", "json"]);
        assert_eq!((&object["data"]["x"], &object["metadata"]["labels"]["tier"]), (&"2".into(), &"front".into()));

        // What the last applier no longer names is gone, and what another named stays.
        let without_data = owned("2").replace("data:\n  x: \"2\"\n", "");
        kubectl.run_with(&other, &without_data).ok();
        let object = json(kubectl, &["get", "configmap", "owned", "-o", "json"]);
        assert!(object.get("data").is_none() || object["data"].get("x").is_none(), "{object}");
        assert_eq!(object["metadata"]["labels"]["app"], "owned");
        kubectl.run(&["delete", "configmap", "owned"]).ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_applied_from_the_clients_side_goes_on_from_the_servers_side() {
    with_each_kubectl(|kubectl| {
        kubectl.run_with(&["apply", "-f", "-"], &owned("1")).ok();
        assert_eq!(owners(kubectl), pairs(&[("kubectl-client-side-apply", "Update")]));
        kubectl.run_with(&["apply", "--server-side", "-f", "-"], &owned("2")).ok();
        // The annotation has a manager of its own, by which kubectl keeps it from being pruned.
        assert_eq!(owners(kubectl), pairs(&[("kubectl-last-applied", "Apply"), ("kubectl", "Apply")]));
        let object = json(kubectl, &["get", "configmap", "owned", "-o", "json"]);
        assert_eq!(object["data"]["x"], "2");
        let last = &object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
        assert!(last.as_str().is_some_and(|last| last.contains("\"x\":\"2\"")), "{last}");
        kubectl.run_with(&["apply", "-f", "-"], &owned("3")).ok();
        kubectl.run(&["delete", "configmap", "owned"]).ok();
    })
    .await;
}
