//! The Job's decisions: by table, and convergence by simulating the cluster.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::indexes::Indexes;
use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("a time")
}

fn job(spec: &Value) -> Job {
    let mut job = json!({
        "metadata": {"name": "work", "namespace": "n", "uid": "job"},
        "spec": {"parallelism": 2, "completions": 2, "backoffLimit": 6, "completionMode": "NonIndexed",
                 "selector": {"matchLabels": {"app": "work"}},
                 "template": {"metadata": {"labels": {"app": "work"}},
                              "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}},
    });
    for (field, value) in spec.as_object().expect("fields") {
        job["spec"][field] = value.clone();
    }
    serde_json::from_value(job).expect("a Job")
}

/// The API server and the kubelet, as far as a Job sees them.
struct Cluster {
    job: Job,
    pods: Vec<Value>,
    serial: usize,
    backoff: Backoff,
    now: i64,
}

impl Cluster {
    fn new(spec: &Value) -> Self {
        Self { job: job(spec), pods: Vec::new(), serial: 0, backoff: Backoff::default(), now: 0 }
    }

    /// One pass, with all its writes. Gives whether it did anything.
    fn pass(&mut self) -> bool {
        let observed_job = self.job.clone();
        if reconcile::ended(&observed_job).is_some() {
            return false;
        }
        let spec = observed_job.spec.as_ref().expect("a spec");
        let pods: Vec<Arc<SlimPod>> =
            self.pods.iter().map(|pod| Arc::new(serde_json::from_value(pod.clone()).expect("a pod"))).collect();
        let removed = HashSet::new();
        let observed =
            Observed { job: &observed_job, spec, pods: &pods, removed: &removed, settled: true, backoff: self.backoff };
        let mut pass = Pass::new(observed, at(self.now));
        let mut acted = true;
        match pass.work() {
            Work::Nothing => {
                pass.worked(&[], 0);
                acted = false;
            }
            Work::End(gone) => {
                acted = !gone.is_empty();
                self.delete(&gone, false);
                pass.worked(&gone, 0);
            }
            Work::Delete(gone) => {
                self.delete(&gone, true);
                pass.worked(&gone, 0);
            }
            Work::Create(wanted) => {
                for (index, replaced) in &wanted {
                    let mut pod = serde_json::to_value(pods::pod(&observed_job, spec, *index, replaced.as_deref()))
                        .expect("json");
                    self.serial += 1;
                    pod["metadata"]["name"] = json!(format!("pod-{}", self.serial));
                    pod["metadata"]["uid"] = json!(format!("uid-{}", self.serial));
                    pod["status"] = json!({"phase": "Pending"});
                    self.pods.push(pod);
                }
                pass.worked(&[], wanted.len());
            }
        }
        let release = pass.track();
        acted |= pass.changed;
        for pod in &release {
            self.release(pod.metadata.uid.as_deref().expect("a uid"));
        }
        pass.finalizers_removed(&release);
        pass.finish();
        acted |= pass.changed || !release.is_empty();
        self.backoff = pass.backoff;
        self.job = pass.job;
        acted
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            if !self.pass() {
                return;
            }
        }
        panic!("acts on and on: {:?}", self.job.status);
    }

    fn delete(&mut self, gone: &[Arc<SlimPod>], release: bool) {
        for pod in gone {
            let uid = pod.metadata.uid.as_deref().expect("a uid");
            let own = self.pods.iter_mut().find(|pod| pod["metadata"]["uid"] == uid).expect("the pod");
            own["metadata"]["deletionTimestamp"] = json!("2023-11-14T22:13:20Z");
            if release {
                self.release(uid);
            }
        }
        // The kubelet ends them at once.
        self.pods.iter_mut().filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null()).for_each(|pod| {
            pod["status"] = json!({"phase": "Failed"});
        });
    }

    fn release(&mut self, uid: &str) {
        let pod = self.pods.iter_mut().find(|pod| pod["metadata"]["uid"] == uid).expect("the pod");
        pod["metadata"]["finalizers"] = json!([]);
        self.pods
            .retain(|pod| pod["metadata"]["deletionTimestamp"].is_null() || pod["metadata"]["finalizers"] != json!([]));
    }

    /// Ends a pod that runs, the `which`th of them.
    fn end(&mut self, which: usize, exit_code: i32) -> bool {
        let running = |pod: &&mut Value| pod["status"]["phase"] == "Pending";
        let count = self.pods.iter().filter(|pod| pod["status"]["phase"] == "Pending").count();
        let finished = at(self.now).to_string();
        let Some(pod) = (count > 0).then(|| self.pods.iter_mut().filter(running).nth(which % count)).flatten() else {
            return false;
        };
        pod["status"] = json!({
            "phase": if exit_code == 0 { "Succeeded" } else { "Failed" },
            "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": exit_code, "finishedAt": finished}}}],
        });
        true
    }

    fn status(&self) -> k8s_openapi::api::batch::v1::JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    fn ended(&self) -> Option<(String, String)> {
        reconcile::ended(&self.job).map(|last| (last.type_.clone(), last.reason.clone().unwrap_or_default()))
    }

    fn active(&self) -> usize {
        self.pods.iter().filter(|pod| pod["status"]["phase"] == "Pending").count()
    }
}

