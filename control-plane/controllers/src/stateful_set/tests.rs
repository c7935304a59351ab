//! The StatefulSet's decisions: by simulating the cluster.

use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("a time")
}

fn set(fields: &Value) -> StatefulSet {
    let mut set = json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "set", "generation": 1},
        "spec": {"replicas": 3, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
                 "podManagementPolicy": "OrderedReady",
                 "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}},
    });
    for (field, value) in fields.as_object().expect("fields") {
        set["spec"][field] = value.clone();
    }
    serde_json::from_value(set).expect("a StatefulSet")
}

/// The API server and the kubelet, as far as a StatefulSet sees them. Revisions are `old` and `new`.
struct Cluster {
    set: StatefulSet,
    pods: Vec<Value>,
    current: String,
    update: String,
    log: Vec<String>,
}

impl Cluster {
    fn new(fields: &Value) -> Self {
        let (current, update) = ("old".to_owned(), "old".to_owned());
        Self { set: set(fields), pods: Vec::new(), current, update, log: Vec::new() }
    }

    /// One pass; gives what it did.
    fn pass(&mut self) -> Vec<String> {
        let pods: Vec<Arc<SlimPod>> =
            self.pods.iter().map(|pod| Arc::new(serde_json::from_value(pod.clone()).expect("a pod"))).collect();
        let claims = HashMap::new();
        let observed =
            Observed { set: &self.set, pods: &pods, claims: &claims, current: &self.current, update: &self.update };
        let decision = reconcile::reconcile(observed, now());
        let mut done = Vec::new();
        for action in decision.actions {
            match action {
                Action::Create { ordinal, from_current } => {
                    let revision = if from_current { &self.current } else { &self.update };
                    let pod = replicas::pod(&self.set, &self.set.spec.template, revision, ordinal);
                    let mut pod = serde_json::to_value(pod).expect("json");
                    pod["metadata"]["uid"] = json!(format!("{}-{}", ordinal, self.log.len() + done.len()));
                    pod["status"] = json!({"phase": "Pending"});
                    self.pods.push(pod);
                    done.push(format!("+{ordinal}"));
                }
                Action::Delete(pod) => {
                    self.pods.retain(|own| own["metadata"]["name"] != json!(pod.metadata.name));
                    done.push(format!("-{}", replicas::ordinal(&self.set, &pod).expect("an ordinal")));
                }
                Action::EnsureClaims(_) | Action::Mend(_) => {}
            }
        }
        self.current = decision.status.current_revision.clone().expect("a revision");
        self.set.status = Some(decision.status);
        self.log.extend(done.clone());
        done
    }

    fn ready(&mut self) {
        for pod in &mut self.pods {
            pod["status"] = json!({"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2023-11-14T22:00:00Z"}]});
        }
    }

    fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..50 {
            let done = self.pass();
            self.ready();
            if done.is_empty() {
                self.pass();
                return all;
            }
            all.extend(done);
        }
        panic!("acts on and on: {all:?}");
    }

    fn revisions(&self) -> Vec<String> {
        let mut pods: Vec<_> = self.pods.iter().collect();
        pods.sort_by_key(|pod| pod["metadata"]["name"].to_string());
        pods.iter()
            .map(|pod| pod["metadata"]["labels"]["controller-revision-hash"].as_str().expect("a label").to_owned())
            .collect()
    }
}

#[test]
fn pods_come_in_order_each_after_the_one_before_is_ready_and_go_in_reverse() {
    let mut cluster = Cluster::new(&json!({}));
    assert_eq!(cluster.pass(), ["+0"]);
    assert!(cluster.pass().is_empty(), "web-0 is not ready");
    cluster.ready();
    assert_eq!(cluster.settle(), ["+1", "+2"]);
    let status = cluster.set.status.clone().expect("a status");
    assert_eq!((status.replicas, status.ready_replicas, status.current_replicas), (3, Some(3), Some(3)));
    cluster.set.spec.replicas = Some(0);
    assert_eq!(cluster.settle(), ["-2", "-1", "-0"]);
}

#[test]
fn in_parallel_all_pods_come_at_once_from_the_first_ordinal_on() {
    let mut cluster = Cluster::new(&json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 4}}));
    assert_eq!(cluster.pass(), ["+4", "+5", "+6"]);
}

