use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// Appends its command, name and input to a log beside it, answers with an address, and fails when a file says so.
const PLUGIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cni/recording-plugin");

struct Node {
    folder: tempfile::TempDir,
    cni: Cni,
}

impl Node {
    fn new(list: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [configurations, binaries] = ["net.d", "bin"].map(|name| folder.path().join(name));
        fs::create_dir_all(&configurations).unwrap();
        fs::create_dir_all(&binaries).unwrap();
        fs::write(configurations.join("10-net.conflist"), list.to_string()).unwrap();
        for name in ["first", "second"] {
            // A link, since a file written here could still be open in a process that another test forks (ETXTBSY).
            symlink(PLUGIN, binaries.join(name)).unwrap();
        }
        let cni = Cni::new(configurations, vec![binaries], folder.path().join("cache"));
        Self { folder, cni }
    }

    fn fails(&self, command: &str, plugin: &str) {
        fs::write(self.folder.path().join(format!("bin/fail-{command}-{plugin}")), "").unwrap();
    }

    fn recovers(&self, command: &str, plugin: &str) {
        fs::remove_file(self.folder.path().join(format!("bin/fail-{command}-{plugin}"))).unwrap();
    }

    async fn add(&self) -> Result<Vec<IpAddr>, CniError> {
        let attach = Attach {
            container_id: "pod-1",
            netns: Path::new("/run/net"),
            interface: "eth0",
            args: String::new(),
            capabilities: Map::new(),
        };
        self.cni.add(&attach).await
    }

    /// Command and plugin of each call.
    fn calls(&self) -> Vec<String> {
        let words = |line: &str| line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ");
        self.log().lines().map(words).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("bin/calls")).unwrap_or_default()
    }
}

fn two_plugins(version: &str) -> Value {
    json!({"name": "net", "cniVersion": version, "plugins": [{"type": "first"}, {"type": "second"}]})
}

