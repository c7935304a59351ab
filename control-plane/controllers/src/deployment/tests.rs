//! The Deployment's decisions against a small model cluster: rollouts keep within their limits and come to an end.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::json;

use super::reconcile::{Action, Observed, REVISION, reconcile};
use super::replicas::{available, desired, max_surge, max_unavailable, size};

/// An API of one Deployment and its ReplicaSets, whose pods become ready one a step.
struct Cluster {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    clock: i64,
    writes: usize,
}

impl Cluster {
    fn new(replicas: i32, strategy: serde_json::Value) -> Self {
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "1"}]}});
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
                "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10, "template": template},
        }))
        .expect("a deployment");
        Self { deployment, sets: Vec::new(), clock: 0, writes: 0 }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + self.clock).expect("a time")
    }

    fn set_image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().expect("a spec");
        spec.template.spec.as_mut().expect("a pod spec").containers[0].image = Some(image.to_owned());
        self.deployment.metadata.generation = self.deployment.metadata.generation.map(|generation| generation + 1);
    }

    fn scale(&mut self, replicas: i32) {
        self.deployment.spec.as_mut().expect("a spec").replicas = Some(replicas);
        self.deployment.metadata.generation = self.deployment.metadata.generation.map(|generation| generation + 1);
    }

    /// One reconcile; whether it wrote anything.
    fn reconcile(&mut self) -> bool {
        let sets: Vec<Arc<ReplicaSet>> = self.sets.iter().cloned().map(Arc::new).collect();
        let running = self.sets.iter().filter(|set| set.status.as_ref().is_some_and(|status| status.replicas > 0));
        let sets_with_pods: Vec<String> = running.filter_map(|set| set.metadata.uid.clone()).collect();
        let observed = Observed { deployment: &self.deployment, sets: &sets, sets_with_pods: &sets_with_pods };
        let mut wrote = false;
        for action in reconcile(observed, self.now()) {
            wrote |= !matches!(action, Action::CheckAgain(_));
            match action {
                Action::Create(mut set) => {
                    set.metadata.uid = set.metadata.name.clone();
                    set.metadata.creation_timestamp = Some(Time(self.now()));
                    set.status = Some(ReplicaSetStatus::default());
                    self.sets.push(*set);
                }
                Action::Update { set, .. } => {
                    let stored = self.sets.iter_mut().find(|stored| stored.metadata.uid == set.metadata.uid);
                    *stored.expect("it is there") = *set;
                }
                Action::Delete(set) => self.sets.retain(|stored| stored.metadata.uid != set.metadata.uid),
                Action::UpdateStatus { status, revision } => {
                    self.deployment.status = Some(*status);
                    if let Some(revision) = revision {
                        let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                        annotations.insert(REVISION.to_owned(), revision);
                    }
                }
                Action::RefuseSelector => panic!("the selector is not empty"),
                Action::CheckAgain(_) => {}
            }
        }
        self.writes += usize::from(wrote);
        wrote
    }

    /// The ReplicaSet controller and kubelets: surplus pods go, and one missing pod of each set starts and is ready.
    fn run_pods(&mut self) -> bool {
        self.clock += 1;
        let mut moved = false;
        for set in &mut self.sets {
            let wanted = size(set);
            let generation = set.metadata.generation;
            let status = set.status.get_or_insert_default();
            let replicas = if status.replicas < wanted { status.replicas + 1 } else { wanted };
            moved |= replicas != status.replicas;
            status.replicas = replicas;
            status.ready_replicas = Some(replicas);
            status.available_replicas = Some(replicas);
            status.observed_generation = generation;
        }
        moved
    }

    /// Reconciles and runs pods until nothing moves any more. `within` is checked after each reconcile.
    fn settle(&mut self, within: impl Fn(&Self)) {
        for _ in 0..2000 {
            let wrote = self.reconcile();
            within(self);
            let moved = self.run_pods();
            if !wrote && !moved {
                return;
            }
        }
        panic!("the rollout does not come to an end");
    }

    fn active(&self) -> Vec<&ReplicaSet> {
        self.sets.iter().filter(|set| size(set) > 0).collect()
    }

    fn condition(&self, r#type: &str) -> (String, String) {
        let status = self.deployment.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.clone()).expect("conditions");
        let condition = conditions.into_iter().find(|condition| condition.type_ == r#type).expect("the condition");
        (condition.status, condition.reason.unwrap_or_default())
    }
}

