//! With tmpfs mounts, as root.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::objects::testing::Api;
use crate::pod::resolve::{Context, ImageInfo, NodeContext, UserIds};
use crate::runtime::spec::PodNamespaces;

/// A root folder that nothing stays mounted in.
struct Node {
    root: tempfile::TempDir,
    api: Arc<Api>,
    volumes: Volumes,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = mount_table::unmount_below(self.root.path());
    }
}

impl Node {
    fn new() -> Self {
        let (root, api) = (tempfile::tempdir().unwrap(), Api::new());
        let volumes = Volumes::new(root.path(), Arc::new(Objects::new(api.client())));
        Self { root, api, volumes }
    }

    fn config_map(&self, data: Value) {
        self.api.put("/api/v1/namespaces/n/configmaps/cm", json!({"metadata": {"name": "cm"}, "data": data}));
    }

    async fn set_up(&self, pod: &Pod) -> Result<BTreeMap<String, MountedVolume>, String> {
        let allocatable = ResourceAmounts::new();
        self.volumes.set_up(pod, &allocatable, Freshness::Now).await.map_err(|error| error.to_string())
    }

    /// The only volume's folder.
    async fn one(&self, source: Value) -> Result<PathBuf, String> {
        self.set_up(&pod(source, json!({}))).await.map(|mut volumes| volumes.remove("v").unwrap().path)
    }
}

fn pod(source: Value, context: Value) -> Pod {
    let mut volume = source;
    volume["name"] = json!("v");
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "uid-1", "labels": {"app": "x"}},
        "spec": {"volumes": [volume], "securityContext": context, "serviceAccountName": "sa", "containers": [
            {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
        ]},
    }))
    .unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn is_tmpfs(path: &Path) -> bool {
    fs::metadata(path).unwrap().dev() != fs::metadata(path.parent().unwrap()).unwrap().dev()
}

#[tokio::test]
async fn a_config_map_becomes_files_and_follows_its_changes() {
    let node = Node::new();
    node.config_map(json!({"a": "1", "b": "2"}));
    let source = json!({"configMap": {"name": "cm", "defaultMode": 0o640}});
    let dir = node.one(source.clone()).await.unwrap();
    assert_eq!(dir, node.root.path().join("pods/uid-1/volumes/kubernetes.io~configmap/v"));
    assert_eq!((fs::read_to_string(dir.join("a")).unwrap().as_str(), mode(&dir.join("a"))), ("1", 0o640));
    node.config_map(json!({"a": "9"}));
    node.one(source).await.unwrap();
    assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "9");
    assert!(!dir.join("b").exists());
}

#[tokio::test]
async fn a_refresh_with_an_older_answer_asks_nothing() {
    let node = Node::new();
    node.config_map(json!({"a": "1"}));
    let pod = pod(json!({"configMap": {"name": "cm"}}), json!({}));
    node.set_up(&pod).await.unwrap();
    let within = Freshness::Within(Duration::from_secs(60));
    node.volumes.set_up(&pod, &ResourceAmounts::new(), within).await.unwrap();
    assert_eq!(node.api.requests().len(), 1);
}

#[tokio::test]
async fn items_choose_keys_and_paths() {
    let node = Node::new();
    node.config_map(json!({"a": "1", "b": "2"}));
    let items = json!([{"key": "a", "path": "x/y", "mode": 0o600}]);
    let dir = node.one(json!({"configMap": {"name": "cm", "items": items}})).await.unwrap();
    assert_eq!((fs::read_to_string(dir.join("x/y")).unwrap().as_str(), mode(&dir.join("x/y"))), ("1", 0o600));
    assert!(!dir.join("a").exists());
}

#[tokio::test]
async fn what_is_missing_fails_in_upstreams_words_unless_it_is_optional() {
    let node = Node::new();
    let failed = |cause: &str| Err(format!("MountVolume.SetUp failed for volume \"v\" : {cause}"));
    let missing = node.one(json!({"configMap": {"name": "cm"}})).await;
    assert_eq!(missing, failed("configmap \"cm\" not found"));
    let missing = node.one(json!({"secret": {"secretName": "s"}})).await;
    assert_eq!(missing, failed("secret \"s\" not found"));
    node.config_map(json!({}));
    let items = json!([{"key": "z", "path": "z"}]);
    let missing = node.one(json!({"configMap": {"name": "cm", "items": items}})).await;
    assert_eq!(missing, failed("configmap references non-existent config key: z"));
    let optional = node.one(json!({"secret": {"secretName": "s", "optional": true}})).await.unwrap();
    assert!(optional.is_dir());
}