#[tokio::test]
async fn plugins_are_chained_by_the_result_before_them() {
    let node = Node::new(&two_plugins("1.0.0"));
    let addresses = node.add().await.unwrap();
    assert_eq!(addresses, ["10.1.2.3".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
    assert_eq!(node.calls(), ["ADD first", "ADD second"]);
    assert!(node.log().lines().nth(1).unwrap().contains(r#""by":"first""#), "{}", node.log());
}

#[tokio::test]
async fn a_deletion_runs_backwards_with_the_final_result() {
    let node = Node::new(&two_plugins("1.0.0"));
    node.add().await.unwrap();
    node.cni.del("pod-1", None).await.unwrap();
    assert_eq!(node.calls()[2..], ["DEL second", "DEL first"]);
    assert!(node.log().lines().skip(2).all(|line| line.contains(r#""by":"second""#)), "{}", node.log());
}

#[tokio::test]
async fn a_deletion_uses_the_configuration_of_its_addition() {
    let node = Node::new(&two_plugins("1.0.0"));
    node.add().await.unwrap();
    fs::remove_file(node.folder.path().join("net.d/10-net.conflist")).unwrap();
    node.cni.del("pod-1", None).await.unwrap();
    assert_eq!(node.calls().len(), 4);
}

#[tokio::test]
async fn a_deletion_of_nothing_calls_nobody() {
    let node = Node::new(&two_plugins("1.0.0"));
    node.add().await.unwrap();
    node.cni.del("pod-1", None).await.unwrap();
    node.cni.del("pod-1", None).await.unwrap();
    assert_eq!(node.calls().len(), 4);
}

#[tokio::test]
async fn an_addition_that_fails_half_way_is_deleted() {
    let node = Node::new(&two_plugins("1.0.0"));
    node.fails("ADD", "second");
    let error = node.add().await.unwrap_err();
    assert_eq!(error.to_string(), r#"plugin type="second" failed (add): try again; no room"#);
    assert_eq!(node.calls(), ["ADD first", "ADD second", "DEL second", "DEL first"]);
}

#[tokio::test]
async fn a_deletion_that_fails_can_be_tried_again() {
    let node = Node::new(&two_plugins("1.0.0"));
    node.add().await.unwrap();
    node.fails("DEL", "first");
    node.cni.del("pod-1", None).await.unwrap_err();
    node.recovers("DEL", "first");
    node.cni.del("pod-1", None).await.unwrap();
    assert_eq!(node.calls().iter().filter(|call| *call == "DEL first").count(), 2);
}

#[tokio::test]
async fn plugins_of_1_1_are_asked_whether_they_are_ready() {
    let node = Node::new(&two_plugins("1.1.0"));
    node.cni.status().await.unwrap();
    node.fails("STATUS", "first");
    let error = node.cni.status().await.unwrap_err();
    assert_eq!(error, r#"plugin type="first" failed (status): try again; no room"#);
}

#[tokio::test]
async fn a_network_without_its_binaries_is_not_ready() {
    let node = Node::new(&json!({"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "third"}]}));
    let error = node.cni.status().await.unwrap_err();
    assert!(error.starts_with(r#"failed to find plugin "third" in path ["#), "{error}");
}

#[tokio::test]
async fn stale_attachments_are_collected_and_plugins_told_of_live_ones() {
    let node = Node::new(&two_plugins("1.1.0"));
    node.add().await.unwrap();
    node.cni.collect(&HashSet::from(["pod-1".to_owned()])).await.unwrap();
    assert_eq!(node.calls()[2..], ["GC first", "GC second"]);
    assert!(node.log().contains(r#"[{"containerID":"pod-1","ifname":"eth0"}]"#), "{}", node.log());
    node.cni.collect(&HashSet::new()).await.unwrap();
    assert_eq!(node.calls()[4..], ["DEL second", "DEL first", "GC first", "GC second"]);
}

#[tokio::test]
async fn host_ports_that_no_plugin_maps_are_refused_before_anything_is_made() {
    let mut list = two_plugins("1.0.0");
    let attach = Attach {
        container_id: "pod-1",
        netns: Path::new("/run/net"),
        interface: "eth0",
        args: String::new(),
        capabilities: [(PORT_MAPPINGS.to_owned(), json!([{"hostPort": 80, "containerPort": 80}]))]
            .into_iter()
            .collect(),
    };
    let node = Node::new(&list);
    let error = node.cni.add(&attach).await.unwrap_err();
    assert!(matches!(&error, CniError::PortMappings(network) if network == "net"), "{error}");
    assert!(node.calls().is_empty());
    list["plugins"][1]["capabilities"] = json!({"portMappings": true});
    assert!(Node::new(&list).cni.add(&attach).await.is_ok());
}

#[tokio::test]
async fn a_container_id_that_is_a_path_is_refused() {
    let node = Node::new(&two_plugins("1.0.0"));
    let attach = Attach {
        container_id: "../x",
        netns: Path::new("/n"),
        interface: "eth0",
        args: String::new(),
        capabilities: Map::new(),
    };
    assert!(matches!(node.cni.add(&attach).await, Err(CniError::ContainerId(_))));
}

#[test]
fn only_addresses_inside_the_pod_count() {
    let result = json!({
        "interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": "/n"}],
        "ips": [{"interface": 0, "address": "10.0.0.1/24"}, {"interface": 1, "address": "10.0.0.2/24"}],
    });
    assert_eq!(addresses(&result, "eth0"), ["10.0.0.2".parse::<IpAddr>().unwrap()]);
}

#[test]
fn the_primary_address_is_of_ipv4() {
    let result = json!({"ips": [{"address": "fd00::1/64"}, {"address": "fd00::2/64"}, {"address": "10.0.0.1/24"}]});
    let expected: Vec<IpAddr> = ["10.0.0.1", "fd00::1", "fd00::2"].map(|text| text.parse().unwrap()).to_vec();
    assert_eq!(addresses(&result, "eth0"), expected);
}
