//! The DaemonSet's decisions: by table, and by simulating the cluster.

use serde_json::{Value, json};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("a time")
}

fn set(fields: &Value) -> DaemonSet {
    let mut set = json!({
        "metadata": {"name": "d", "namespace": "n", "uid": "set", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "d"}},
                 "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
                 "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c"}]}}},
    });
    for (pointer, value) in fields.as_object().expect("fields") {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        set["spec"].pointer_mut(parent).expect("a parent")[field] = value.clone();
    }
    serde_json::from_value(set).expect("a DaemonSet")
}

fn node(name: &str, taints: &Value) -> Arc<Node> {
    let node = json!({"metadata": {"name": name, "labels": {"color": "blue"}}, "spec": {"taints": taints}});
    Arc::new(serde_json::from_value(node).expect("a node"))
}

struct Cluster {
    set: DaemonSet,
    nodes: Vec<Arc<Node>>,
    pods: Vec<Value>,
    hash: String,
    serial: usize,
    backoff: HashMap<String, Backoff>,
    now: i64,
}

impl Cluster {
    fn new(fields: &Value) -> Self {
        let nodes = ["a", "b", "c"].map(|name| node(name, &json!([]))).to_vec();
        let hash = "old".to_owned();
        Self { set: set(fields), nodes, pods: Vec::new(), hash, serial: 0, backoff: HashMap::new(), now: 0 }
    }

    fn pods(&self) -> Vec<Arc<SlimPod>> {
        self.pods.iter().map(|pod| Arc::new(serde_json::from_value(pod.clone()).expect("a pod"))).collect()
    }

    fn with<T>(&self, decide: impl FnOnce(Observed<'_>) -> T) -> T {
        let pods = self.pods();
        decide(Observed { set: &self.set, pods: &pods, nodes: &self.nodes, hash: &self.hash, backoff: &self.backoff })
    }

    /// One pass: the numbers of pods that were created and deleted. The kubelet runs them at once.
    fn pass(&mut self) -> (usize, usize) {
        let decision = self.with(|observed| reconcile::reconcile(observed, at(self.now)));
        self.backoff.extend(decision.backoff);
        let owner = PodOwner::of(&self.set);
        for node in &decision.create {
            let mut pod = serde_json::to_value(pod(&self.set, &owner, &self.hash, node)).expect("json");
            self.serial += 1;
            pod["metadata"]["name"] = json!(format!("p{}", self.serial));
            pod["metadata"]["uid"] = json!(format!("p{}", self.serial));
            let placed = placement::target(&serde_json::from_value(pod.clone()).expect("a pod")).map(str::to_owned);
            pod["spec"]["nodeName"] = json!(placed);
            pod["status"] = json!({"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2023-11-14T22:00:00Z"}]});
            self.pods.push(pod);
        }
        for gone in &decision.delete {
            self.pods.retain(|pod| pod["metadata"]["uid"] != json!(gone.metadata.uid));
        }
        (decision.create.len(), decision.delete.len())
    }

    fn status(&self) -> DaemonSetStatus {
        self.with(|observed| reconcile::status(observed, true, at(self.now)))
    }
}

#[test]
fn each_node_gets_one_pod_that_only_it_takes() {
    let mut cluster = Cluster::new(&json!({}));
    assert_eq!(cluster.pass(), (3, 0));
    assert_eq!(cluster.pass(), (0, 0));
    let status = cluster.status();
    assert_eq!(
        (status.desired_number_scheduled, status.current_number_scheduled, status.number_available),
        (3, 3, Some(3))
    );
    cluster.nodes.pop();
    cluster.pods[2]["spec"]["nodeName"] = json!(null);
    assert_eq!(cluster.pass(), (0, 1), "the pod that waits for a node that is gone");
}