#[test]
fn a_job_completes_with_its_pods_and_lets_them_go() {
    let mut cluster = Cluster::new(&json!({"completions": 3}));
    cluster.settle();
    assert_eq!((cluster.active(), cluster.status().active), (2, Some(2)));
    for _ in 0..3 {
        assert!(cluster.end(0, 0));
        cluster.settle();
    }
    let status = cluster.status();
    assert_eq!(cluster.ended(), Some(("Complete".to_owned(), "CompletionsReached".to_owned())));
    assert_eq!((status.succeeded, status.active, status.failed), (Some(3), None, None));
    assert!(status.completion_time.is_some() && status.start_time.is_some());
    let types: Vec<_> = status.conditions.iter().flatten().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(types, ["SuccessCriteriaMet", "Complete"]);
    assert!(cluster.pods.iter().all(|pod| pod["metadata"]["finalizers"] == json!([])));
}

#[test]
fn a_failed_pod_is_replaced_after_the_back_off_until_the_limit() {
    let mut cluster = Cluster::new(&json!({"completions": 1, "parallelism": 1, "backoffLimit": 1}));
    cluster.settle();
    cluster.end(0, 1);
    cluster.settle();
    assert_eq!((cluster.active(), cluster.status().failed), (0, Some(1)));
    cluster.now = 11;
    cluster.settle();
    assert_eq!(cluster.active(), 1);
    cluster.end(0, 1);
    cluster.settle();
    assert_eq!(cluster.ended(), Some(("Failed".to_owned(), "BackoffLimitExceeded".to_owned())));
    assert_eq!(cluster.status().failed, Some(2));
}

#[test]
fn an_indexed_job_runs_each_index_once_and_tells_pods_theirs() {
    let mut cluster = Cluster::new(&json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4}));
    cluster.settle();
    let hostnames: HashSet<_> = cluster.pods.iter().map(|pod| pod["spec"]["hostname"].to_string()).collect();
    assert_eq!(hostnames.len(), 4);
    assert_eq!(cluster.pods[1]["metadata"]["generateName"], "work-1-");
    assert_eq!(cluster.pods[1]["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    for _ in 0..3 {
        cluster.end(0, 0);
    }
    cluster.settle();
    assert_eq!(cluster.status().completed_indexes.as_deref(), Some("0-2"));
    cluster.end(0, 0);
    cluster.settle();
    assert_eq!(cluster.status().completed_indexes.as_deref(), Some("0-3"));
    assert_eq!(cluster.ended().expect("an end").0, "Complete");
}

