use k8s_openapi::api::core::v1::{ContainerStateTerminated, PodCondition};
use serde_json::json;

use super::*;
use crate::pod::observation::{ContainerObservation, Ended, Reason, Resize};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("time")
}

fn pod(spec: Value) -> Pod {
    let metadata = json!({"name": "p", "namespace": "default", "uid": "u1", "generation": 3});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("pod")
}

fn one_container() -> Pod {
    pod(json!({"containers": [{"name": "main", "image": "busybox"}]}))
}

fn with_policy(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "main", "image": "busybox"}]}))
}

fn with_init() -> Pod {
    pod(json!({
        "initContainers": [{"name": "init", "image": "busybox"}],
        "containers": [{"name": "main", "image": "busybox"}],
    }))
}

fn with_sidecar() -> Pod {
    let mut pod = with_init();
    if let Some(inits) = pod.spec.as_mut().and_then(|spec| spec.init_containers.as_mut()) {
        inits[0].restart_policy = Some("Always".to_owned());
    }
    pod
}

fn node() -> NodeFacts {
    NodeFacts { host_ips: vec!["10.0.0.1".parse().expect("address")] }
}

fn container(state: Seen) -> ContainerObservation {
    ContainerObservation {
        id: "c0".to_owned(),
        attempt: 0,
        short_runs: 0,
        resources: Default::default(),
        restart: false,
        image: "docker.io/library/busybox:latest".to_owned(),
        image_id: "docker.io/library/busybox@sha256:1".to_owned(),
        volume_images: Default::default(),
        state,
        last: None,
    }
}

fn running() -> ContainerObservation {
    container(Seen::Running { started_at: at(5), started: true, ready: true, unhealthy: false, stopping: false })
}

fn starting() -> ContainerObservation {
    container(Seen::Running { started_at: at(5), started: false, ready: false, unhealthy: false, stopping: false })
}

fn ended(exit_code: i32) -> ContainerObservation {
    let reason = if exit_code == 0 { "Completed" } else { "Error" };
    container(Seen::Ended(Ended {
        id: "c0".to_owned(),
        exit_code,
        reason: reason.to_owned(),
        message: None,
        started_at: at(5),
        finished_at: at(6),
    }))
}

fn seen(containers: impl IntoIterator<Item = (&'static str, ContainerObservation)>) -> PodObservation {
    PodObservation {
        sandbox: true,
        addresses: vec!["10.1.0.7".parse().expect("address")],
        containers: containers.into_iter().map(|(name, container)| (name.to_owned(), container)).collect(),
        ..PodObservation::default()
    }
}

fn reason(reason: &str, message: &str) -> Reason {
    Reason { reason: reason.to_owned(), message: message.to_owned() }
}

fn of(pod: &Pod, seen: &PodObservation) -> PodStatus {
    status(pod, seen, &node(), at(100))
}

fn phase_of(pod: &Pod, seen: &PodObservation) -> String {
    of(pod, seen).phase.expect("phase")
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind).expect("condition")
}

fn main_of(status: &PodStatus) -> &ContainerStatus {
    status.container_statuses.as_ref().expect("statuses").first().expect("a status")
}

fn waiting_reason(status: &ContainerStatus) -> Option<&str> {
    status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

fn end_of(state: &Option<ContainerState>) -> Option<&ContainerStateTerminated> {
    state.as_ref()?.terminated.as_ref()
}

/// As the API would give it back.
fn written(mut pod: Pod, status: PodStatus) -> Pod {
    pod.status = Some(status);
    pod
}

#[test]
fn a_new_pod_is_pending_and_creates_its_containers() {
    let status = of(&one_container(), &PodObservation::default());
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting_reason(main_of(&status)), Some("ContainerCreating"));
    assert_eq!(main_of(&status).started, Some(false));
    assert_eq!(status.start_time, Some(Time(at(100))));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let sandbox = condition(&status, "PodReadyToStartContainers");
    assert_eq!((sandbox.status.as_str(), sandbox.reason.as_deref()), ("False", Some("PodSandboxNotReady")));
}

#[test]
fn a_running_pod_is_ready_and_shows_its_addresses() {
    let status = of(&one_container(), &seen([("main", running())]));
    assert_eq!(status.phase.as_deref(), Some("Running"));
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&status, kind).status, "True", "{kind}");
        assert_eq!(condition(&status, kind).observed_generation, Some(3), "{kind}");
    }
    assert_eq!(status.pod_ip.as_deref(), Some("10.1.0.7"));
    assert_eq!(status.host_ip.as_deref(), Some("10.0.0.1"));
    let main = main_of(&status);
    assert_eq!(main.container_id.as_deref(), Some("containerd://c0"));
    assert!(main.ready && main.started == Some(true));
}

