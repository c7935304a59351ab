//! Clients that nobody here wrote, and programs of ours that are written with them in Go: `cargo xtask test` builds them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};
use skep_tests::Kubectl;
use skep_tests::cluster::{Cluster, until, wanted};

use crate::Scene;

/// The tests that need programs in Go.
pub(crate) const NAMES: [&str; 3] = [
    "client_go_reads_writes_watches_streams_and_elects",
    "helm_installs_upgrades_tests_rolls_back_and_uninstalls_a_chart",
    "an_operator_serves_its_kind_by_cache_webhooks_and_leader_election",
];
pub(crate) const TESTS: [fn(&mut Scene); 3] = [
    client_go_reads_writes_watches_streams_and_elects,
    helm_installs_upgrades_tests_rolls_back_and_uninstalls_a_chart,
    an_operator_serves_its_kind_by_cache_webhooks_and_leader_election,
];

/// The folder of the programs; none when this is not run by `cargo xtask test`.
pub(crate) fn programs() -> Option<PathBuf> {
    std::env::var_os("SKEP_PROGRAMS").map(PathBuf::from)
}

/// A program with the cluster's administrator's rights, that is given up when it takes very long.
fn program(cluster: &Cluster, name: &str) -> Command {
    let mut command = Command::new("timeout");
    command.arg("300").arg(programs().expect("looked for").join(name)).env("KUBECONFIG", cluster.kubeconfig());
    // Helm keeps what it downloads and its settings below the home folder.
    command.env("HOME", cluster.folder()).env_remove("KUBERNETES_SERVICE_HOST").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed\n{stdout}\n{stderr}");
    stdout.into_owned()
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// A namespace of a test, taken away at its end.
struct Namespace {
    kubectl: Kubectl,
    name: &'static str,
}

impl Namespace {
    fn new(cluster: &Cluster, name: &'static str) -> Self {
        let kubectl = cluster.kubectl();
        kubectl.run(&["create", "namespace", name]).ok();
        Self { kubectl, name }
    }

    fn kubectl(&self, arguments: &[&str]) -> skep_tests::Output {
        self.kubectl.run(&[&["-n", self.name], arguments].concat())
    }

    /// Applies an object as JSON.
    fn apply(&self, object: &Value) -> skep_tests::Output {
        self.kubectl.run_with(&["-n", self.name, "apply", "-f", "-"], &object.to_string())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.kubectl.run(&["delete", "namespace", self.name, "--wait=true"]);
    }
}

fn helm_installs_upgrades_tests_rolls_back_and_uninstalls_a_chart(scene: &mut Scene) {
    let cluster = &scene.cluster;
    let namespace = Namespace::new(cluster, "helm");
    let chart = sources().join("chart");
    let helm = |arguments: &[&str]| run(program(cluster, "helm").args(["-n", "helm"]).args(arguments));
    let chart = chart.to_string_lossy();
    let text = || namespace.kubectl(&["get", "configmap", "greeter", "-o", "jsonpath={.data.index\\.html}"]);

    helm(&["install", "greeter", &chart, "--wait", "--timeout", "2m"]);
    assert_eq!(namespace.kubectl(&["get", "visit", "greeter", "-o", "jsonpath={.spec.times}"]).ok(), "1");
    assert_eq!(
        namespace.kubectl(&["get", "job", "greeter-pre-install", "-o", "jsonpath={.status.succeeded}"]).ok(),
        "1"
    );
    helm(&["test", "greeter", "--timeout", "2m"]);
    helm(&["upgrade", "greeter", &chart, "--set", "text=Goodbye", "--wait", "--timeout", "2m"]);
    assert_eq!(text().ok(), "Goodbye");
    assert_eq!(
        namespace.kubectl(&["get", "job", "greeter-post-upgrade", "-o", "jsonpath={.status.succeeded}"]).ok(),
        "1"
    );
    helm(&["test", "greeter", "--timeout", "2m"]);
    helm(&["rollback", "greeter", "1", "--wait", "--timeout", "2m"]);
    assert_eq!(text().ok(), "Hello");
    let history: Value = serde_json::from_str(&helm(&["history", "greeter", "-o", "json"])).expect("JSON");
    assert_eq!(history.as_array().map(Vec::len), Some(3), "{history}");
    helm(&["uninstall", "greeter", "--wait", "--timeout", "2m"]);
    until("the release's objects are gone", || {
        let left = namespace.kubectl(&["get", "deployment,service,visit", "-o", "name"]);
        wanted(left, "")
    });
    namespace.kubectl(&["delete", "crd", "visits.helm.skep.dev"]).ok();
}

/// The operator, which is told to end when the test does.
struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn an_operator_serves_its_kind_by_cache_webhooks_and_leader_election(scene: &mut Scene) {
    let cluster = &scene.cluster;
    let namespace = Namespace::new(cluster, "operator");
    let crd = sources().join("operator/crd.yaml");
    namespace.kubectl(&["apply", "-f", &crd.to_string_lossy()]).ok();
    let established = "condition=Established";
    namespace.kubectl(&["wait", "--for", established, "crd/greetings.clients.skep.dev", "--timeout=60s"]).ok();

    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let certificates = cluster.folder().join("operator");
    std::fs::create_dir_all(&certificates).expect("a folder");
    let ca = certificate(&certificates);
    let mut start = Command::new(programs().expect("looked for").join("operator"));
    start.args(["--namespace", "operator", "--webhook-port", &port.to_string(), "--webhook-certificates"]);
    start.arg(&certificates).env("KUBECONFIG", cluster.kubeconfig()).stdin(Stdio::null());
    let log = std::fs::File::create(cluster.folder().join("operator.log")).expect("a log");
    start.stdout(log.try_clone().expect("a log")).stderr(log);
    let _operator = Operator(start.spawn().expect("it starts"));
    until("the webhooks are served", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
    });
    for (kind, path) in [("Mutating", "mutate"), ("Validating", "validate")] {
        namespace
            .apply(&webhook(kind, &format!("https://127.0.0.1:{port}/{path}-clients-skep-dev-v1-greeting"), &ca))
            .ok();
    }

    let greeting = |text: &str| json!({"apiVersion": "clients.skep.dev/v1", "kind": "Greeting", "metadata": {"name": "first"}, "spec": {"text": text}});
    // Webhooks are taken up a moment after they were written.
    until("shouting is refused", || {
        let answer = namespace.apply(&greeting("HEY"));
        if answer.stderr.contains("don't shout") { Ok(()) } else { Err(answer.stdout + &answer.stderr) }
    });
    namespace.apply(&greeting("")).ok();
    assert_eq!(namespace.kubectl(&["get", "greeting", "first", "-o", "jsonpath={.spec.text}"]).ok(), "Hello");
    namespace.kubectl(&["wait", "--for", "condition=Ready", "greeting/first", "--timeout=60s"]).ok();
    let text = ["get", "configmap", "first-text", "-o", "jsonpath={.data.text}"];
    assert_eq!(namespace.kubectl(&text).ok(), "Hello");
    namespace.apply(&greeting("Good evening")).ok();
    until("the change reaches the ConfigMap", || wanted(namespace.kubectl(&text), "Good evening"));
    until("the status follows", || {
        let generations = "jsonpath={.metadata.generation}={.status.observedGeneration}";
        let shown = namespace.kubectl(&["get", "gr", "first", "-o", generations]).ok();
        let (one, other) = shown.split_once('=').unwrap_or_default();
        if one == other && !one.is_empty() { Ok(()) } else { Err(shown) }
    });
    let table = namespace.kubectl(&["get", "greetings"]).ok();
    assert!(table.contains("TEXT") && table.contains("Good evening"), "{table}");
    run(program(cluster, "observer").args(["dynamic", "operator"]));
    namespace.kubectl(&["delete", "greeting", "first", "--timeout=60s"]).ok();
    until("the garbage collector follows the owner", || {
        wanted(namespace.kubectl(&["get", "configmap", "first-text", "-o", "name", "--ignore-not-found"]), "")
    });
    let holder = ["get", "lease", "greetings.clients.skep.dev", "-o", "jsonpath={.spec.holderIdentity}"];
    assert!(!namespace.kubectl(&holder).ok().is_empty());
    for configuration in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        namespace.kubectl(&["delete", configuration, "greetings"]).ok();
    }
    namespace.kubectl(&["delete", "crd", "greetings.clients.skep.dev", "--timeout=60s"]).ok();
}

fn client_go_reads_writes_watches_streams_and_elects(scene: &mut Scene) {
    let _namespace = Namespace::new(&scene.cluster, "client-go");
    for check in ["typed", "informers", "streams", "election"] {
        run(program(&scene.cluster, "observer").args([check, "client-go"]));
    }
}

/// A configuration of a webhook for greetings that the API server calls at `url`.
fn webhook(kind: &str, url: &str, ca: &str) -> Value {
    let rule = json!({"apiGroups": ["clients.skep.dev"], "apiVersions": ["v1"], "resources": ["greetings"],
        "operations": ["CREATE", "UPDATE"]});
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
        "metadata": {"name": "greetings"},
        "webhooks": [{"name": "greetings.clients.skep.dev", "rules": [rule], "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": url, "caBundle": ca}}],
    })
}

/// Writes a certificate for 127.0.0.1 and its key into a folder; returns it as a `caBundle`.
fn certificate(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("tls.crt"), made.cert.pem()).expect("written");
    std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).expect("written");
    base64::engine::general_purpose::STANDARD.encode(made.cert.pem())
}