#[tokio::test]
async fn a_secret_stays_in_memory_and_belongs_to_the_pods_group() {
    let node = Node::new();
    node.api.put("/api/v1/namespaces/n/secrets/s", json!({"metadata": {"name": "s"}, "data": {"k": "czNjcmV0"}}));
    let pod = pod(json!({"secret": {"secretName": "s", "defaultMode": 0o400}}), json!({"fsGroup": 2000}));
    let volume = node.set_up(&pod).await.expect("set up, as root").remove("v").unwrap();
    assert!(volume.read_only && is_tmpfs(&volume.path));
    let file = volume.path.join("k");
    assert_eq!(fs::read_to_string(&file).unwrap(), "s3cret");
    assert_eq!((fs::metadata(&file).unwrap().gid(), mode(&file)), (2000, 0o440));
    assert_eq!((fs::metadata(&volume.path).unwrap().gid(), mode(&volume.path)), (2000, 0o2777));
}

#[tokio::test]
async fn a_projected_volume_holds_token_config_map_and_fields() {
    let node = Node::new();
    node.config_map(json!({"ca.crt": "CA"}));
    let sources = json!([
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "cm", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        ]}},
    ]);
    let dir = node.one(json!({"projected": {"sources": sources, "defaultMode": 0o644}})).await.expect("as root");
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(
        ["token", "ca.crt", "namespace", "labels"].map(read),
        ["token-0", "CA", "n", "app=\"x\""].map(str::to_owned)
    );
    assert_eq!(mode(&dir.join("token")), 0o644);
    assert_eq!(node.api.bodies()[0]["spec"]["expirationSeconds"], 3607);
    assert_eq!(node.api.requests()[1], "POST /api/v1/namespaces/n/serviceaccounts/sa/token");
}

#[tokio::test]
async fn a_token_is_only_for_the_user_that_every_container_runs_as() {
    let node = Node::new();
    let sources = json!([{"serviceAccountToken": {"path": "token"}}]);
    let pod = pod(json!({"projected": {"sources": sources}}), json!({"runAsUser": 1000}));
    let token = node.set_up(&pod).await.expect("as root")["v"].path.join("token");
    assert_eq!((fs::metadata(&token).unwrap().uid(), mode(&token)), (1000, 0o600));
}

#[tokio::test]
async fn every_cause_of_a_projected_volume_is_told() {
    let node = Node::new();
    let sources = json!([
        {"configMap": {"name": "cm"}}, {"secret": {"name": "s"}}, {"clusterTrustBundle": {"name": "b", "path": "b"}},
    ]);
    let failed = node.one(json!({"projected": {"sources": sources}})).await.unwrap_err();
    assert!(
        failed.ends_with(
            "[configmap \"cm\" not found, secret \"s\" not found, while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"b\" not found]"
        ),
        "{failed}"
    );
}

#[tokio::test]
async fn an_empty_folder_is_made_once_and_left_alone_after() {
    let node = Node::new();
    let dir = node.one(json!({"emptyDir": {}})).await.unwrap();
    assert_eq!(mode(&dir), 0o777);
    fs::write(dir.join("f"), "x").unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    node.one(json!({"emptyDir": {}})).await.unwrap();
    assert_eq!((mode(&dir), dir.join("f").exists()), (0o700, true));
}

#[tokio::test]
async fn an_empty_folder_in_memory_has_its_limit_and_group() {
    let node = Node::new();
    let pod = pod(json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}), json!({"fsGroup": 2000}));
    let dir = node.set_up(&pod).await.expect("set up, as root")["v"].path.clone();
    node.set_up(&pod).await.expect("again");
    assert!(is_tmpfs(&dir));
    assert_eq!((mode(&dir), fs::metadata(&dir).unwrap().gid()), (0o2777, 2000));
    let full = fs::write(dir.join("f"), vec![0; 2 << 20]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
}

#[tokio::test]
async fn tearing_down_unmounts_and_removes_everything_of_the_pod() {
    let node = Node::new();
    let dir = node.one(json!({"emptyDir": {"medium": "Memory"}})).await.expect("set up, as root");
    fs::write(dir.join("f"), "x").unwrap();
    assert_eq!(node.volumes.list_uids().await.unwrap(), ["uid-1"]);
    node.volumes.tear_down("uid-1").await.unwrap();
    assert!(node.volumes.list_uids().await.unwrap().is_empty());
    node.volumes.tear_down("uid-1").await.unwrap();
    assert!(node.volumes.tear_down("../x").await.is_err());
}

#[tokio::test]
async fn kinds_that_are_not_known_are_refused_by_name() {
    let node = Node::new();
    let source = pod(json!({"persistentVolumeClaim": {"claimName": "c"}}), json!({}));
    let refused = node.volumes.set_up(&source, &ResourceAmounts::new(), Freshness::Now).await.unwrap_err();
    assert!(refused.is_refusal());
    assert_eq!(
        refused.to_string(),
        "MountVolume.SetUp failed for volume \"v\" : volumes of kind persistentVolumeClaim are not supported by this node"
    );
    let refused = node.one(json!({"emptyDir": {"medium": "HugePages"}})).await.unwrap_err();
    assert!(refused.ends_with("emptyDir of medium \"HugePages\" is not supported by this node"), "{refused}");
}