#[test]
fn each_index_has_its_own_back_off_limit() {
    let spec =
        json!({"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX});
    let mut cluster = Cluster::new(&spec);
    cluster.settle();
    cluster.end(0, 1);
    cluster.end(0, 0);
    cluster.settle();
    cluster.now = 11;
    cluster.settle();
    let replacement = cluster.pods.iter().find(|pod| pod["status"]["phase"] == "Pending").expect("a replacement");
    assert_eq!(replacement["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], "1");
    cluster.end(0, 1);
    cluster.settle();
    assert_eq!(cluster.ended(), Some(("Failed".to_owned(), "FailedIndexes".to_owned())));
    assert_eq!(cluster.status().failed_indexes.as_deref(), Some("0"));
    assert_eq!(cluster.status().completed_indexes.as_deref(), Some("1"));
}

#[test]
fn rules_on_exit_codes_fail_the_job_its_index_or_nothing() {
    let rule = |action: &str| json!({"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [42]}}]});
    let mut failing = Cluster::new(&json!({"podFailurePolicy": rule("FailJob")}));
    failing.settle();
    failing.end(0, 42);
    failing.settle();
    assert_eq!(failing.ended(), Some(("Failed".to_owned(), "PodFailurePolicy".to_owned())));
    let message = failing.status().conditions.expect("conditions")[0].message.clone().expect("a message");
    assert_eq!(message, "Container c for pod n/pod-1 failed with exit code 42 matching FailJob rule at index 0");
    let mut ignoring = Cluster::new(&json!({"podFailurePolicy": rule("Ignore"), "backoffLimit": 0}));
    ignoring.settle();
    ignoring.end(0, 42);
    ignoring.now = 60;
    ignoring.settle();
    assert_eq!((ignoring.ended(), ignoring.status().failed, ignoring.active()), (None, None, 2));
}

#[test]
fn a_success_policy_ends_the_job_early() {
    let spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
    let mut cluster = Cluster::new(&spec);
    cluster.settle();
    cluster.end(0, 0);
    cluster.settle();
    assert_eq!(cluster.ended(), Some(("Complete".to_owned(), "SuccessPolicy".to_owned())));
    assert_eq!((cluster.active(), cluster.status().completed_indexes.as_deref()), (0, Some("0")));
}

#[test]
fn a_suspended_job_has_no_pods_and_starts_anew_when_it_is_resumed() {
    let mut cluster = Cluster::new(&json!({}));
    cluster.settle();
    cluster.job.spec.as_mut().expect("a spec").suspend = Some(true);
    cluster.settle();
    let status = cluster.status();
    assert_eq!((cluster.active(), status.start_time, status.failed), (0, None, None));
    assert_eq!(status.conditions.expect("conditions")[0].reason.as_deref(), Some("JobSuspended"));
    cluster.job.spec.as_mut().expect("a spec").suspend = Some(false);
    cluster.settle();
    assert_eq!((cluster.active(), cluster.status().start_time.is_some()), (2, true));
}

#[test]
fn a_job_past_its_deadline_fails() {
    let mut cluster = Cluster::new(&json!({"activeDeadlineSeconds": 30}));
    cluster.settle();
    cluster.now = 31;
    cluster.settle();
    assert_eq!(cluster.ended(), Some(("Failed".to_owned(), "DeadlineExceeded".to_owned())));
    assert_eq!(cluster.active(), 0);
}

#[test]
fn indexes_are_written_as_ranges_and_read_back() {
    for text in ["", "1", "0,1", "1,3-5,7", "0-4"] {
        assert_eq!(Indexes::parse(text, 100).to_string(), text);
    }
    assert_eq!(Indexes::parse("1,3-9", 6).to_string(), "1,3-5");
    assert_eq!(Indexes::parse("1,3", 6).missing(9, 6), [0, 2, 4, 5]);
    assert_eq!(Indexes::parse("2", 6).with([1, 4, 3]).to_string(), "1-4");
}

proptest! {
    #[test]
    fn whatever_pods_do_the_job_ends_and_every_pod_is_counted_once(
        indexed in any::<bool>(), completions in 1i32..6, parallelism in 1i32..5, limit in 0i32..4,
        ends in proptest::collection::vec((0usize..8, prop_oneof![3 => Just(0), 1 => Just(1)]), 60),
    ) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let mut cluster = Cluster::new(&json!({"completionMode": mode, "completions": completions,
            "parallelism": parallelism, "backoffLimit": limit}));
        let (mut succeeded, mut failed) = (0, 0);
        for (which, exit_code) in ends {
            cluster.settle();
            prop_assert!(cluster.active() <= usize::try_from(parallelism).expect("positive"));
            if cluster.end(which, exit_code) {
                *(if exit_code == 0 { &mut succeeded } else { &mut failed }) += 1;
            }
            cluster.now += 1000;
        }
        cluster.settle();
        let status = cluster.status();
        prop_assert!(cluster.ended().is_some(), "{:?}", status);
        prop_assert_eq!(status.succeeded.unwrap_or(0), succeeded);
        prop_assert!(status.failed.unwrap_or(0) >= failed);
        prop_assert!(status.uncounted_terminated_pods.is_none_or(|uids| uids.failed.is_none() && uids.succeeded.is_none()));
    }
}