#[test]
fn a_container_whose_readiness_probe_fails_makes_the_pod_unready() {
    let mut unready = running();
    if let Seen::Running { ready, .. } = &mut unready.state {
        *ready = false;
    }
    let status = of(&one_container(), &seen([("main", unready)]));
    let ready = condition(&status, "Ready");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(ready.reason.as_deref(), Some("ContainersNotReady"));
    assert_eq!(ready.message.as_deref(), Some("containers with unready status: [main]"));
}

#[test]
fn a_container_that_is_not_started_is_not_ready() {
    let status = of(&one_container(), &seen([("main", starting())]));
    assert!(!main_of(&status).ready);
    assert_eq!(main_of(&status).started, Some(false));
}

#[test]
fn a_readiness_gate_without_its_condition_keeps_the_pod_unready() {
    let mut pod = pod(json!({
        "containers": [{"name": "main", "image": "busybox"}],
        "readinessGates": [{"conditionType": "example.com/fed"}],
    }));
    let status = of(&pod, &seen([("main", running())]));
    let ready = condition(&status, "Ready");
    assert_eq!(ready.reason.as_deref(), Some("ReadinessGatesNotReady"));
    let message = "corresponding condition of pod readiness gate \"example.com/fed\" does not exist.";
    assert_eq!(ready.message.as_deref(), Some(message));
    let fed =
        PodCondition { type_: "example.com/fed".to_owned(), status: "True".to_owned(), ..PodCondition::default() };
    pod.status = Some(PodStatus { conditions: Some(vec![fed]), ..PodStatus::default() });
    let status = of(&pod, &seen([("main", running())]));
    assert_eq!(condition(&status, "Ready").status, "True");
    assert_eq!(condition(&status, "example.com/fed").status, "True");
}

#[test]
fn containers_wait_for_init_containers() {
    let status = of(&with_init(), &seen([("init", running())]));
    let initialized = condition(&status, "Initialized");
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting_reason(main_of(&status)), Some("PodInitializing"));
    assert_eq!(initialized.reason.as_deref(), Some("ContainersNotInitialized"));
    assert_eq!(initialized.message.as_deref(), Some("containers with incomplete status: [init]"));
}

#[test]
fn an_init_container_that_succeeded_is_ready_and_initializes_the_pod() {
    let status = of(&with_init(), &seen([("init", ended(0)), ("main", running())]));
    let init = &status.init_container_statuses.as_ref().expect("init")[0];
    assert!(init.ready);
    assert_eq!(condition(&status, "Initialized").status, "True");
    assert_eq!(condition(&status, "Ready").status, "True");
}

#[test]
fn an_init_container_that_failed_for_good_fails_the_pod() {
    let mut pod = with_init();
    pod.spec.as_mut().expect("spec").restart_policy = Some("Never".to_owned());
    assert_eq!(phase_of(&pod, &seen([("init", ended(1))])), "Failed");
}

#[test]
fn an_init_container_whose_remains_are_gone_counts_as_completed_once_a_main_one_ran() {
    let status = of(&with_init(), &seen([("main", running())]));
    let init = &status.init_container_statuses.as_ref().expect("init")[0];
    assert_eq!(end_of(&init.state).and_then(|end| end.reason.as_deref()), Some("Completed"));
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn a_sidecar_must_be_started_before_the_pod_runs() {
    let pod = with_sidecar();
    assert_eq!(phase_of(&pod, &seen([("init", starting())])), "Pending");
    let status = of(&pod, &seen([("init", running()), ("main", running())]));
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.init_container_statuses.expect("init")[0].ready);
}

#[test]
fn a_sidecar_that_still_runs_holds_back_the_end_of_the_pod() {
    let mut pod = with_sidecar();
    pod.spec.as_mut().expect("spec").restart_policy = Some("Never".to_owned());
    assert_eq!(phase_of(&pod, &seen([("init", running()), ("main", ended(0))])), "Running");
    assert_eq!(phase_of(&pod, &seen([("init", ended(143)), ("main", ended(0))])), "Succeeded");
}