#[test]
fn taints_selectors_and_affinity_say_which_nodes_are_for_it() {
    let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
    let affinity = |operator: &str, values: &Value| {
        json!({"/template/spec/affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "color", "operator": operator, "values": values}]}]}}}})
    };
    let table = [
        (json!({}), json!([]), Fit::Run),
        (json!({}), taint("other", "NoSchedule"), Fit::Stay),
        (json!({}), taint("other", "NoExecute"), Fit::Leave),
        (json!({}), taint("other", "PreferNoSchedule"), Fit::Run),
        (json!({}), taint("node.kubernetes.io/unschedulable", "NoSchedule"), Fit::Run),
        (json!({}), taint("node.kubernetes.io/not-ready", "NoExecute"), Fit::Run),
        (json!({}), taint("node.kubernetes.io/network-unavailable", "NoSchedule"), Fit::Stay),
        (
            json!({"/template/spec/hostNetwork": true}),
            taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
            Fit::Run,
        ),
        (json!({"/template/spec/tolerations": [{"operator": "Exists"}]}), taint("other", "NoExecute"), Fit::Run),
        (json!({"/template/spec/nodeSelector": {"color": "blue"}}), json!([]), Fit::Run),
        (json!({"/template/spec/nodeSelector": {"color": "red"}}), json!([]), Fit::Leave),
        (json!({"/template/spec/nodeName": "b"}), json!([]), Fit::Leave),
        (affinity("In", &json!(["blue"])), json!([]), Fit::Run),
        (affinity("NotIn", &json!(["blue"])), json!([]), Fit::Leave),
    ];
    for (fields, taints, expected) in table {
        assert_eq!(placement::fit(&set(&fields), &node("a", &taints)), expected, "{fields} {taints}");
    }
}

#[test]
fn a_rolling_update_replaces_as_many_as_may_be_unavailable() {
    let mut cluster = Cluster::new(&json!({}));
    cluster.pass();
    cluster.hash = "new".to_owned();
    let mut passes = Vec::new();
    loop {
        let pass = cluster.pass();
        if pass == (0, 0) {
            break;
        }
        passes.push(pass);
    }
    assert_eq!(passes, [(0, 1), (1, 0), (0, 1), (1, 0), (0, 1), (1, 0)]);
    assert_eq!(cluster.status().updated_number_scheduled, Some(3));
}

#[test]
fn with_surge_a_new_pod_comes_before_the_old_one_goes() {
    let rolling = json!({"/updateStrategy/rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    let mut cluster = Cluster::new(&rolling);
    cluster.pass();
    cluster.hash = "new".to_owned();
    assert_eq!((cluster.pass(), cluster.pods.len()), ((1, 0), 4));
    assert_eq!((cluster.pass(), cluster.pods.len()), ((0, 1), 3));
}

#[test]
fn on_delete_pods_stay_until_they_are_deleted() {
    let mut cluster = Cluster::new(&json!({"/updateStrategy/type": "OnDelete"}));
    cluster.pass();
    cluster.hash = "new".to_owned();
    assert_eq!(cluster.pass(), (0, 0));
    cluster.pods.pop();
    assert_eq!(cluster.pass(), (1, 0));
    assert_eq!(cluster.status().updated_number_scheduled, Some(1));
}

#[test]
fn a_failed_pod_is_replaced_after_a_back_off_that_grows() {
    let mut cluster = Cluster::new(&json!({}));
    cluster.pass();
    cluster.pods[0]["status"]["phase"] = json!("Failed");
    assert_eq!(cluster.pass(), (0, 1));
    assert_eq!(cluster.pass(), (1, 0));
    cluster.pods[2]["status"]["phase"] = json!("Failed");
    let waiting = cluster.with(|observed| reconcile::reconcile(observed, at(0)));
    assert_eq!((waiting.delete.len(), waiting.again), (0, Some(std::time::Duration::from_secs(1))));
    cluster.now = 1;
    assert_eq!(cluster.pass(), (0, 1));
}