fn rolling(surge: i32, unavailable: i32) -> serde_json::Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn a_new_deployment_gets_a_set_with_hash_revision_and_conditions() {
    let mut cluster = Cluster::new(3, rolling(1, 0));
    cluster.settle(|_| {});
    let set = cluster.active()[0];
    assert!(set.metadata.name.as_deref().expect("a name").starts_with("web-"));
    assert_eq!(set.metadata.annotations.as_ref().expect("annotations")[REVISION], "1");
    assert_eq!(cluster.deployment.metadata.annotations.as_ref().expect("annotations")[REVISION], "1");
    assert_eq!(cluster.condition("Progressing"), ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));
    assert_eq!(cluster.condition("Available"), ("True".to_owned(), "MinimumReplicasAvailable".to_owned()));
}

#[test]
fn going_back_to_an_old_template_reuses_its_set_under_the_next_revision() {
    let mut cluster = Cluster::new(2, rolling(1, 0));
    cluster.settle(|_| {});
    cluster.set_image("2");
    cluster.settle(|_| {});
    cluster.set_image("1");
    cluster.settle(|_| {});
    assert_eq!(cluster.sets.len(), 2);
    let annotations = cluster.active()[0].metadata.annotations.clone().expect("annotations");
    assert_eq!(annotations[REVISION], "3");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
}

#[test]
fn a_recreation_starts_no_new_pod_before_the_last_old_one_ended() {
    let mut cluster = Cluster::new(3, json!({"type": "Recreate"}));
    cluster.settle(|_| {});
    cluster.set_image("2");
    cluster.settle(|cluster| assert!(cluster.active().len() <= 1));
    assert_eq!(cluster.active()[0].metadata.annotations.as_ref().expect("annotations")[REVISION], "2");
}

#[test]
fn history_beyond_the_limit_is_deleted() {
    let mut cluster = Cluster::new(1, rolling(1, 0));
    cluster.deployment.spec.as_mut().expect("a spec").revision_history_limit = Some(1);
    for image in ["1", "2", "3", "4"] {
        cluster.set_image(image);
        cluster.settle(|_| {});
    }
    assert_eq!(cluster.sets.len(), 2);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll_out() {
    let mut cluster = Cluster::new(2, rolling(1, 0));
    cluster.settle(|_| {});
    cluster.deployment.spec.as_mut().expect("a spec").paused = Some(true);
    cluster.set_image("2");
    cluster.scale(5);
    cluster.settle(|_| {});
    assert_eq!((cluster.sets.len(), size(&cluster.sets[0])), (1, 5));
    assert_eq!(cluster.condition("Progressing"), ("Unknown".to_owned(), "DeploymentPaused".to_owned()));
}

#[test]
fn a_rollout_without_progress_times_out() {
    let mut cluster = Cluster::new(2, rolling(1, 0));
    cluster.settle(|_| {});
    cluster.set_image("2");
    cluster.reconcile();
    cluster.clock += 700;
    cluster.reconcile();
    assert_eq!(cluster.condition("Progressing"), ("False".to_owned(), "ProgressDeadlineExceeded".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_sequence_of_changes_ends_in_one_full_set_and_no_more_writes(
        replicas in 0i32..12, surge in 0i32..4, unavailable in 0i32..4,
        changes in proptest::collection::vec((any::<bool>(), 0i32..12, 0usize..12), 0..6),
    ) {
        prop_assume!(surge + unavailable > 0);
        let mut cluster = Cluster::new(replicas, rolling(surge, unavailable));
        cluster.settle(|_| {});
        for (rollout, number, steps) in changes {
            if rollout { cluster.set_image(&number.to_string()) } else { cluster.scale(number) }
            for _ in 0..steps {
                cluster.reconcile();
                cluster.run_pods();
            }
        }
        cluster.settle(|_| {});
        let full = desired(&cluster.deployment);
        let active: Vec<i32> = cluster.active().into_iter().map(size).collect();
        prop_assert_eq!(active, if full > 0 { vec![full] } else { vec![] });
        let before = cluster.writes;
        cluster.reconcile();
        prop_assert_eq!(cluster.writes, before, "it acts on");
    }

    #[test]
    fn a_rolling_update_keeps_to_surge_and_unavailability(replicas in 1i32..12, surge in 0i32..4, unavailable in 0i32..4) {
        prop_assume!(surge + unavailable > 0);
        let mut cluster = Cluster::new(replicas, rolling(surge, unavailable));
        cluster.settle(|_| {});
        cluster.set_image("2");
        cluster.settle(|cluster| {
            let total: i32 = cluster.sets.iter().map(size).sum();
            assert!(total <= replicas + max_surge(&cluster.deployment), "surge");
            let sure: i32 = cluster.sets.iter().map(|set| available(set).min(size(set))).sum();
            assert!(sure >= replicas - max_unavailable(&cluster.deployment), "availability");
        });
    }
}