/// A pod's container, prepared with nothing but its volumes.
fn prepare(node: &Node, pod: &Pod, volumes: &BTreeMap<String, MountedVolume>) -> Result<container::Prepared, String> {
    let image = ImageInfo { entrypoint: vec!["/x".to_owned()], ..ImageInfo::default() };
    let (ids, namespaces) = (UserIds::default(), PodNamespaces::default());
    let (config_maps, secrets) = Default::default();
    let of_node = NodeContext { cluster_domain: "d".to_owned(), ..NodeContext::default() };
    let ctx = Context {
        pod,
        container: &pod.spec.as_ref().unwrap().containers[0],
        attempt: 0,
        image: &image,
        ids: &ids,
        pod_ips: &["10.1.0.7".parse().unwrap()],
        node: &of_node,
        config_maps: &config_maps,
        secrets: &secrets,
        services: &[],
        volumes,
        pod_dir: &node.root.path().join("pods/uid-1"),
        namespaces: &namespaces,
        shm: None,
        cgroup: Path::new("/c"),
        seccomp: None,
    };
    container::prepare(&ctx).map_err(|error| error.to_string())
}

#[tokio::test]
async fn every_source_of_a_prepared_container_is_there() {
    let node = Node::new();
    let mut pod = pod(json!({"emptyDir": {}}), json!({}));
    let part = json!([{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/p", "subPath": "a/b"}]);
    pod.spec.as_mut().unwrap().containers[0].volume_mounts = serde_json::from_value(part).unwrap();
    let volumes = node.set_up(&pod).await.unwrap();
    let prepared = prepare(&node, &pod, &volumes).expect("prepare, as root");
    let again = prepare(&node, &pod, &volumes).expect("prepare again");
    assert_eq!(prepared, again);
    assert!(prepared.spec.mounts.iter().all(|mount| mount.source.exists()), "{:?}", prepared.spec.mounts);
    let source = |destination: &str| {
        let mount = prepared.spec.mounts.iter().find(|mount| mount.destination == Path::new(destination));
        mount.unwrap().source.clone()
    };
    fs::write(source("/p").join("f"), "x").unwrap();
    assert_eq!(fs::read_to_string(source("/v").join("a/b/f")).unwrap(), "x");
    assert!(fs::read_to_string(source("/etc/hosts")).unwrap().ends_with("10.1.0.7\tp\n"));
    assert_eq!(fs::read_to_string(source("/etc/hostname")).unwrap(), "p\n");
    assert_eq!(mode(&source("/dev/termination-log")), 0o666);
    assert_eq!(prepared.warnings[0].0, "MissingClusterDNS");
    node.volumes.tear_down("uid-1").await.unwrap();
    assert!(!node.root.path().join("pods/uid-1").exists());
}

#[tokio::test]
async fn variables_are_read_from_a_file_but_not_through_a_link_out_of_its_volume() {
    let node = Node::new();
    let mut pod = pod(json!({"emptyDir": {}}), json!({}));
    let source = json!({"fileKeyRef": {"volumeName": "v", "path": "env", "key": "A"}});
    pod.spec.as_mut().unwrap().containers[0].env =
        serde_json::from_value(json!([{"name": "X", "valueFrom": source}])).unwrap();
    let volumes = node.set_up(&pod).await.unwrap();
    assert_eq!(prepare(&node, &pod, &volumes).unwrap_err(), "couldn't parse env file");
    let file = volumes["v"].path.join("env");
    fs::write(&file, "A='1'\n").unwrap();
    let env = prepare(&node, &pod, &volumes).unwrap().spec.env;
    assert!(env.contains(&"X=1".to_owned()), "{env:?}");
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "A='2'\n").unwrap();
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(outside.path(), &file).unwrap();
    assert_eq!(prepare(&node, &pod, &volumes).unwrap_err(), "couldn't parse env file");
}

#[tokio::test]
async fn what_a_volume_takes_is_counted_by_its_name() {
    let node = Node::new();
    let pod = pod(json!({"emptyDir": {}}), json!({}));
    assert!(node.volumes.usage(&pod).await.unwrap().is_empty());
    let dir = node.set_up(&pod).await.unwrap()["v"].path.clone();
    fs::write(dir.join("f"), vec![1; 100_000]).unwrap();
    let usage = node.volumes.usage(&pod).await.unwrap()["v"];
    assert!(usage.bytes >= 100_000 && usage.inodes == 2, "{usage:?}");
}

#[tokio::test]
async fn an_images_volume_is_a_folder_to_mount_it_at_that_nothing_writes_to_or_executes() {
    let node = Node::new();
    let pod = pod(json!({"image": {"reference": "data:v1"}}), json!({}));
    let volumes = node.set_up(&pod).await.unwrap();
    let volume = &volumes["v"];
    assert!(volume.path.is_dir() && volume.read_only && volume.no_exec, "{volume:?}");
    assert!(volume.path.ends_with("pods/uid-1/volumes/kubernetes.io~image/v"), "{volume:?}");
    assert!(node.volumes.usage(&pod).await.unwrap().is_empty());
}