#[test]
fn the_phase_of_ended_containers_follows_the_restart_policy() {
    let table = [
        ("Always", 0, "Running"),
        ("Always", 1, "Running"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 1, "Running"),
        ("Never", 0, "Succeeded"),
        ("Never", 1, "Failed"),
    ];
    for (policy, exit_code, phase) in table {
        assert_eq!(phase_of(&with_policy(policy), &seen([("main", ended(exit_code))])), phase, "{policy} {exit_code}");
    }
}

#[test]
fn a_completed_pod_says_so_in_its_conditions() {
    let status = of(&with_policy("Never"), &seen([("main", ended(0))]));
    assert_eq!(condition(&status, "Ready").reason.as_deref(), Some("PodCompleted"));
    let initialized = condition(&status, "Initialized");
    assert_eq!((initialized.status.as_str(), initialized.reason.as_deref()), ("True", Some("PodCompleted")));
}

#[test]
fn a_containers_own_rules_come_before_the_policies() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{
        "name": "main", "image": "busybox", "restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}],
    }]}));
    assert_eq!(phase_of(&pod, &seen([("main", ended(42))])), "Running");
    assert_eq!(phase_of(&pod, &seen([("main", ended(1))])), "Failed");
}

#[test]
fn an_image_that_cannot_be_pulled_is_the_reason_to_wait() {
    let mut seen = seen([]);
    seen.waiting.insert("main".to_owned(), reason("ImagePullBackOff", "Back-off pulling image \"x\""));
    let status = of(&one_container(), &seen);
    assert_eq!(waiting_reason(main_of(&status)), Some("ImagePullBackOff"));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
}

#[test]
fn a_container_in_back_off_shows_how_it_ended_last() {
    let mut seen = seen([("main", ended(1))]);
    seen.waiting.insert("main".to_owned(), reason("CrashLoopBackOff", "back-off 10s restarting failed container"));
    let status = of(&one_container(), &seen);
    let main = main_of(&status);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(waiting_reason(main), Some("CrashLoopBackOff"));
    assert_eq!(end_of(&main.last_state).map(|end| end.exit_code), Some(1));
}

#[test]
fn a_container_that_is_not_to_run_again_never_waits() {
    let mut seen = seen([("main", ended(0))]);
    seen.waiting.insert("main".to_owned(), reason("CrashLoopBackOff", ""));
    let status = of(&with_policy("OnFailure"), &seen);
    assert_eq!(end_of(&main_of(&status).state).map(|end| end.exit_code), Some(0));
}

#[test]
fn a_restarted_container_shows_the_run_before() {
    let mut again = running();
    (again.id, again.attempt) = ("c1".to_owned(), 1);
    let before = written(one_container(), of(&one_container(), &seen([("main", ended(7))])));
    let status = of(&before, &seen([("main", again)]));
    let main = main_of(&status);
    assert_eq!(main.restart_count, 1);
    assert_eq!(end_of(&main.last_state).map(|end| end.exit_code), Some(7));
}

#[test]
fn a_container_that_ended_stays_so_when_its_remains_are_gone() {
    let pod = with_policy("Never");
    let before = written(pod.clone(), of(&pod, &seen([("main", ended(3))])));
    let status = of(&before, &PodObservation::default());
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(end_of(&main_of(&status).state).map(|end| end.exit_code), Some(3));
    assert_eq!(status.pod_ip.as_deref(), Some("10.1.0.7"));
}