#[test]
fn an_update_replaces_from_the_last_ordinal_down_to_the_partition() {
    let mut cluster =
        Cluster::new(&json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}));
    cluster.settle();
    cluster.update = "new".to_owned();
    assert_eq!(cluster.settle(), ["-2", "+2", "-1", "+1"]);
    assert_eq!(cluster.revisions(), ["old", "new", "new"]);
    let status = cluster.set.status.clone().expect("a status");
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(1), Some(2)));
    // A pod below the partition comes back as it was.
    cluster.pods.retain(|pod| pod["metadata"]["name"] != "web-0");
    assert_eq!(cluster.settle(), ["+0"]);
    assert_eq!(cluster.revisions(), ["old", "new", "new"]);
    cluster.set.spec.update_strategy.as_mut().and_then(|own| own.rolling_update.as_mut()).expect("rolling").partition =
        Some(0);
    assert_eq!(cluster.settle(), ["-0", "+0"]);
    assert_eq!(cluster.set.status.as_ref().expect("a status").current_revision.as_deref(), Some("new"));
}

#[test]
fn on_delete_pods_stay_until_they_are_deleted() {
    let mut cluster = Cluster::new(&json!({"updateStrategy": {"type": "OnDelete"}}));
    cluster.settle();
    cluster.update = "new".to_owned();
    assert!(cluster.settle().is_empty());
    cluster.pods.retain(|pod| pod["metadata"]["name"] != "web-1");
    assert_eq!(cluster.settle(), ["+1"]);
    assert_eq!(cluster.revisions(), ["old", "new", "old"]);
}

#[test]
fn as_many_are_replaced_at_a_time_as_may_be_unavailable() {
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 2}});
    let mut cluster = Cluster::new(&json!({"updateStrategy": rolling}));
    cluster.settle();
    cluster.update = "new".to_owned();
    assert_eq!(cluster.pass(), ["-2", "-1"]);
}

#[test]
fn scaling_halts_while_a_pod_is_not_ready_and_a_failed_pod_is_replaced() {
    let mut cluster = Cluster::new(&json!({}));
    cluster.settle();
    cluster.pods[0]["status"]["conditions"][0]["status"] = json!("False");
    cluster.set.spec.replicas = Some(2);
    assert!(cluster.pass().is_empty(), "web-0 is not ready");
    cluster.ready();
    cluster.pods[1]["status"]["phase"] = json!("Failed");
    assert_eq!(cluster.pass(), ["-1"]);
    assert_eq!(cluster.settle(), ["+1", "-2"]);
}

#[test]
fn claims_belong_to_whom_the_retention_policy_says() {
    let policy = |deleted: &str, scaled: &str| {
        set(&json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled}}))
    };
    let kinds = |set: &StatefulSet, pod: &str| {
        let pod = ObjectMeta { name: Some(pod.to_owned()), uid: Some("pod".to_owned()), ..ObjectMeta::default() };
        match (Holders { set, pod: &pod }).owners(&ObjectMeta::default()) {
            Owners::Keep => Vec::new(),
            Owners::Set(owners) => owners.into_iter().map(|owner| owner.kind).collect(),
        }
    };
    assert!(kinds(&policy("Retain", "Retain"), "web-0").is_empty());
    assert_eq!(kinds(&policy("Delete", "Retain"), "web-7"), ["StatefulSet"]);
    assert!(kinds(&policy("Retain", "Delete"), "web-0").is_empty());
    assert_eq!(kinds(&policy("Retain", "Delete"), "web-7"), ["Pod"]);
    assert_eq!(kinds(&policy("Delete", "Delete"), "web-0"), ["StatefulSet"]);
    assert_eq!(kinds(&policy("Delete", "Delete"), "web-7"), ["Pod"]);
}

#[test]
fn a_pod_knows_its_name_its_index_and_its_volumes() {
    let set = set(&json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}));
    let pod = replicas::pod(&set, &set.spec.template, "r", 1);
    let labels = pod.metadata.labels.expect("labels");
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-1");
    assert_eq!(
        (labels["apps.kubernetes.io/pod-index"].as_str(), labels["controller-revision-hash"].as_str()),
        ("1", "r")
    );
    let spec = pod.spec.expect("a spec");
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-1"), Some("web")));
    let claim = spec.volumes.expect("volumes")[0].persistent_volume_claim.clone().expect("a claim");
    assert_eq!(claim.claim_name, "data-web-1");
    assert_eq!(replicas::claims(&set, 1)[0].metadata.labels.clone().expect("labels")["app"], "web");
}