#[test]
fn a_container_that_was_running_and_is_gone_was_restarted() {
    let before = written(one_container(), of(&one_container(), &seen([("main", running())])));
    let status = of(&before, &PodObservation::default());
    let main = main_of(&status);
    assert_eq!(main.restart_count, 1);
    assert_eq!(end_of(&main.last_state).and_then(|end| end.reason.as_deref()), Some("ContainerStatusUnknown"));
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn a_terminal_phase_waits_until_nothing_runs() {
    let before = written(one_container(), of(&one_container(), &seen([("main", running())])));
    let mut evicted = seen([("main", running())]);
    evicted.failed = Some(reason("Evicted", "The node was low on resource: memory. "));
    assert_eq!(phase_of(&before, &evicted), "Running");
    evicted.containers.insert("main".to_owned(), ended(137));
    let status = of(&before, &evicted);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    assert_eq!(condition(&status, "Ready").reason.as_deref(), Some("PodFailed"));
    assert_eq!(condition(&status, "DisruptionTarget").reason.as_deref(), Some("TerminationByKubelet"));
}

#[test]
fn a_terminal_phase_is_never_left() {
    let pod = with_policy("Never");
    let before = written(pod.clone(), of(&pod, &seen([("main", ended(1))])));
    assert_eq!(phase_of(&before, &seen([("main", running())])), "Failed");
}

#[test]
fn a_deleted_pod_ends_by_how_its_containers_ended() {
    let mut pod = one_container();
    pod.metadata.deletion_timestamp = Some(Time(at(50)));
    assert_eq!(phase_of(&pod, &seen([("main", running())])), "Running");
    assert_eq!(phase_of(&pod, &seen([("main", ended(0))])), "Succeeded");
    assert_eq!(phase_of(&pod, &seen([("main", ended(137))])), "Failed");
}

#[test]
fn a_pod_that_is_deleted_before_it_started_failed() {
    let mut pod = one_container();
    pod.metadata.deletion_timestamp = Some(Time(at(50)));
    let status = of(&pod, &PodObservation::default());
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let end = end_of(&main_of(&status).state).expect("an end");
    assert_eq!((end.exit_code, end.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
}

#[test]
fn a_refused_pod_has_no_containers_and_says_why() {
    let refused = PodObservation {
        failed: Some(reason("OutOfcpu", "Node didn't have enough resource: cpu")),
        ..PodObservation::default()
    };
    let status = of(&one_container(), &refused);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));
    assert_eq!(status.container_statuses, None);
}

#[test]
fn a_condition_keeps_its_transition_time_until_it_turns() {
    let before = written(one_container(), status(&one_container(), &seen([("main", running())]), &node(), at(100)));
    let same = status(&before, &seen([("main", running())]), &node(), at(200));
    assert_eq!(condition(&same, "Ready").last_transition_time, Some(Time(at(100))));
    let turned = status(&before, &seen([("main", ended(1))]), &node(), at(200));
    assert_eq!(condition(&turned, "Ready").last_transition_time, Some(Time(at(200))));
}

#[test]
fn an_unchanged_pod_has_an_unchanged_status() {
    let first = of(&with_sidecar(), &seen([("init", running()), ("main", running())]));
    let before = written(with_sidecar(), first.clone());
    assert_eq!(status(&before, &seen([("init", running()), ("main", running())]), &node(), at(999)), first);
}

#[test]
fn a_pod_on_the_hosts_network_has_the_hosts_addresses() {
    let pod = pod(json!({"hostNetwork": true, "containers": [{"name": "main", "image": "busybox"}]}));
    let status = of(&pod, &PodObservation { sandbox: true, ..PodObservation::default() });
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"));
}

#[test]
fn addresses_come_in_the_order_of_the_nodes_family() {
    let mut seen = seen([("main", running())]);
    seen.addresses = ["10.1.0.7", "fd00::7", "fd00::8"].iter().map(|ip| ip.parse().expect("address")).collect();
    let facts = NodeFacts { host_ips: vec!["fd00::1".parse().expect("address")] };
    let status = status(&one_container(), &seen, &facts, at(100));
    let ips: Vec<_> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    assert_eq!(ips, ["fd00::7", "10.1.0.7"]);
}

#[test]
fn long_termination_messages_are_cut_to_their_share() {
    let mut long = ended(1);
    if let Seen::Ended(end) = &mut long.state {
        end.message = Some("ä".repeat(20_000));
    }
    let status = of(&one_container(), &seen([("main", long)]));
    let message = end_of(&main_of(&status).state).and_then(|end| end.message.clone()).expect("message");
    assert_eq!(message.len(), TERMINATION_MESSAGES_LIMIT);
}

#[test]
fn resources_of_a_container_and_of_the_pod_are_shown() {
    let resources = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
    let pod = pod(json!({"containers": [
        {"name": "main", "image": "busybox", "resources": resources},
        {"name": "other", "image": "busybox", "resources": resources},
    ]}));
    let status = of(&pod, &seen([("main", running())]));
    let main = main_of(&status).allocated_resources.as_ref().expect("allocated");
    assert_eq!(main["cpu"].0, "100m");
    assert_eq!(status.allocated_resources.expect("allocated")["cpu"].0, "200m");
    assert_eq!(status.resources.expect("resources").limits.expect("limits")["memory"].0, "128Mi");
    assert_eq!(status.qos_class.as_deref(), Some("Burstable"));
}

mod agreement {
    //! The status and the plan are two views of one pod.

    use proptest::prelude::*;

    use super::*;
    use crate::pod::plan::{Outcome, outcome};

    fn states() -> impl Strategy<Value = Option<ContainerObservation>> {
        prop_oneof![
            Just(None),
            Just(Some(running())),
            Just(Some(starting())),
            Just(Some(ended(0))),
            Just(Some(ended(1))),
        ]
    }

    fn three(policy: &str) -> Pod {
        pod(json!({
            "restartPolicy": policy,
            "initContainers": [{"name": "init", "image": "i"}, {"name": "side", "image": "i", "restartPolicy": "Always"}],
            "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}],
        }))
    }

    proptest! {
        #[test]
        fn a_pod_ends_as_the_plan_says_and_only_when_nothing_runs(
            policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
            states in [states(), states(), states(), states()],
        ) {
            // Main containers run after the init container was done, whose remains may be gone, and the sidecar started.
            let done = states[0].is_none() || states[0] == Some(ended(0));
            prop_assume!(states[2].is_none() && states[3].is_none() || done && states[1].is_some());
            let pod = three(policy);
            let names = ["init", "side", "a", "b"];
            let containers = names.into_iter().zip(states).filter_map(|(name, state)| Some((name, state?)));
            let seen = seen(containers);
            let status = of(&pod, &seen);
            let phase = status.phase.as_deref().expect("phase");
            let runs = seen.containers.values().any(|container| matches!(container.state, Seen::Running { .. }));
            let spec = pod.spec.as_ref().expect("spec");
            match outcome(spec, &seen.runtime_state()) {
                _ if runs => prop_assert!(!is_terminal(Some(phase)), "{phase}"),
                Outcome::Succeeded => prop_assert_eq!(phase, "Succeeded"),
                Outcome::Failed => prop_assert_eq!(phase, "Failed"),
                Outcome::Pending | Outcome::Running => prop_assert!(!is_terminal(Some(phase)), "{phase}"),
            }
            prop_assert_eq!(of(&written(pod, status.clone()), &seen), status);
        }
    }
}

#[test]
fn a_resize_shows_what_the_container_has_until_it_has_what_was_granted() {
    let resources = |cpu: &str| serde_json::from_value(json!({"requests": {"cpu": cpu}})).expect("resources");
    let mut pod = pod(json!({"containers": [{"name": "c"}]}));
    pod.spec.as_mut().expect("a spec").containers[0].resources = Some(resources("2"));
    let name = pod.spec.as_ref().expect("a spec").containers[0].name.clone();
    let seen = ContainerObservation { resources: resources("1"), ..running() };
    let resize = Resize { in_progress: true, error: Some("no".to_owned()), ..Resize::default() };
    let seen = PodObservation { containers: [(name, seen)].into(), sandbox: true, resize, ..PodObservation::default() };
    let status = status(&pod, &seen, &node(), at(10));
    let own = &status.container_statuses.as_ref().expect("statuses")[0];
    assert_eq!(own.resources, Some(resources("1")));
    assert_eq!(own.allocated_resources, resources("2").requests);
    let conditions = status.conditions.as_ref().expect("conditions");
    let resize = conditions.iter().find(|own| own.type_ == "PodResizeInProgress").expect("the condition");
    assert_eq!((resize.reason.as_deref(), resize.message.as_deref()), (Some("Error"), Some("no")));
    let patch = status_patch("u", &status);
    let deleted = json!({"$patch": "delete", "type": "PodResizePending"});
    assert!(patch["status"]["conditions"].as_array().expect("conditions").contains(&deleted));
}

#[test]
fn the_image_that_a_container_mounts_is_shown_with_its_mount() {
    let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
        "containers": [{"name": "main", "volumeMounts": [
            {"name": "data", "mountPath": "/data"}, {"name": "cache", "mountPath": "/cache"},
        ]}],
        "volumes": [{"name": "data", "image": {"reference": "data:v1"}}, {"name": "cache", "emptyDir": {}}],
    }}))
    .expect("a pod");
    let image = "docker.io/library/data@sha256:1".to_owned();
    let container = ContainerObservation { volume_images: [("data".to_owned(), image.clone())].into(), ..running() };
    let status = of(&pod, &seen([("main", container)]));
    let mounts = main_of(&status).volume_mounts.as_ref().expect("mounts");
    let shown: Vec<_> = mounts
        .iter()
        .map(|mount| mount.volume_status.as_ref()?.image.as_ref().map(|image| image.image_ref.clone()))
        .collect();
    assert_eq!(shown, [Some(image), None]);
}
